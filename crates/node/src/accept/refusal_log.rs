//! What an accept loop tells of strangers: each kind of thing once for a source and minute, with how often it was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;
use trestle_engine::Repeats;

use super::ClientSource;

/// Time in which the same is told once.
const QUIET: Duration = Duration::from_secs(60);
/// Sources that are kept apart in that time; what others do is told as everybody else's.
const SOURCES_MAX: usize = 256;

/// What was told lately.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Mutex<HashMap<(Option<ClientSource>, &'static str), Repeats>>);

impl RefusalLog {
    /// Whether to tell this now, and how often it was before without being told.
    pub(crate) fn tells(&self, source: ClientSource, what: &'static str, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= SOURCES_MAX && !told.contains_key(&(Some(source), what)) {
            told.retain(|_, lines| !lines.is_over(now));
        }
        let key = match told.contains_key(&(Some(source), what)) || told.len() < SOURCES_MAX {
            true => (Some(source), what),
            false => (None, what),
        };
        told.entry(key).or_insert(Repeats::new(QUIET, 1)).tell(now)
    }

    /// Tells what a source did, or what was done to it, unless that was told in the last minute.
    pub(crate) fn tell(&self, port: &'static str, source: ClientSource, what: &'static str) {
        if let Some(untold) = self.tells(source, what, Instant::now()) {
            warn!(port, %source, untold, "connection closed: {what}");
        }
    }

    /// As [`tell`](Self::tell), of the first of a kind with as much as is known of it.
    pub(crate) fn tell_more(&self, port: &'static str, source: ClientSource, what: &'static str, more: &str) {
        if let Some(untold) = self.tells(source, what, Instant::now()) {
            let told = if more.is_empty() { what } else { more };
            warn!(port, %source, untold, "connection refused: {told}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute_with_its_number() {
        let reports = RefusalLog::default();
        let now = Instant::now();
        let source = |last| ClientSource::Address([192, 0, 2, last].into());
        assert_eq!(reports.tells(source(1), "x", now), Some(0));
        for _ in 0..2580 {
            assert_eq!(reports.tells(source(1), "x", now), None);
        }
        assert_eq!(reports.tells(source(2), "x", now), Some(0));
        assert_eq!(reports.tells(source(1), "y", now), Some(0));
        assert_eq!(reports.tells(source(1), "x", now + QUIET), Some(2580));
    }

    #[test]
    fn many_sources_are_told_together() {
        let reports = RefusalLog::default();
        let now = Instant::now();
        let told = (0..=u16::MAX)
            .filter(|n| {
                let [a, b] = n.to_be_bytes();
                reports.tells(ClientSource::Address([10, 0, a, b].into()), "x", now).is_some()
            })
            .count();
        assert_eq!(told, SOURCES_MAX + 1);
    }
}
