//! What `--wait` waits for beyond a revision in force: a listener that is bound, a drain that has ended, virtual IPs that are
//! served.

mod bound;
mod drained;
mod serving;

pub(crate) use bound::bound;
pub(crate) use drained::{Drain, drained, tell_what_is_left};
pub(crate) use serving::serving;

use std::time::Duration;

use crate::error::Error;

/// Time between two looks: short for a person, and next to nothing for the members.
const LOOK: Duration = Duration::from_millis(250);

/// Does something that may take long, unless Ctrl-C comes; `left` says what is left in force then.
///
/// # Errors
/// Its own, and that it was interrupted.
pub(crate) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Error>>,
    left: &str,
) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(Error::Interrupted(left.to_owned())),
    }
}

/// "1 connection is left", "12 connections are left".
pub(crate) fn connections_left(count: u64) -> String {
    match count {
        0 => "no connection is left".to_owned(),
        1 => "1 connection is left".to_owned(),
        count => format!("{count} connections are left"),
    }
}
