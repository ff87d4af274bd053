//! Asking the leader, wherever it is, until it answers.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use trestle_api::status::Failure;

use crate::error::Error;
use crate::raft_slot::RaftSlot;
use crate::status::{RaftRole, RaftState};

/// Pause before the same leader is asked again that just had no quorum.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Where the leader is.
pub(crate) enum LeaderLocation {
    Here,
    /// At another member, which is reached at this address.
    There(String),
}

impl LeaderLocation {
    /// By the word of a role. A leader that says so of itself is here, whatever Raft calls it.
    fn by(role: &RaftRole) -> Option<Self> {
        match &role.leader {
            Some(_) if role.state == RaftState::Leader => Some(Self::Here),
            Some((_, address)) => Some(Self::There(address.clone())),
            None => None,
        }
    }
}

/// Why an attempt at one leader failed, and so whether it may be made again.
pub(crate) enum Retry {
    /// For good.
    Never(Error),
    /// Nothing was changed.
    Safe(String),
    /// Something may have been changed.
    OutcomeUnknown(String),
}

impl From<Retry> for Error {
    fn from(retry: Retry) -> Self {
        match retry {
            Retry::Never(error) => error,
            Retry::Safe(why) => Error::no_leader(why),
            Retry::OutcomeUnknown(why) => Error::unknown(why),
        }
    }
}

/// Runs `attempt` against one leader after the other until it succeeds, fails for good, or the time is over.
pub(crate) async fn with_leader<T, F: Future<Output = Result<T, Retry>>>(
    raft: &RaftSlot,
    deadline: Instant,
    repeatable: bool,
    mut attempt: impl FnMut(LeaderLocation) -> F,
) -> Result<T, Error> {
    let mut why = "none is known; an election may be under way".to_owned();
    let mut outcome_unknown = false;
    let mut role = raft.watch_role();
    loop {
        let leader = LeaderLocation::by(&role.borrow_and_update());
        if let Some(leader) = leader {
            match attempt(leader).await {
                Ok(done) => return Ok(done),
                Err(Retry::Safe(text)) => why = text,
                Err(Retry::OutcomeUnknown(text)) if repeatable => (why, outcome_unknown) = (text, true),
                Err(last) => return Err(last.into()),
            }
        }
        // Another role is worth another try at once; the same leader after a pause: it may have a quorum again.
        let pause = deadline.min(Instant::now() + RETRY_PAUSE);
        let _ = timeout_at(pause, role.changed()).await;
        let stopped = raft.running().err();
        let may_start = stopped.is_none_or(|e| matches!(e, Error::Failed(Failure::NoLeader(_))));
        let go_on = may_start && Instant::now() < deadline;
        if !go_on {
            return Err(match raft.running() {
                _ if outcome_unknown => Error::unknown(why),
                Err(stopped) => stopped,
                Ok(_) => Error::no_leader(why),
            });
        }
    }
}
