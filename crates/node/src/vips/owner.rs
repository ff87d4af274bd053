//! The thread that owns the virtual IPs of this member. It waits for commands, and for the time at which something is due.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::command::VipCommand;
use super::driver::Driver;
use super::shared::Shared;
use super::watchdog;
use crate::supervise::{Liveness, Supervisor};

/// Longest time between two looks at what nothing reports, such as an interface that appears.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The thread's state.
pub(super) struct Owner {
    pub(super) driver: Driver,
    pub(super) shared: Arc<Shared>,
    pub(super) supervisor: Supervisor,
    /// The service manager's watchdog. This thread feeds it while no kernel is open, whose thread would do it.
    pub(super) idle_watchdog: Option<watchdog::Systemd>,
}

impl Owner {
    /// Handles what is in the queue already.
    pub(super) fn begin(&mut self, queue: &Receiver<VipCommand>) {
        while let Ok(command) = queue.try_recv() {
            self.driver.handle(command);
        }
    }

    /// Runs until it is told to end.
    pub(super) fn run(mut self, queue: &Receiver<VipCommand>, pulse: &Liveness) {
        let mut look = Instant::now() + POLL_INTERVAL;
        loop {
            pulse.beat();
            self.shared.beat();
            if !self.driver.has_kernel()
                && let Some(watchdog) = &mut self.idle_watchdog
            {
                watchdog.feed(Instant::now());
            }
            let wake = self.driver.wake().map_or(look, |at| look.min(at));
            match queue.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(VipCommand::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(command) => self.driver.handle(command),
                Err(RecvTimeoutError::Timeout) => self.driver.tick(),
            }
            if Instant::now() >= look {
                look = Instant::now() + POLL_INTERVAL;
                self.driver.poll();
                self.watch_kernel();
            }
        }
        self.driver.release_all();
        // A thread that has ended in order gives no signs of life.
        self.shared.silence.is_no_fault();
    }

    /// Reports kernel threads that have ended, because they cannot report it themselves.
    fn watch_kernel(&self) {
        if let Some(name) = self.driver.ended_thread() {
            self.supervisor.fail(name, "it has ended; see the log");
        }
    }
}
