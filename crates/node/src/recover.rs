//! `trestled recover`: a cluster of one from what a stopped member has, when a quorum is lost for good.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use trestle_api::{peer, unanswered};
use trestle_consensus::{Identity, OfflineError as Unusable, OfflineMember, Voter};
use trestle_identity::tls::PeerTlsError;
use trestle_model::{HostPort, MemberId};

use crate::config::Config;
use crate::identities::{ClusterTrust, OwnLeaf};
use crate::peer::PeerClients;
use crate::{privileges, process};

/// How long another voter has to accept a connection, and then to say who it is.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Why no cluster of one was made.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The data cannot be used.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The others are enough.
    #[error(
        "with {} there is a quorum, so nothing is lost: start this member, and see \"trestle status\"; a member that is to stay \
         lost must be stopped first",
        .0.join(" and ")
    )]
    QuorumReached(Vec<String>),
    /// Another member was made all of the cluster before.
    #[error(
        "{0} was made all of the cluster already: wipe this member's data directory, and let it join anew with \"trestled join\" \
         and a token of \"trestle token create\", or in a cluster without identities with \"trestle member add HOST:PORT\"; if this one is to be kept instead, stop the other one first"
    )]
    Recovered(String),
    /// There is no random number.
    #[error("no random number can be drawn: {0}")]
    Draw(#[from] std::io::Error),
}

impl RecoveryError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unusable(Unusable::Open(error)) => crate::start_error::open_exit_code(error),
            Self::Draw(_) => 71, // EX_OSERR
            Self::Unusable(_) | Self::QuorumReached(_) | Self::Recovered(_) => 1,
        }
    }
}

/// What became of asking a voter.
enum VoterReach {
    /// It is there, or may be: what accepts connections and says nothing is perhaps only stopped.
    There(&'static str),
    /// It is, of a later recovery than this member.
    Recovered,
    /// It is not.
    Gone(String),
}

/// A cluster of one that could be made, and what it would cost.
pub struct RecoveryPlan {
    survivor: OfflineMember,
    voters: Vec<(Voter, VoterReach)>,
    data_dir: std::path::PathBuf,
}

fn named(voter: &Voter) -> String {
    match voter.name.as_str() {
        "" => format!("member {} at {}", voter.id, voter.peer_address),
        name => format!("{name} at {}", voter.peer_address),
    }
}

/// Whether a member answered that it does not let this one in.
fn is_refusal(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(PeerTlsError::Refused(_))) {
            return true;
        }
        cause = error.source();
    }
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// Asks whatever listens at a voter's address who it is.
async fn reach(own: &Identity, trust: &ClusterTrust, voter: &Voter) -> VoterReach {
    let connected = timeout(ANSWER_WAIT, TcpStream::connect(&voter.peer_address)).await;
    match connected {
        Err(_) => return VoterReach::Gone(format!("no answer within {ANSWER_WAIT:?}")),
        Ok(Err(error)) => return VoterReach::Gone(error.to_string()),
        Ok(Ok(_)) => {}
    }
    let Ok(address) = HostPort::parse(&voter.peer_address) else {
        return VoterReach::Gone("its address is none".to_owned());
    };
    let clients = PeerClients::new(Arc::new(trust.clone()));
    let asked = async { clients.peer(&address)?.describe(peer::DescribeRequest {}).await };
    match timeout(ANSWER_WAIT, asked).await {
        Err(_) => VoterReach::There("accepts connections and does not answer"),
        Ok(Err(status)) if is_refusal(&status) => VoterReach::There("runs, and refuses this machine's calls"),
        Ok(Err(status)) => VoterReach::Gone(format!("another program answers: {}", unanswered::why(&status))),
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            if answer.cluster_id == own.cluster_id.as_str() && answer.member_id == voter.id.0 {
                match answer.recovery.cmp(&own.recovery.number) {
                    Ordering::Greater => VoterReach::Recovered,
                    Ordering::Equal => VoterReach::There("runs"),
                    Ordering::Less => VoterReach::Gone("one of before the last recovery answers".to_owned()),
                }
            } else if answer.cluster_id.is_empty() {
                VoterReach::Gone("an empty member answers".to_owned())
            } else {
                VoterReach::Gone("another member answers".to_owned())
            }
        }
    }
}

