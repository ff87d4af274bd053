//! `trestle cluster secure`.

use clap::Args;
use serde::Serialize;
use trestle_api::v1;
use trestle_model::{Choice, TransportSecurity};

use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session, cluster};
use crate::table;
use crate::view::{short_name, word};
use crate::write::for_people;

/// Options of the command.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("step").multiple(false))]
pub(crate) struct SecureArgs {
    /// Accept TLS beside plain connections on all admin and peer ports; members use it with each whose key is recorded
    #[arg(long, group = "step")]
    prepare: bool,
    /// Accept nothing but TLS; refused while a member has no key, and while somebody has called plain in the last 10 minutes
    #[arg(long, group = "step")]
    enforce: bool,
    /// Accept plain connections again beside TLS; as root, over the admin socket of a member
    #[arg(long, group = "step")]
    relax: bool,
    /// With --enforce: although clients call plain, which are refused from then on
    #[arg(long, requires = "enforce")]
    yes: bool,
    /// Say whether it would be done and change nothing
    #[arg(long, requires = "step")]
    dry_run: bool,
}

/// What ports accept, and who is ready for more.
#[derive(Debug, Serialize)]
struct SecurityView {
    transport: &'static str,
    members: Vec<MemberSecurity>,
}

#[derive(Debug, Serialize)]
struct MemberSecurity {
    name: String,
    keys: Vec<String>,
    reachable: bool,
    plain_callers: Vec<PlainCallerView>,
}

/// Who has called a member plain in the last 10 minutes.
#[derive(Debug, Serialize)]
struct PlainCallerView {
    port: String,
    address: String,
    member: Option<String>,
    age_seconds: i64,
}

impl PlainCallerView {
    fn told(&self) -> String {
        let who = self.member.as_ref().filter(|_| self.port == "peer").unwrap_or(&self.address);
        format!("{who} ({}, {}s)", self.port, self.age_seconds)
    }
}

impl From<v1::PlainCaller> for PlainCallerView {
    fn from(caller: v1::PlainCaller) -> Self {
        Self {
            member: Some(short_name(&caller.member)).filter(|name| !name.is_empty()),
            port: caller.port,
            address: caller.address,
            age_seconds: caller.ago.map_or(0, |ago| ago.seconds),
        }
    }
}

impl From<v1::MemberStatus> for MemberSecurity {
    fn from(status: v1::MemberStatus) -> Self {
        let member = status.member.unwrap_or_default();
        let plain_callers = status.plain_callers.into_iter().map(Into::into).collect();
        Self { name: short_name(&member.name), keys: member.keys, reachable: status.reachable, plain_callers }
    }
}

/// What was changed.
#[derive(Debug, Serialize)]
struct SecuredView {
    transport: &'static str,
    revision: u64,
}

/// What ports accept, in words.
const fn accepted(transport: TransportSecurity) -> &'static str {
    match transport {
        TransportSecurity::Off => "plain connections, from whoever reaches a port",
        TransportSecurity::Accept => "plain connections and TLS",
        TransportSecurity::Require => "TLS only",
    }
}

impl SecureArgs {
    fn step(&self) -> Option<TransportSecurity> {
        match (self.prepare || self.relax, self.enforce) {
            (true, _) => Some(TransportSecurity::Accept),
            (_, true) => Some(TransportSecurity::Require),
            _ => None,
        }
    }

    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let Some(wanted) = self.step() else { return show(session).await };
        let request_id = Input::default().request_id(None)?;
        let request = v1::SecureClusterRequest {
            transport: wanted.number(),
            refuse_plain_clients: self.yes,
            request_id: request_id.clone(),
            validate_only: self.dry_run,
        };
        let make = async |channel| cluster(channel).secure_cluster(request.clone()).await;
        let answer = session.call(Repeat::Write(&request_id), make).await?;
        let done =
            SecuredView { transport: word::<TransportSecurity>(answer.transport), revision: answer.revision };
        session.print(&done, || match self.dry_run {
            true => format!("the cluster would accept {} (dry run)\n", accepted(wanted)),
            false => format!("the cluster accepts {} (revision {})\n", accepted(wanted), done.revision),
        })?;
        if for_people(session) && self.prepare && !self.dry_run {
            session.terminal.note(
                "next: \"trestle member enroll\" as root on each member's machine, users and contexts for clients, then \"trestle \
                 cluster secure --enforce\"",
            );
        }
        Ok(())
    }
}

async fn show(session: &mut Session<'_>) -> Result<(), Error> {
    let (status, _) = session.cluster_status(false, |_| None).await?;
    let transport = TransportSecurity::of_number(status.transport).unwrap_or_default();
    let members = status.members.into_iter().map(MemberSecurity::from).collect();
    let view = SecurityView { transport: word::<TransportSecurity>(status.transport), members };
    session.print(&view, || {
        let row = |member: &MemberSecurity| {
            let key = member.keys.first().and_then(|key| key.get(..16)).unwrap_or("none");
            let answers = if member.reachable { "yes" } else { "no" };
            let plain: Vec<String> = member.plain_callers.iter().map(PlainCallerView::told).collect();
            [member.name.clone(), key.to_owned(), answers.to_owned(), plain.join(", ")]
        };
        let table =
            table::table(["MEMBER", "KEY", "ANSWERS", "CALLED PLAIN BY"], view.members.iter().map(row));
        format!("ACCEPTS  {} ({})\n\n{table}", view.transport, accepted(transport))
    })
}
