//! Members of before and of after a recovery: when a quorum was lost for good, one member was made a cluster of one, and its
//! log goes on without the others. What those have may differ from it, so none of them takes part again: each call says of
//! which recovery its caller is, and a member talks only with its like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;
use trestle_api::status::{self, Failure};

use crate::peers::reason;
use crate::shared::Core;

/// How often the log tells of members of before.
const TELL: Duration = Duration::from_secs(30);

/// The reason in the status that a member of before gets.
const RECOVERED: &str = "CLUSTER_RECOVERED";

#[derive(Debug, Default)]
struct Told {
    /// Why this member is one of before, in the words of one that is not.
    superseded: Option<String>,
    /// When the log last told of a caller of before.
    refused: Option<Instant>,
}

/// What this member has heard of recoveries. Hearsay: it is shown and decides nothing.
#[derive(Debug, Default)]
pub(crate) struct Recoveries(Mutex<Told>);

impl Recoveries {
    fn supersede(&self, why: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.superseded.as_deref() != Some(why) {
            tracing::error!("{why}");
            told.superseded = Some(why.to_owned());
        }
    }

    /// Notes it when an answer says that this member is one of before.
    pub(crate) fn note(&self, answer: &Status) {
        if reason(answer).as_deref() == Some(RECOVERED) {
            self.supersede(answer.message());
        }
    }

    /// Why this member is one of before a recovery, if it has heard so.
    pub(crate) fn superseded(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).superseded.clone()
    }

    fn refuse(&self, theirs: u64, mine: u64) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.refused.is_none_or(|at| at.elapsed() >= TELL) {
            told.refused = Some(Instant::now());
            tracing::warn!(
                theirs,
                mine,
                "refused a member of before the cluster was recovered; wipe its data directory and let it rejoin"
            );
        }
    }
}

impl Core {
    /// Of which recovery this member is.
    pub(crate) fn recovery(&self) -> u64 {
        self.identity().map_or(0, |identity| identity.recovery)
    }

    /// Refuses a caller that is of another recovery than this member.
    pub(crate) fn same_recovery(&self, theirs: u64) -> Result<(), Status> {
        let mine = self.recovery();
        if theirs == mine {
            return Ok(());
        }
        let of_before = Failure::Recovered { known: theirs.min(mine), newest: theirs.max(mine) };
        if theirs < mine {
            self.recoveries.refuse(theirs, mine);
            return Err(status::failure(&of_before));
        }
        self.recoveries.supersede(&of_before.to_string());
        Err(Status::failed_precondition(format!(
            "the member that was called is of before recovery {theirs}: wipe its data directory and let it rejoin"
        )))
    }
}
