//! How long a check may take.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The end of one check, and how long that was from its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckDeadline {
    end: Instant,
    timeout: Duration,
}

impl CheckDeadline {
    /// Of a check that begins now and has this timeout.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { end: Instant::now() + timeout, timeout }
    }

    /// Awaits a step of a check; `protocol` names in the error what took too long.
    pub(super) async fn bound<T, E: From<String>>(
        self,
        protocol: &str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let ended = self.reach(step).await;
        ended.unwrap_or_else(|| Err(self.exceeded(&format!("{protocol}: timed out")).into()))
    }

    /// Awaits a step of a check; `None` when it does not end in time.
    pub(super) async fn reach<T>(self, step: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.end, step).await.ok()
    }

    /// How long the whole check may take.
    pub(super) fn length(self) -> Duration {
        self.timeout
    }

    /// `what` happened when the time was over.
    pub(super) fn exceeded(self, what: &str) -> String {
        format!("{what} after {:?}", self.timeout)
    }
}
