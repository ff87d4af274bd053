//! How long a check may take.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The deadline of one check, and how long after its beginning that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckDeadline {
    end: Instant,
    timeout: Duration,
}

impl CheckDeadline {
    /// The limit of a check that begins now and has this timeout.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { end: Instant::now() + timeout, timeout }
    }

    /// Awaits a step of a check. The error says that `protocol` took too long.
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

    /// How much time the whole check has.
    pub(super) fn length(self) -> Duration {
        self.timeout
    }

    /// The error for a time-out during `what`.
    pub(super) fn exceeded(self, what: &str) -> String {
        format!("{what} after {:?}", self.timeout)
    }
}
