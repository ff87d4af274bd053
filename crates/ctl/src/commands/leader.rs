//! `trestle leader`.

use clap::Subcommand;
use serde::Serialize;
use trestle_api::v1;

use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session, cluster};
use crate::table;
use crate::view::short_name;

/// What to do with leadership.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaderCommand {
    /// Show which member leads
    #[command(visible_alias = "get")]
    Show,
    /// Hand leadership to another voter; the virtual IPs, which the leader holds, move with it
    #[command(alias = "move")]
    Transfer {
        /// The voter that shall lead [default: the one that is best caught up]
        #[arg(long, value_name = "MEMBER")]
        to: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Leader {
    leader: String,
    term: u64,
}

impl LeaderCommand {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        match self {
            Self::Show => show(session).await,
            Self::Transfer { to } => transfer(session, to.as_deref()).await,
        }
    }
}

async fn show(session: &mut Session<'_>) -> Result<(), Error> {
    let unknown = |status: &v1::ClusterStatus| status.leader.is_empty().then(|| "knows no leader".to_owned());
    let (status, failures) = session.cluster_status(true, unknown).await?;
    if status.leader.is_empty() {
        return Err(Error::NoLeader(failures));
    }
    let leader = Leader { leader: short_name(&status.leader), term: status.term };
    session.print(&leader, || {
        table::table(["LEADER", "TERM"], [[leader.leader.clone(), leader.term.to_string()]])
    })
}

async fn transfer(session: &mut Session<'_>, to: Option<&str>) -> Result<(), Error> {
    let mut input = Input::default();
    let to = to.map(|name| input.member("--to", name)).unwrap_or_default();
    input.finish()?;
    let request = v1::TransferLeadershipRequest { to };
    let make = async |channel| cluster(channel).transfer_leadership(request.clone()).await;
    let answer = session.call(Repeat::NonIdempotent, make).await?;
    let leader = Leader { leader: short_name(&answer.leader), term: answer.term };
    session.print(&leader, || format!("{} leads now (term {})\n", leader.leader, leader.term))
}
