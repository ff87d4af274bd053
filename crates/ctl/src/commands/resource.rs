//! The commands that all kinds of resources have: create, get, update, delete, and the pages of a list.

use std::marker::PhantomData;

use clap::Args;
use prost_types::FieldMask;
use serde::Serialize;
use tonic::transport::Channel;
use tonic::{Response, Status};
use trestle_api::resource::{
    CreateCall, DeleteAnswer, DeleteCall, GetCall, ListAnswer, ListCall, ResourceMessage, UpdateCall,
};
use trestle_api::v1;

use super::metadata_settings::MetadataSettings;
use super::{PAGE_SIZE, consistency, next_page};
use crate::args::{CreateArgs, NO_HEADING, ReadArgs, WriteArgs};
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session};
use crate::write::{Created, Deleted, Write, warn};

/// What a call answers.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// A resource's name in the API.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiName {
    /// Name of the resource that it belongs to; empty for none.
    pub(crate) parent: String,
    /// Its last part.
    pub(crate) id: String,
    /// The whole.
    pub(crate) name: String,
}

/// A kind of resource as its commands handle it.
pub(crate) trait ResourceKind: ResourceMessage {
    /// What it is called in a sentence.
    const NOUN: &'static str = Self::WORD;
    /// What a user names it by.
    const NAMED: &'static str = "NAME";
    /// Help for the name of a new one.
    const NEW: &'static str;
    /// Told when one was created.
    const CREATED: &'static str = "created";
    /// Told when one was deleted.
    const DELETED: &'static str = "deleted";
    /// How it is shown after a write.
    type View: From<Self> + Serialize;

