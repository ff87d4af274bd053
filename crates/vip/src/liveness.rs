//! Signs of life of this crate's threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trestle_engine::SignOfLife;

/// The sign of life of a thread.
#[derive(Debug, Clone)]
pub(crate) struct ThreadLiveness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    origin: Instant,
    sign: SignOfLife,
}

impl ThreadLiveness {
    pub(crate) fn new(name: &'static str) -> Self {
        Self(Arc::new(Inner { name, origin: Instant::now(), sign: SignOfLife::default() }))
    }

    /// Gives a sign of life.
    pub(crate) fn beat(&self) {
        self.0.sign.give(self.0.origin.elapsed());
    }

    /// The name of the thread, and how long it has given none, if that is too long.
    pub(crate) fn silent(&self, now: Instant) -> Option<(&'static str, Duration)> {
        let silent = self.0.sign.silent(now.saturating_duration_since(self.0.origin))?;
        Some((self.0.name, silent))
    }
}
