//! `trestle cluster bootstrap`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tonic::Code;
use trestle_api::transport::socket_path;
use trestle_api::v1;
use trestle_model::Role;
use trestle_model::defaults::USER_CERTIFICATE_LIFE;

use super::super::new_user::{ContextDocument, KeptUser, MadeUser, NewUser, how_to_sign, how_to_use};
use crate::context::default_path;
use crate::endpoint::Outside;
use crate::error::{Error, Failure};
use crate::input::text_of;
use crate::session::{Repeat, Session, cluster};
use crate::view::MemberView;
use crate::write::for_people;

/// What is to be done first where an authority outside of the cluster signs.
const EXTERNAL_NEXT: &str = "next: have what \"trestle certificate request\" prints on this machine signed, and put it in place with \"trestle \
                             certificate install FILE\"";
/// Name of the first user unless another is given.
const FIRST_USER: &str = "admin";

/// Options of the command.
#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Succeed where a member at any of the endpoints belongs to a cluster already; found none while one does not answer
    #[arg(long)]
    if_absent: bool,
    /// The certificate, in PEM, of an authority outside of the cluster that is to sign for it, as that of a company; the members'
    /// certificates are put in place by "trestle certificate" then [default: the cluster gets an authority of its own]
    #[arg(long, value_name = "FILE")]
    external_ca: Option<String>,
    /// Name of the first user, an admin; without this and --out it is made over an admin socket only [default: admin]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// File of contexts to add the user to, which only you may read; - for standard output [default:
    /// ~/.config/trestle/config.toml]
    #[arg(long, value_name = "FILE")]
    out: Option<String>,
}

/// A cluster as it was founded.
#[derive(Debug, Serialize)]
struct Founded {
    cluster_id: String,
    member: MemberView,
    /// The first user, whose context is in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<MadeUser>,
    /// The first user's context, where it is in no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextDocument>,
}

impl Founded {
    fn new(cluster_id: String, member: Option<v1::Member>) -> Self {
        Self { cluster_id, member: member.unwrap_or_default().into(), admin: None, context: None }
    }

    fn told(&self) -> String {
        format!("cluster {} created with {} as its first voter\n", self.cluster_id, self.member.name)
    }
}

impl BootstrapArgs {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        if self.if_absent
            && let Some(existing) = existing(session).await?
        {
            return tell_existing(session, &existing);
        }
        // Walking on to another endpoint could found a second cluster beside the first.
        session.first_endpoint_only();
        let user = self.new_user(session)?;
        let external = self.external_ca.as_deref().map(text_of).transpose()?;
        let request = v1::BootstrapClusterRequest { external_authority: external.unwrap_or_default() };
        let make = async |channel| cluster(channel).bootstrap_cluster(request.clone()).await;
        let answer = match session.call(Repeat::NonIdempotent, make).await {
            // Somebody else was faster.
            Err(refused @ Error::Refused(_)) if self.if_absent => {
                let Some(existing) = existing(session).await? else { return Err(refused) };
                return tell_existing(session, &existing);
            }
            Err(Error::Refused(status)) if status.code() == Code::Unauthenticated => {
                return Err(Error::FoundingRefused(status));
            }
            other => other?,
        };
        let founded = Founded::new(answer.cluster_id, answer.member);
        match user {
            Some(user) => with_user(session, founded, user).await?,
            None => session.print(&founded, || founded.told())?,
        }
        if for_people(session) {
            if self.external_ca.is_some() {
                session.terminal.note(EXTERNAL_NEXT);
            }
            tell_next(session).await;
        }
        Ok(())
    }

    /// The first user, if one is to be made: over an admin socket, or where it was asked for.
    fn new_user(&self, session: &Session<'_>) -> Result<Option<NewUser>, Error> {
        let asked = self.user.is_some() || self.out.is_some();
        if !asked && socket_path(session.endpoint()).is_none() {
            return Ok(None);
        }
        let file = match self.out.as_deref() {
            Some("-") => None,
            Some(path) => Some(PathBuf::from(path)),
            None => Some(default_path()?),
        };
        let name = ("--user", self.user.as_deref().unwrap_or(FIRST_USER));
        NewUser::begin(name, file.as_deref(), USER_CERTIFICATE_LIFE).map(Some)
    }
}

