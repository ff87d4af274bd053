//! `trestle user`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde::Serialize;
use tonic::transport::Channel;
use trestle_api::v1;
use trestle_api::v1::user_service_client::UserServiceClient;
use trestle_identity::{CertificateRequest, PrivateKey, SigningError, time_text};
use trestle_model::{Choice, Role, Secret, UserName};

use super::choice::choice;
use super::reading::{PAGE_SIZE, consistency, next_page};
use crate::args::ReadArgs;
use crate::context::{Context, Contexts, context_name};
use crate::duration::DURATION_RULE;
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session};
use crate::table;
use crate::view::{short_name, word};

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create a user, and make the context that it calls the cluster with; its key is made here and never leaves this machine
    Create {
        /// Its name, unique in the cluster
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may do
        #[arg(long, value_name = "ROLE", value_parser = choice::<Role>())]
        role: Role,
        #[command(flatten)]
        made: MadeArgs,
    },
    /// List users
    List {
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Give a user a new key and certificate; what it had is refused from then on
    Rotate {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        made: MadeArgs,
    },
    /// Delete a user: it is refused from then on, and what it has open ends
    #[command(alias = "remove")]
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// What is made for a user.
#[derive(Debug, Args)]
pub(crate) struct MadeArgs {
    /// File of contexts to add it to, which only you may read, as ~/.config/trestle/config.toml; - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: String,
    /// How long the certificate is valid, 1m to 3650d
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = lifetime)]
    ttl: Duration,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| DURATION_RULE.to_owned())
}

/// A user as it is shown.
#[derive(Debug, Serialize)]
struct UserView {
    name: String,
    role: &'static str,
    keys: Vec<KeyView>,
    revision: u64,
}

#[derive(Debug, Serialize)]
struct KeyView {
    pin: String,
    expire_time: Option<String>,
}

/// What was made, without what is secret.
#[derive(Debug, Serialize)]
struct MadeView {
    user: UserView,
    context: String,
    file: String,
}

/// The context itself, in place of the text of the file, for programs.
#[derive(Debug, Serialize)]
struct ContextView {
    name: String,
    endpoints: Vec<String>,
    certificate: String,
    key: String,
    ca: String,
}

impl ContextView {
    fn of(contexts: &Contexts) -> Option<Self> {
        let (name, context) = contexts.contexts.iter().next()?;
        let Context { endpoints, certificate, key, ca } = context.clone();
        Some(Self { name: name.clone(), endpoints, certificate, key: key.expose().clone(), ca })
    }
}

impl From<v1::User> for UserView {
    fn from(user: v1::User) -> Self {
        let key = |key: v1::UserKey| KeyView {
            pin: key.pin,
            expire_time: key.expire_time.and_then(|time| SystemTime::try_from(time).ok()).map(time_text),
        };
        Self {
            name: short_name(&user.name),
            role: word::<Role>(user.role),
            keys: user.keys.into_iter().map(key).collect(),
            revision: user.revision,
        }
    }
}

fn users(channel: Channel) -> UserServiceClient<Channel> {
    UserServiceClient::new(channel)
}

/// A key of a user that is being made, and where its context is to be.
struct Making {
    key: PrivateKey,
    request: Vec<u8>,
    request_id: String,
    lifetime: prost_types::Duration,
    /// The file and what it has by now; `None` for standard output.
    file: Option<(PathBuf, Contexts)>,
}

impl Making {
    /// Looks at the file first, so that nothing is made that could not be kept.
    fn begin(name: &str, made: &MadeArgs) -> Result<Self, Error> {
        let mut input = Input::default();
        input.valid("NAME", name, UserName::parse(name));
        let request_id = input.request_id(None)?;
        let lifetime = prost_types::Duration::try_from(made.ttl).ok();
        if lifetime.is_none() {
            input.refuse("--ttl", &format!("{:?}", made.ttl), "must be 1m to 3650d");
        }
        input.finish()?;
        let file = match made.out.as_str() {
            "-" => None,
            path => Some((PathBuf::from(path), Contexts::read(Path::new(path))?)),
        };
        let failed = |error: SigningError| Error::Key(error.to_string());
        let key = PrivateKey::generate().map_err(failed)?;
        let request = CertificateRequest::make(&key).map_err(failed)?;
        Ok(Self { key, request, request_id, lifetime: lifetime.unwrap_or_default(), file })
    }

