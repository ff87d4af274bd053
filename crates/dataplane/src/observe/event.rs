//! What this member finds out about backends and pools, as it happens.

use std::fmt;
use std::sync::Arc;

use trestle_engine::Verdict;
use trestle_model::{BackendName, ListenerName, PoolName};

use crate::condition::PoolCondition;

/// Something that was found out. In words when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A backend got another verdict, or its name has no address any more. A backend whose first check succeeds is no event:
    /// each goes through that when it is added, and when a member starts.
    Verdict {
        /// Its pool.
        pool: PoolName,
        /// The backend.
        backend: BackendName,
        /// The verdict from now on.
        verdict: Verdict,
        /// What it rests on, in words.
        reason: String,
    },
    /// Fewer backends of a pool are usable than it wants at least, whether checks, lookups or operators took the others out of
    /// use. Also of a pool that fails open.
    PoolDown {
        /// The pool.
        pool: PoolName,
        /// How many backends are usable.
        condition: PoolCondition,
        /// Whether a listener leads to it.
        used: bool,
        /// Whether clients are led to unhealthy backends then.
        fails_open: bool,
    },
    /// A backend of the pool is usable again.
    PoolUp {
        /// The pool.
        pool: PoolName,
    },
    /// A listener has no socket at addresses where it should have one.
    ListenerUnbound {
        /// The listener.
        listener: ListenerName,
        /// The addresses with what keeps them from being bound, in words: one text for each reason.
        failures: Vec<String>,
    },
    /// A listener of which that was told is bound to all its addresses.
    ListenerBound {
        /// The listener.
        listener: ListenerName,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict { pool, backend, verdict: Verdict::Unknown, reason } => {
                write!(f, "backend {pool}/{backend} has no address: {reason}")
            }
            Self::Verdict { pool, backend, verdict, reason } => {
                write!(f, "backend {pool}/{backend} is {verdict}: {reason}")
            }
            Self::PoolDown { pool, condition, used, fails_open } => {
                write!(f, "pool {pool} {}; ", why_down(condition))?;
                let open = *fails_open && condition.enabled > condition.unresolved;
                f.write_str(match (used, open) {
                    (false, _) => "no listener leads to it",
                    (true, true) => "it fails open, so that clients are led to them all the same",
                    (true, false) => "new connections are reset",
                })
            }
            Self::PoolUp { pool } => write!(f, "pool {pool} has a usable backend again"),
            Self::ListenerUnbound { listener, failures } => {
                write!(
                    f,
                    "listener {listener} is not bound to {}; it is tried again on a timer",
                    failures.join("; ")
                )
            }
            Self::ListenerBound { listener } => {
                write!(f, "listener {listener} is bound to all its addresses now")
            }
        }
    }
}

/// Why a pool is down, as the rest of a sentence about it.
fn why_down(condition: &PoolCondition) -> String {
    let PoolCondition { backends, enabled, unhealthy, unresolved, minimum } = *condition;
    match (enabled, unhealthy) {
        _ if backends == 0 => "is down: it has no backends".to_owned(),
        (0, _) => {
            format!("is down: all of its backends ({backends}) are drained or disabled or have weight 0")
        }
        (1, 1) if unresolved == 1 => {
            "has no usable backend: the name of the only one in use has no address".to_owned()
        }
        (1, 1) => "has no usable backend: the only one in use is unhealthy".to_owned(),
        (all, bad) if all == bad && unresolved == all => {
            format!("has no usable backend: the names of all {all} in use have no address")
        }
        (all, bad) if all == bad && unresolved > 0 => {
            format!("has no usable backend: all {all} in use are unhealthy, or their names have no address")
        }
        (all, bad) if all == bad => format!("has no usable backend: all {all} in use are unhealthy"),
        (all, _) => format!(
            "is down: {} of {all} backends in use are left, fewer than its minimum_healthy ({minimum})",
            condition.left()
        ),
    }
}

/// Is told of each event, on the thread that keeps the table: it must not wait.
#[derive(Clone)]
pub struct OnEvent(Arc<dyn Fn(Event) + Send + Sync>);

impl OnEvent {
    /// Tells `heard`.
    pub fn new(heard: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(heard))
    }

    /// Tells nobody.
    pub fn nobody() -> Self {
        Self::new(drop)
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for OnEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEvent")
    }
}
