//! `trestled join`: enrols this machine with a cluster, and ends; the daemon that is started next goes on from there.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use trestle_consensus::{Consensus, Error, OpenError};
use trestle_identity::{TokenText, TokenTextError};
use trestle_model::{ClusterId, MemberId, MemberName};

use super::enrol::AWAITS_CERTIFICATE;
use super::{NotTaken, take_in};
use crate::config::Config;
use crate::founding::Founding;
use crate::identities::{ClusterTrust, OwnLeaf};
use crate::start::consensus_settings;
use crate::start_error::open_exit_code;
use crate::this_member::ThisMember;
use crate::vips::Vips;
use crate::{privileges, process};

/// Why this machine did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token is none.
    #[error("{0}")]
    Token(#[from] TokenTextError),
    /// The file of the token cannot be read.
    #[error("the token cannot be read from {}: {error}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// Its data directory cannot be opened.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// Something of the system is missing.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// It was not taken in, and would not be.
    #[error("this machine did not join: {0}")]
    Refused(String),
    /// It was not taken in, and may be asked again.
    #[error("this machine did not join: {0}; nothing was changed here, try again")]
    Unanswered(String),
}

impl JoinError {
    /// The process's exit code, as in sysexits.h.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Token(_) => 65,                          // EX_DATAERR
            Self::TokenFile { .. } => 66,                  // EX_NOINPUT
            Self::Unanswered(_) => 69,                     // EX_UNAVAILABLE
            Self::System(_) => 71,                         // EX_OSERR
            Self::Storage(error) => open_exit_code(error), // EX_IOERR and its like
            Self::Refused(_) => 77,                        // EX_NOPERM
        }
    }
}

impl From<NotTaken> for JoinError {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::Nobody(_) => Self::Unanswered(why.to_string()),
            NotTaken::Refused { .. } | NotTaken::Useless { .. } | NotTaken::Files(_) => {
                Self::Refused(why.to_string())
            }
        }
    }
}

/// What became of this machine.
#[derive(Debug)]
pub struct Joined {
    name: MemberName,
    cluster: ClusterId,
    id: MemberId,
    as_: JoinedBefore,
    awaits_certificate: bool,
}

/// Whether it joined now or before, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinedBefore {
    /// It had joined before, and the token was not used.
    Yes,
    /// It joined now, and becomes a voter by itself.
    NoAsVoter,
    /// It joined now, as a learner.
    NoAsLearner,
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, cluster, id, as_, awaits_certificate } = self;
        match as_ {
            JoinedBefore::Yes => {
                write!(
                    f,
                    "{name} is member {id} of cluster {cluster} already; start trestled with the same configuration"
                )
            }
            JoinedBefore::NoAsVoter => write!(
                f,
                "{name} is member {id} of cluster {cluster}; start trestled with the same configuration: it becomes a voter once it \
                 has caught up"
            ),
            JoinedBefore::NoAsLearner => write!(
                f,
                "{name} is member {id} of cluster {cluster}; start trestled with the same configuration: it becomes a learner, and \
                 \"trestle member promote {name}\" makes it a voter"
            ),
        }?;
        if *awaits_certificate { write!(f, "; {AWAITS_CERTIFICATE}") } else { Ok(()) }
    }
}

fn failed(error: &Error) -> JoinError {
    JoinError::Refused(error.to_string())
}

/// Enrols this machine with the cluster of a token. What it had of a cluster that it was removed from is moved aside.
///
/// # Errors
/// [`JoinError`].
pub async fn enroll(config: Config, token: &str) -> Result<Joined, JoinError> {
    let token = TokenText::parse(token)?;
    let vips = Vips::new(&config);
    let start = process::draw_start()?;
    let trust = ClusterTrust::new(&config, OwnLeaf::default().watch());
    let consensus = Consensus::open(consensus_settings(&config, start, &vips, &trust)).await?;
    let founding = Founding::new(config.founding.clone()).into();
    let (config, arrivals) = (config.into(), Arc::default());
    let local = ThisMember { config, consensus, trust, founding, arrivals, start };
    let joined = enrolled(&local, &token).await;
    local.consensus.shutdown().await;
    privileges::give_to_owner(&local.config.data_dir);
    joined
}

async fn enrolled(local: &ThisMember, token: &TokenText) -> Result<Joined, JoinError> {
    let consensus = &local.consensus;
    let joined = |cluster, id, as_, awaits_certificate| Joined {
        name: local.config.name.clone(),
        cluster,
        id,
        as_,
        awaits_certificate,
    };
    if consensus.was_removed() {
        consensus.set_aside_removed().await.map_err(|error| failed(&error))?;
    }
    if let Some(identity) = consensus.identity() {
        return Ok(joined(identity.cluster_id, identity.member_id, JoinedBefore::Yes, false));
    }
    let taken = take_in(local, token).await?;
    let (cluster, id) = (taken.cluster_id, taken.member_id);
    let identity = consensus.take_identity(cluster.clone(), id, taken.recovery).await;
    identity.map_err(|error| failed(&error))?;
    let as_ = if taken.becomes_voter { JoinedBefore::NoAsVoter } else { JoinedBefore::NoAsLearner };
    Ok(joined(cluster, id, as_, taken.awaits_certificate))
}
