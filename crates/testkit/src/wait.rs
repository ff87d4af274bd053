//! Waiting for conditions, never for luck.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const PACE: Duration = Duration::from_millis(20);

/// Calls `look` until it answers `Ok`, whose value it returns.
///
/// # Panics
/// When `limit` passes; the message has `what` and the last error.
pub async fn wait_until<T, E: Display>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) if start.elapsed() > limit => panic!("{what}: not within {limit:?}: {why}"),
            Err(_) => tokio::time::sleep(PACE).await,
        }
    }
}

/// As [`wait_until`], for conditions that block the thread for a moment.
///
/// # Panics
/// When `limit` passes; the message has `what` and the last error.
pub fn wait_for<T, E: Display>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if start.elapsed() > limit => panic!("{what}: not within {limit:?}: {why}"),
            Err(_) => std::thread::sleep(PACE),
        }
    }
}