    /// Parses what a user names it by.
    fn parse(name: &str, input: &mut Input) -> ApiName;
    /// Shows one, with what members see of it.
    async fn show(self, session: &mut Session<'_>) -> Result<(), Error>;
    /// Warnings that a write has answered with.
    fn warnings(&self) -> &[String] {
        &[]
    }
    /// Waits for what a write is to bring about beyond being in force.
    async fn settle(_: &mut Session<'_>, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn create(channel: Channel, request: Self::Create) -> Answer<Self>;
    async fn get(channel: Channel, request: Self::Get) -> Answer<Self>;
    async fn list(channel: Channel, request: Self::List) -> Answer<Self::Listed>;
    async fn update(channel: Channel, request: Self::Update) -> Answer<Self>;
    async fn delete(channel: Channel, request: Self::Delete) -> Answer<Self::Deleted>;
}

/// The calls of a kind: the client of their service, and its methods.
macro_rules! calls {
    ($client:ident: $create:ident, $get:ident, $list:ident, $update:ident, $delete:ident) => {
        async fn create(channel: Channel, request: Self::Create) -> Answer<Self> {
            $client(channel).$create(request).await
        }

        async fn get(channel: Channel, request: Self::Get) -> Answer<Self> {
            $client(channel).$get(request).await
        }

        async fn list(channel: Channel, request: Self::List) -> Answer<Self::Listed> {
            $client(channel).$list(request).await
        }

        async fn update(channel: Channel, request: Self::Update) -> Answer<Self> {
            $client(channel).$update(request).await
        }

        async fn delete(channel: Channel, request: Self::Delete) -> Answer<Self::Deleted> {
            $client(channel).$delete(request).await
        }
    };
}
pub(super) use calls;

/// Settings as they were given.
#[derive(Default)]
pub(crate) struct GivenChange<R> {
    /// The settings as the API takes them.
    pub(crate) resource: R,
    /// Paths of those that were given, as an update mask names them.
    pub(crate) paths: Vec<String>,
    /// What can be said only beside the resource that is there, or as it is by default.
    pub(crate) additions: Vec<Addition<R>>,
}

/// Adds to a change what was given, now that the resource is known.
type Addition<R> = Box<dyn FnOnce(&R, &mut GivenChange<R>, &mut Input)>;

impl<R> GivenChange<R> {
    pub(super) fn complete(&mut self, current: &R, input: &mut Input) {
        for addition in std::mem::take(&mut self.additions) {
            addition(current, self, input);
        }
    }
}

/// Options that are settings of a kind of resource.
pub(crate) trait SettingsArgs<R>: Args {
    /// What was given.
    fn change(&self, input: &mut Input) -> GivenChange<R>;
}

/// Arguments of a creation.
#[derive(Debug, Args)]
pub(crate) struct CreateCommand<R: ResourceKind, S: SettingsArgs<R>> {
    #[arg(value_name = R::NAMED, help = R::NEW)]
    name: String,
    #[command(flatten)]
    settings: S,
    #[command(flatten)]
    metadata: MetadataSettings,
    #[command(flatten)]
    write: CreateArgs,
    #[arg(skip)]
    kind: PhantomData<R>,
}

/// The resource that a command is about.
#[derive(Debug, Args)]
struct NameArg<R: ResourceKind> {
    #[arg(value_name = R::NAMED, help = format!("The {}", R::NOUN))]
    name: String,
    #[arg(skip)]
    kind: PhantomData<R>,
}

/// What it must be for a command to change it.
#[derive(Debug, Args)]
#[command(next_help_heading = NO_HEADING)]
struct EtagArg<R: ResourceKind> {
    #[arg(long, help = format!("Refuse if the {} is not as it was with this etag", R::NOUN))]
    etag: Option<String>,
    #[arg(skip)]
    kind: PhantomData<R>,
}

/// Arguments of a command that shows one resource.
#[derive(Debug, Args)]
pub(crate) struct GetCommand<R: ResourceKind> {
    #[command(flatten)]
    named: NameArg<R>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Arguments of an update.
#[derive(Debug, Args)]
pub(crate) struct UpdateCommand<R: ResourceKind, S: SettingsArgs<R>> {
    #[command(flatten)]
    named: NameArg<R>,
    #[command(flatten)]
    settings: S,
    #[command(flatten)]
    metadata: MetadataSettings,
    #[command(flatten)]
    expected: EtagArg<R>,
    #[command(flatten)]
    write: WriteArgs,
}

/// Arguments of a deletion.
#[derive(Debug, Args)]
pub(crate) struct DeleteCommand<R: ResourceKind> {
    #[command(flatten)]
    named: NameArg<R>,
    #[command(flatten)]
    expected: EtagArg<R>,
    #[command(flatten)]
    write: WriteArgs,
}

impl<R: ResourceKind, S: SettingsArgs<R>> CreateCommand<R, S> {
    pub(super) async fn run(&self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut input = Input::default();
        let named = R::parse(&self.name, &mut input);
        let mut change = self.settings.change(&mut input);
        self.metadata.add_to(&mut change, &mut input);
        change.complete(&R::default(), &mut input);
        let write = Write::create(&self.write, &mut input)?;
        input.finish()?;
        create(session, &self.name, named, change.resource, &write).await
    }
}

/// Creates a resource, and tells it by the name that a user gave it.
pub(super) async fn create<R: ResourceKind>(
    session: &mut Session<'_>,
    name: &str,
    named: ApiName,
    resource: R,
    write: &Write,
) -> Result<(), Error> {
    let call = CreateCall {
        parent: named.parent,
        id: named.id,
        resource: Some(resource),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
        if_absent: write.if_absent,
    };
    let make = async |channel| Created::read(R::create(channel, call.clone().into()).await);
    let Created { resource, existing } = session.call(write.repeat(), make).await?;
    warn(session, resource.warnings());
    let (what, revision) = (format!("{} {name}", R::WORD), resource.revision());
    write.finish_created(session, &what, R::CREATED, existing, (revision, &R::View::from(resource))).await?;
    if write.waits() { R::settle(session, name).await } else { Ok(()) }
}

impl<R: ResourceKind> GetCommand<R> {
    pub(super) async fn run(&self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut input = Input::default();
        let named = R::parse(&self.named.name, &mut input);
        input.finish()?;
        let resource: R = get(session, named.name, consistency(&self.read)).await?;
        resource.show(session).await
    }
}

/// Reads one resource.
async fn get<R: ResourceKind>(session: &mut Session<'_>, name: String, consistency: i32) -> Result<R, Error> {
    let call = GetCall { name, consistency };
    session.call(Repeat::Read, async |channel| R::get(channel, call.clone().into()).await).await
}

/// All resources of a kind, or of one parent, and how fresh that is.
pub(super) async fn list<R: ResourceKind>(
    session: &mut Session<'_>,
    parent: &str,
    consistency: i32,
) -> Result<(Vec<R>, Option<v1::ReadInfo>), Error> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let call = ListCall {
            parent: parent.to_owned(),
            page_size: PAGE_SIZE,
            page_token: page_token.clone(),
            consistency,
        };
        let make = async |channel| R::list(channel, call.clone().into()).await;
        let page: ListAnswer<R> = session.call(Repeat::Read, make).await?.into();
        found.extend(page.resources);
        match next_page(&page_token, page.next_page_token)? {
            Some(next) => page_token = next,
            None => return Ok((found, page.read)),
        }
    }
}

impl<R: ResourceKind, S: SettingsArgs<R>> UpdateCommand<R, S> {
    pub(super) async fn run(&self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut input = Input::default();
        let name = R::parse(&self.named.name, &mut input).name;
        let mut change = self.settings.change(&mut input);
        self.metadata.add_to(&mut change, &mut input);
        let write = Write::new(&self.write, &mut input)?;
        input.finish()?;
        let mut etag = self.expected.etag.clone().unwrap_or_default();
        if !change.additions.is_empty() {
            let current: R = get(session, name.clone(), v1::Consistency::Linearizable.into()).await?;
            let mut input = Input::default();
            change.complete(&current, &mut input);
            input.finish()?;
            // What was read is what is changed: another's change in the meantime is not overwritten.
            if etag.is_empty() {
                etag = current.etag().to_owned();
            }
        }
        if change.paths.is_empty() {
            return Err(Error::NothingToChange(R::WORD));
        }
        change.resource = change.resource.identified(name, etag);
        let resource = update(session, change, &write).await?;
        warn(session, resource.warnings());
        let (what, revision) = (format!("{} {}", R::WORD, self.named.name), resource.revision());
        write.finish(session, &what, "updated", revision, &R::View::from(resource)).await?;
        if write.waits() { R::settle(session, &self.named.name).await } else { Ok(()) }
    }
}

/// Changes the resource that a change names; answers it as it is then.
pub(super) async fn update<R: ResourceKind>(
    session: &mut Session<'_>,
    change: GivenChange<R>,
    write: &Write,
) -> Result<R, Error> {
    let call = UpdateCall {
        resource: Some(change.resource),
        update_mask: Some(FieldMask { paths: change.paths }),
        request_id: write.request_id.clone(),
        validate_only: write.dry_run,
    };
    session.call(write.repeat(), async |channel| R::update(channel, call.clone().into()).await).await
}

impl<R: ResourceKind> DeleteCommand<R> {
    pub(super) async fn run(&self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut input = Input::default();
        let name = R::parse(&self.named.name, &mut input).name;
        let write = Write::new(&self.write, &mut input)?;
        input.finish()?;
        let call = DeleteCall {
            name,
            etag: self.expected.etag.clone().unwrap_or_default(),
            request_id: write.request_id.clone(),
            validate_only: write.dry_run,
        };
        let make = async |channel| R::delete(channel, call.clone().into()).await;
        let DeleteAnswer { revision } = session.call(write.repeat(), make).await?.into();
        let (what, gone) =
            (format!("{} {}", R::WORD, self.named.name), Deleted { name: &self.named.name, revision });
        write.finish(session, &what, R::DELETED, revision, &gone).await
    }
}