impl RecoveryPlan {
    /// Reads the data of the stopped member that `config` describes, and asks the other voters whether they run.
    ///
    /// # Errors
    /// When the member runs, its data cannot be used, or a quorum of the voters can be reached.
    pub async fn prepare(config: &Config) -> Result<Self, RecoveryError> {
        let data_dir = config.data_dir.clone();
        let opened = OfflineMember::open(&data_dir);
        // What was opened may have got new files, which must not belong to whoever runs this.
        privileges::give_to_owner(&data_dir);
        let survivor = opened?;
        let others = survivor.others();
        let leaf = OwnLeaf::default();
        leaf.take_kept(config);
        let trust = ClusterTrust::offline(config, leaf.watch());
        let reached = join_all(others.iter().map(|voter| reach(survivor.identity(), &trust, voter))).await;
        let voters: Vec<_> = others.into_iter().zip(reached).collect();
        if let Some((voter, _)) = voters.iter().find(|(_, reach)| matches!(reach, VoterReach::Recovered)) {
            return Err(RecoveryError::Recovered(named(voter)));
        }
        let there = |(voter, reach): &(Voter, VoterReach)| {
            matches!(reach, VoterReach::There(_)).then(|| voter.clone())
        };
        let running: Vec<Voter> = voters.iter().filter_map(there).collect();
        let ids: BTreeSet<MemberId> = running.iter().map(|voter| voter.id).collect();
        if survivor.is_quorum(&ids) {
            let mut names: Vec<String> = running.iter().map(named).collect();
            if names.is_empty() {
                names.push("this member alone".to_owned());
            }
            return Err(RecoveryError::QuorumReached(names));
        }
        Ok(Self { survivor, voters, data_dir })
    }

    /// Makes the cluster of one; answers what to tell.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn commit(self) -> Result<String, RecoveryError> {
        let name = self.survivor.identity().name.clone();
        let recovered = self.survivor.recover(process::draw_start()?);
        privileges::give_to_owner(&self.data_dir);
        let number = recovered?;
        Ok(format!(
            "{name} is the whole cluster now (recovery {number}); start it, then empty the data directories of the others and let \
             them join anew, with \"trestled join\" and a token of \"trestle token create\", or in a cluster without identities with \
             \"trestle member add HOST:PORT\" and \"trestle member promote NAME\""
        ))
    }
}

impl fmt::Display for RecoveryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let survivor = &self.survivor;
        let identity = survivor.identity();
        let (term, index) = survivor.last_log();
        writeln!(f, "member {} ({identity})", identity.name)?;
        writeln!(
            f,
            "last log entry: {index} of term {term}; known to be committed: {}",
            survivor.committed()
        )?;
        writeln!(f, "revision of its configuration: {}", survivor.revision())?;
        let own = if survivor.votes() { "voter" } else { "learner" };
        writeln!(f, "recorded voters ({} is a {own}):", identity.name)?;
        for (voter, reach) in &self.voters {
            let state = match reach {
                VoterReach::There(how) => (*how).to_owned(),
                VoterReach::Recovered => "was made all of the cluster".to_owned(),
                VoterReach::Gone(why) => format!("not reached: {why}"),
            };
            writeln!(f, "  {}: {state}", named(voter))?;
        }
        writeln!(
            f,
            "This makes {} the whole cluster. Every change after entry {index} that the others have agreed on is lost. The \
             others are refused from then on, also if they come back: empty their data directories, then add them again.",
            identity.name
        )
    }
}
