//! What this member finds out about backends and pools, as it happens.

use std::fmt;
use std::sync::Arc;

use trestle_engine::Verdict;
use trestle_model::{BackendName, PoolName};

/// Something that was found out. In words when displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A backend got another verdict. A backend whose first check succeeds is no event: each goes through that when it is
    /// added, and when a member starts.
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
    /// No backend of a pool is usable any more, because of what the checks found. Also of a pool that fails open.
    PoolDown {
        /// The pool.
        pool: PoolName,
        /// Its backends that are unhealthy, of those that are in use.
        unhealthy: usize,
        /// Its backends that no operator has drained or disabled.
        in_use: usize,
        /// Whether clients are led to unhealthy backends then.
        fails_open: bool,
    },
    /// A backend of the pool is usable again.
    PoolUp {
        /// The pool.
        pool: PoolName,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict { pool, backend, verdict, reason } => {
                write!(f, "backend {pool}/{backend} is {verdict}: {reason}")
            }
            Self::PoolDown { pool, unhealthy, in_use, fails_open } => {
                match unhealthy == in_use {
                    true if *in_use == 1 => {
                        write!(f, "pool {pool} has no usable backend: the only one in use is unhealthy; ")?
                    }
                    true => {
                        write!(f, "pool {pool} has no usable backend: all {in_use} in use are unhealthy; ")?
                    }
                    false => write!(
                        f,
                        "pool {pool} is down: {unhealthy} of {in_use} backends in use are unhealthy, and of the others fewer than \
                         its minimum_healthy can be used; "
                    )?,
                }
                f.write_str(match fails_open {
                    true => "it fails open, so that clients are led to them all the same",
                    false => "new connections are reset",
                })
            }
            Self::PoolUp { pool } => write!(f, "pool {pool} has a usable backend again"),
        }
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
