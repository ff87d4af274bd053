//! `trestle cluster`.

use clap::Subcommand;
use serde::Serialize;
use trestle_api::v1;

use crate::error::Error;
use crate::session::{Repeat, Session, cluster};
use crate::view::MemberView;
use crate::write::for_people;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Found a cluster with the member at the first endpoint, and only that, as its first voter
    Bootstrap,
}

#[derive(Debug, Serialize)]
struct Founded {
    cluster_id: String,
    member: MemberView,
}

impl ClusterCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let Self::Bootstrap = self;
        // Walking on to another endpoint could found a second cluster beside the first.
        session.first_endpoint_only();
        let make = async |channel| cluster(channel).bootstrap_cluster(v1::BootstrapClusterRequest {}).await;
        let answer = session.call(Repeat::Step, make).await?;
        let founded =
            Founded { cluster_id: answer.cluster_id, member: answer.member.unwrap_or_default().into() };
        session.print(&founded, || {
            format!("cluster {} founded by {}\n", founded.cluster_id, founded.member.name)
        })?;
        if for_people(session) {
            session.terminal.note("next: take in other members with \"trestle member add HOST:PORT\"");
        }
        Ok(())
    }
}
