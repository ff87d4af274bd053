//! `trestle cluster`.

use clap::Subcommand;
use serde::Serialize;
use trestle_api::v1;

use crate::endpoint::Outside;
use crate::error::{Error, Failure};
use crate::session::{Repeat, Session, cluster};
use crate::view::MemberView;
use crate::write::for_people;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Create a cluster with the member at the first endpoint, and only that, as its first voter
    Bootstrap {
        /// Succeed where a member at any of the endpoints belongs to a cluster already; found none while one does not answer
        #[arg(long)]
        if_absent: bool,
    },
}

#[derive(Debug, Serialize)]
struct Founded {
    cluster_id: String,
    member: MemberView,
}

impl ClusterCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let Self::Bootstrap { if_absent } = self;
        if if_absent && let Some(existing) = existing(session).await? {
            return tell_existing(session, &existing);
        }
        // Walking on to another endpoint could found a second cluster beside the first.
        session.first_endpoint_only();
        let make = async |channel| cluster(channel).bootstrap_cluster(v1::BootstrapClusterRequest {}).await;
        let answer = match session.call(Repeat::NonIdempotent, make).await {
            // Somebody else was faster.
            Err(refused @ Error::Refused(_)) if if_absent => {
                let Some(existing) = existing(session).await? else { return Err(refused) };
                return tell_existing(session, &existing);
            }
            other => other?,
        };
        let founded =
            Founded { cluster_id: answer.cluster_id, member: answer.member.unwrap_or_default().into() };
        session.print(&founded, || {
            format!(
                "cluster {} created with {} as its first voter\n",
                founded.cluster_id, founded.member.name
            )
        })?;
        if for_people(session) {
            session.terminal.note("next: take in other members with \"trestle member add HOST:PORT\"");
        }
        Ok(())
    }
}

/// The cluster that a member at one of the endpoints belongs to.
///
/// # Errors
/// When an endpoint does not answer and none belongs to a cluster: its member may belong to one.
async fn existing(session: &mut Session<'_>) -> Result<Option<Founded>, Error> {
    let (status, failures) = session.cluster_status(true, |_| None).await?;
    if !status.cluster_id.is_empty() {
        let member = status.members.into_iter().next().and_then(|own| own.member).unwrap_or_default();
        return Ok(Some(Founded { cluster_id: status.cluster_id, member: member.into() }));
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
