//! What happens on this member, in its log and for whoever asks.
//!
//! [`Journal::emit`] is the only place that tells either, so that the two cannot differ. It waits for nothing: the log has a
//! bounded queue of its own, and no thread that moves bytes of clients calls it. What the replicated log says is told from
//! there ([`sources`]): changes of the configuration, and who took or released the virtual IPs.

mod detail;
mod event;
mod merge;
mod raft;
mod ring;
mod sources;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Semaphore, watch};
use tracing::{error, info, warn};
use trestle_api::peer;
use trestle_engine::Repeats;
use trestle_model::MemberName;

pub(crate) use event::{Event, Severity};
pub(crate) use merge::{Position, moment};
pub(crate) use raft::follow;
use ring::Ring;
pub(crate) use sources::EventSources;
pub(crate) use stream::{List, Watch};

/// Clients that a member tells events at a time: what they have not fetched yet is held for them, up to 1 MiB of each member
/// and as much of the log.
const READERS_MAX: usize = 16;

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
#[derive(Clone)]
pub(crate) struct Journal(Arc<Shared>);

struct Shared {
    member: MemberName,
    /// Whether lines of the log name the member, because others write into the same log.
    shares_log: bool,
    /// The number that this process drew when it started.
    start: u64,
    lines: Mutex<BTreeMap<&'static str, Lines>>,
    ring: Mutex<Ring>,
    /// The number of the last event.
    last: watch::Sender<u64>,
    readers: Arc<Semaphore>,
}

impl Journal {
    /// Of a member of this name, whose process drew `start`; others have the same log if `shares_log`.
    pub(crate) fn new(member: MemberName, start: u64, shares_log: bool) -> Self {
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        let (lines, ring, last) = (Mutex::default(), Mutex::default(), watch::Sender::new(0));
        Self(Arc::new(Shared { member, shares_log, start, lines, ring, last, readers }))
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<&'static str, Lines>> {
        // Whole between any two statements that can panic.
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of something that has just happened.
    pub(crate) fn emit(&self, event: &Event) {
        let message = detail::of_event(event, &self.0.member);
        let number = self.ring().push(message, SystemTime::now());
        self.0.last.send_if_modified(|last| {
            let newer = number > *last;
            *last = number.max(*last);
            newer
        });
        for (severity, text) in self.logged(event, Instant::now()) {
            self.log(severity, event.kind(), &text);
        }
    }

    /// The start of this process, the number of its last event, and its events after `number` of the process `start`, up to so
    /// many bytes.
    pub(crate) fn after(
        &self,
        (start, number): (u64, u64),
        bytes_max: usize,
    ) -> (u64, u64, Vec<Arc<peer::MemberEvent>>) {
        let ring = self.ring();
        let number = if start == self.0.start { number } else { 0 };
        (self.0.start, ring.last(), ring.after(number, bytes_max))
    }

    /// Waits until there is an event after `number` of the process `start`, at most for `time`.
    pub(crate) async fn news(&self, (start, number): (u64, u64), time: Duration) {
        let number = if start == self.0.start { number } else { 0 };
        let mut last = self.0.last.subscribe();
        let _ = tokio::time::timeout(time, last.wait_for(|last| *last > number)).await;
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
            self.log(severity, kind, &text);
        }
    }

    fn log(&self, severity: Severity, kind: &'static str, text: &str) {
        let Shared { member, shares_log, .. } = &*self.0;
        let text: &str = if *shares_log { &format!("{member}: {text}") } else { text };
        match severity {
            Severity::Info => info!(kind, "{text}"),
            Severity::Warning => warn!(kind, "{text}"),
            Severity::Error => error!(kind, "{text}"),
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
        let member = MemberName::parse("m1").unwrap();
        let (journal, start) = (Journal::new(member, 1, false), Instant::now());
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
