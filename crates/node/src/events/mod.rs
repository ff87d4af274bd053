//! What happens on this member, in its log and for whoever asks.
//!
//! [`Journal::emit`] is the only place that tells either, so that the two cannot differ. It waits for nothing: the log has a
//! bounded queue of its own, and no thread that moves bytes of clients calls it.

mod event;
mod raft;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use trestle_engine::Repeats;

pub(crate) use event::{Event, Severity};
pub(crate) use raft::follow;

/// Lines of the log about events of one kind in a window; the others are counted.
const LINES_MAX: u32 = 10;
/// The window.
const LINES_WINDOW: Duration = Duration::from_secs(10);

/// What was logged of one kind of events.
struct Lines {
    repeats: Repeats,
    /// The last one that was not told, with how bad it is.
    last: Option<(Severity, String)>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { repeats: Repeats::new(LINES_WINDOW, LINES_MAX), last: None }
    }
}

/// What happens on this member. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<BTreeMap<&'static str, Lines>>>);

impl Journal {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<&'static str, Lines>> {
        // Whole between any two statements that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of something that has just happened.
    pub(crate) fn emit(&self, event: &Event) {
        for (severity, text) in self.logged(event, Instant::now()) {
            log(severity, event.kind(), &text);
        }
    }

    /// The lines of the log for an event.
    fn logged(&self, event: &Event, now: Instant) -> Vec<(Severity, String)> {
        let mut lines = self.lines();
        let lines = lines.entry(event.kind()).or_default();
        let line = (event.severity(), event.to_string());
        match lines.repeats.tell(now) {
            Some(untold) => {
                lines.last.take().map(|last| summed(last, untold)).into_iter().chain([line]).collect()
            }
            None => {
                lines.last = Some(line);
                Vec::new()
            }
        }
    }

    /// Tells of those that were only counted, once their window has ended. To be called every second or so.
    fn flush(&self, now: Instant) {
        let due: Vec<_> = {
            let mut lines = self.lines();
            let due = lines.iter_mut().filter_map(|(kind, lines)| {
                let untold = lines.repeats.take_untold(now)?;
                Some((*kind, summed(lines.last.take()?, untold)))
            });
            due.collect()
        };
        for (kind, (severity, text)) in due {
            log(severity, kind, &text);
        }
    }
}

/// The line for the last of `untold` that were not told.
fn summed((severity, text): (Severity, String), untold: u64) -> (Severity, String) {
    match untold.saturating_sub(1) {
        0 => (severity, text),
        more => (severity, format!("{text}; {more} more like it in the last {} s", LINES_WINDOW.as_secs())),
    }
}

fn log(severity: Severity, kind: &'static str, text: &str) {
    match severity {
        Severity::Info => info!(kind, "{text}"),
        Severity::Warning => warn!(kind, "{text}"),
        Severity::Error => error!(kind, "{text}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use trestle_dataplane::Verdict;

    fn down(number: usize) -> Event {
        let (pool, reason) = ("web".parse_as_pool(), "connection refused".to_owned());
        let backend = trestle_model::BackendName::parse(&format!("b{number}")).unwrap();
        let event = trestle_dataplane::Event::Verdict { pool, backend, verdict: Verdict::Unhealthy, reason };
        Event::DataPlane(event)
    }

    trait ParseAsPool {
        fn parse_as_pool(&self) -> trestle_model::PoolName;
    }

    impl ParseAsPool for str {
        fn parse_as_pool(&self) -> trestle_model::PoolName {
            trestle_model::PoolName::parse(self).unwrap()
        }
    }

    #[test]
    fn many_alike_are_a_few_lines_and_a_count() {
        let (journal, start) = (Journal::default(), Instant::now());
        let lines: Vec<_> = (0..25).flat_map(|number| journal.logged(&down(number), start)).collect();
        assert_eq!(lines.len(), LINES_MAX as usize);
        assert_eq!(
            lines[0],
            (Severity::Warning, "backend web/b0 is unhealthy: connection refused".to_owned())
        );
        // Another kind has lines of its own.
        assert_eq!(journal.logged(&Event::Fit, start).len(), 1);
        let lines = journal.logged(&down(25), start + LINES_WINDOW);
        let lines: Vec<_> = lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            lines,
            [
                "backend web/b24 is unhealthy: connection refused; 14 more like it in the last 10 s",
                "backend web/b25 is unhealthy: connection refused"
            ]
        );
    }
}
