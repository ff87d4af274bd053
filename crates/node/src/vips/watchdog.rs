//! systemd's watchdog.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The watchdog of the service manager, if it has one.
pub(crate) struct Systemd {
    /// Half of `WatchdogSec`, as sd_watchdog_enabled(3) recommends.
    interval: Duration,
    last: Option<Instant>,
    whole: Whole,
}

/// Whether every part of this member gives signs of life. The manager hears nothing while one does not.
pub(crate) type Whole = Arc<dyn Fn() -> bool + Send + Sync>;

impl Systemd {
    pub(crate) fn from_environment(whole: &Whole) -> Option<Self> {
        let mut usec = 0;
        // The variables stay in the environment, because this is called more than once.
        sd_notify::watchdog_enabled(false, &mut usec).then(|| Self {
            interval: Duration::from_micros(usec) / 2,
            last: None,
            whole: whole.clone(),
        })
    }

    /// Tells the manager that this process is well, when it is time.
    pub(crate) fn feed(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.interval / 2) {
            self.last = Some(now);
            notify(&self.whole);
        }
    }

    /// The watchdog for the thread that keeps the leases, which is on time or says nothing.
    pub(super) fn into_watchdog(self) -> trestle_vip::Watchdog {
        trestle_vip::Watchdog::new(self.interval, move || notify(&self.whole))
    }
}

fn notify(whole: &Whole) {
    if !whole() {
        return;
    }
    // A manager that does not listen ends this process.
    let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
}