    /// Keeps what was signed.
    fn finish(self, session: &mut Session<'_>, done: &str, answer: v1::UserCredentials) -> Result<(), Error> {
        let context = Context {
            endpoints: answer.endpoints,
            certificate: answer.certificate,
            key: Secret::new(self.key.to_pem().expose().clone()),
            ca: answer.authorities,
        };
        let user = UserView::from(answer.user.unwrap_or_default());
        let name = context_name(&context.identity(&user.name)?);
        let Some((path, mut contexts)) = self.file else {
            let mut contexts = Contexts::default();
            contexts.add(name, context);
            session.terminal.note(format_args!(
                "user {} {done}; keep what follows where nobody else reads it",
                user.name
            ));
            let shown = ContextView::of(&contexts);
            return session.print(&shown, || contexts.render().expose().clone());
        };
        contexts.add(name.clone(), context);
        let is_current = contexts.current.as_ref() == Some(&name);
        contexts.write(&path)?;
        let (file, role) = (path.display().to_string(), user.role);
        let told = format!("user {} {done} as {role}; context {name} is in {file}\n", user.name);
        session.print(&MadeView { user, context: name.clone(), file }, || told)?;
        if !is_current {
            session.terminal.note(format_args!(
                "another context is current there: \"trestle context use {name}\" changes that"
            ));
        }
        Ok(())
    }
}

impl UserCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Create { name, role, made } => create(session, name, role, &made).await,
            Self::Rotate { name, made } => rotate(session, &name, &made).await,
            Self::List { read } => list(session, &read).await,
            Self::Delete { name } => delete(session, &name).await,
        }
    }
}

async fn create(session: &mut Session<'_>, name: String, role: Role, made: &MadeArgs) -> Result<(), Error> {
    let making = Making::begin(&name, made)?;
    let request = v1::CreateUserRequest {
        user_id: name,
        user: Some(v1::User { role: role.number(), ..Default::default() }),
        certificate_request: making.request.clone(),
        lifetime: Some(making.lifetime),
        request_id: making.request_id.clone(),
    };
    let make = async |channel| users(channel).create_user(request.clone()).await;
    let answer = session.call(Repeat::Write(&making.request_id), make).await?;
    making.finish(session, "created", answer)
}

async fn rotate(session: &mut Session<'_>, name: &str, made: &MadeArgs) -> Result<(), Error> {
    let making = Making::begin(name, made)?;
    let request = v1::RotateUserRequest {
        name: format!("users/{name}"),
        certificate_request: making.request.clone(),
        lifetime: Some(making.lifetime),
        request_id: making.request_id.clone(),
    };
    let make = async |channel| users(channel).rotate_user(request.clone()).await;
    let answer = session.call(Repeat::Write(&making.request_id), make).await?;
    making.finish(session, "rotated", answer)
}

async fn list(session: &mut Session<'_>, read: &ReadArgs) -> Result<(), Error> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    let freshness = loop {
        let request = v1::ListUsersRequest {
            page_size: PAGE_SIZE,
            page_token: page_token.clone(),
            consistency: consistency(read),
        };
        let make = async |channel| users(channel).list_users(request.clone()).await;
        let answer = session.call(Repeat::Read, make).await?;
        found.extend(answer.users.into_iter().map(UserView::from));
        match next_page(&page_token, answer.next_page_token)? {
            Some(next) => page_token = next,
            None => break answer.read,
        }
    };
    session.print_list(&found, "no users", || {
        let row = |user: &UserView| {
            let expires: Vec<_> = user.keys.iter().filter_map(|key| key.expire_time.clone()).collect();
            [user.name.clone(), user.role.to_owned(), expires.join(","), user.revision.to_string()]
        };
        table::table(["NAME", "ROLE", "EXPIRES", "REVISION"], found.iter().map(row))
    })?;
    session.note_freshness(freshness.as_ref());
    Ok(())
}

async fn delete(session: &mut Session<'_>, name: &str) -> Result<(), Error> {
    let mut input = Input::default();
    input.valid("NAME", name, UserName::parse(name));
    let request_id = input.request_id(None)?;
    input.finish()?;
    let request = v1::DeleteUserRequest { name: format!("users/{name}"), request_id: request_id.clone() };
    let make = async |channel| users(channel).delete_user(request.clone()).await;
    let answer = session.call(Repeat::Write(&request_id), make).await?;
    let told = std::collections::BTreeMap::from([("revision", answer.revision)]);
    session.print(&told, || format!("user {name} deleted (revision {})\n", answer.revision))
}
