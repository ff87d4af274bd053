//! Whether the lease thread is on time, and who is told.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::TICK;
use crate::facts::Punctuality;

/// A thread that wakes no later than this is on time: a third of the default lease (280 ms).
const ON_TIME: Duration = Duration::from_millis(100);

/// Somebody who is to be told for as long as the lease thread is on time, such as systemd's watchdog.
pub struct Watchdog {
    /// Time between two calls; tell systemd's at half of its `WatchdogSec`.
    interval: Duration,
    notify: Box<dyn FnMut() + Send>,
    last: Option<Instant>,
}

impl Watchdog {
    /// Calls `notify` about every `interval` on the lease thread, so it must not block: a datagram to the service manager is
    /// fine. It is not called while the thread is late or the fence cannot be renewed.
    pub fn new(interval: Duration, notify: impl FnMut() + Send + 'static) -> Self {
        Self { interval: interval.max(TICK), notify: Box::new(notify), last: None }
    }

    pub(super) fn period(&self) -> Duration {
        self.interval
    }

    pub(super) fn feed(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) + TICK / 2 >= self.interval) {
            self.last = Some(now);
            (self.notify)();
        }
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").field("interval", &self.interval).finish_non_exhaustive()
    }
}

/// What the lease thread shows of itself, without a lock.
#[derive(Debug, Default)]
pub(crate) struct LeaseThreadStats {
    ticks: AtomicU64,
    late: AtomicU64,
    worst_nanoseconds: AtomicU64,
    real_time: AtomicBool,
    announcements_fenced: AtomicBool,
}

impl LeaseThreadStats {
    /// Counts a tick that came `late`; answers whether that is on time.
    pub(super) fn woke(&self, late: Duration) -> bool {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        if late > TICK {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.worst_nanoseconds.fetch_max(nanoseconds, Ordering::Relaxed);
        late <= ON_TIME
    }

    pub(crate) fn announcements_fenced(&self, fenced: bool) {
        self.announcements_fenced.store(fenced, Ordering::Relaxed);
    }

    pub(crate) fn are_announcements_fenced(&self) -> bool {
        self.announcements_fenced.load(Ordering::Relaxed)
    }

    /// Gives the calling thread the lowest real-time priority, ahead of everything that has none.
    #[expect(unsafe_code, reason = "neither std nor rustix sets a scheduling policy")]
    pub(crate) fn take_real_time(&self) {
        let parameters = libc::sched_param { sched_priority: 1 };
        // SAFETY: the structure is whole and only read; 0 means the calling thread.
        let taken = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } == 0;
        self.real_time.store(taken, Ordering::Relaxed);
    }

    pub(crate) fn facts(&self) -> Punctuality {
        Punctuality {
            ticks: self.ticks.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            worst: Duration::from_nanos(self.worst_nanoseconds.load(Ordering::Relaxed)),
            real_time: self.real_time.load(Ordering::Relaxed),
        }
    }
}