/// How other members come in, which depends on what the founder's file says.
async fn tell_next(session: &mut Session<'_>) {
    let make = async |channel| {
        cluster(channel).get_cluster_status(v1::GetClusterStatusRequest { local_only: true }).await
    };
    let status = session.call(Repeat::Read, make).await;
    let requires_tls = status.is_ok_and(|status| status.transport() == v1::TransportSecurity::Require);
    session.terminal.note(match requires_tls {
        true => "next: \"trestle token create\" makes a token, by which \"trestled join\" takes another machine in",
        false => "next: take in other members with \"trestle member add HOST:PORT\"",
    });
}

/// Makes the first user of a cluster that was just founded, and tells of both.
async fn with_user(session: &mut Session<'_>, mut founded: Founded, user: NewUser) -> Result<(), Error> {
    let told = founded.told();
    let kept = match user.create(session, Role::Admin).await.and_then(|answer| user.keep(answer)) {
        Ok(kept) => kept,
        Err(error) => {
            session.print(&founded, || told)?;
            session
                .terminal
                .note("the cluster is there, and has no user yet: \"trestle user create\" makes one");
            return Err(error);
        }
    };
    match kept {
        KeptUser::InFile { made, another_is_current } => {
            let made = founded.admin.insert(made);
            let (name, context, file) = (&made.user.name, made.context.clone(), made.file.clone());
            let made_awaits = made.awaits_certificate;
            let told = format!("{told}user {name} created as admin; context {context} is in {file}\n");
            let sign = made_awaits.then(|| how_to_sign(&context, Path::new(&file)));
            session.print(&founded, || told)?;
            if let Some(sign) = sign {
                session.terminal.note(sign);
            }
            if another_is_current {
                session.terminal.note(how_to_use(&context));
            }
        }
        KeptUser::ForOutput { user, contexts } => {
            session.terminal.note(told.trim_end());
            session.terminal.note(format_args!(
                "user {} created as admin; keep what follows where nobody else reads it",
                user.name
            ));
            if let Some(name) = contexts.unsigned() {
                session.terminal.note(how_to_sign(name, Path::new("FILE")));
            }
            founded.context = ContextDocument::of(&contexts);
            session.print(&founded, || contexts.render().expose().clone())?;
        }
    }
    Ok(())
}

/// The cluster that a member at one of the endpoints belongs to.
///
/// # Errors
/// When an endpoint does not answer and none belongs to a cluster: its member may belong to one.
async fn existing(session: &mut Session<'_>) -> Result<Option<Founded>, Error> {
    let (status, failures) = session.cluster_status(true, |_| None).await?;
    if !status.cluster_id.is_empty() {
        let member = status.members.into_iter().next().and_then(|own| own.member);
        return Ok(Some(Founded::new(status.cluster_id, member)));
    }
    let may_belong = |failure: &Failure| !failure.outside.is_some_and(Outside::has_no_cluster);
    let failures: Vec<Failure> = failures.into_iter().filter(may_belong).collect();
    if failures.is_empty() {
        return Ok(None);
    }
    session.terminal.note("no cluster was created: what does not answer may belong to a cluster");
    Err(Error::NoAnswer { failures, tried_for: None, request_id: None })
}

fn tell_existing(session: &mut Session<'_>, existing: &Founded) -> Result<(), Error> {
    let told = format!(
        "cluster {} exists already, unchanged ({} belongs to it)",
        existing.cluster_id, existing.member.name
    );
    session.print(existing, || format!("{told}\n"))?;
    if !for_people(session) {
        session.terminal.note(told);
    }
    Ok(())
}
