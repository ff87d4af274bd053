//! Whether a worker runs.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::worker::command::WorkerCommand;

/// A worker that has not answered for longer does not run. Clients cannot keep a worker busy for nearly as long; load must not
/// move virtual IPs.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// Most that counts as silence between two looks. When the whole process or machine stood still, no look was taken either, and
/// that is no fault of the worker.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Asks a worker for a sign of life, one question at a time.
#[derive(Debug)]
pub(crate) struct WorkerLiveness {
    /// Weak: a worker ends when nothing can send it commands any more.
    commands: WeakUnboundedSender<WorkerCommand>,
    asked: Option<oneshot::Receiver<()>>,
    looked: Instant,
    silent: Duration,
}

impl WorkerLiveness {
    pub(crate) fn new(commands: &UnboundedSender<WorkerCommand>, now: Instant) -> Self {
        Self { commands: commands.downgrade(), asked: None, looked: now, silent: Duration::ZERO }
    }

    /// How long the worker has been silent, if that is too long. A worker that has ended is not silent; its thread shows that.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        match self.asked.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => self.silent += passed.min(LOOK_MAX),
            _ => {
                self.silent = Duration::ZERO;
                self.asked = self.ask();
            }
        }
        (self.silent > SILENT_MAX).then_some(self.silent)
    }

    fn ask(&self) -> Option<oneshot::Receiver<()>> {
        let (answer, asked) = oneshot::channel();
        self.commands.upgrade()?.send(WorkerCommand::Ping(answer)).ok()?;
        Some(asked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_worker_that_does_not_answer_is_silent_until_it_does() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        let start = Instant::now();
        let mut worker = WorkerLiveness::new(&sender, start);
        let mut look = |ms| worker.look(start + Duration::from_millis(ms));
        for ms in (0..=10_000).step_by(400) {
            assert_eq!(look(ms), None, "after {ms} ms");
        }
        assert_eq!(look(10_400), Some(Duration::from_millis(10_400)));
        let Ok(WorkerCommand::Ping(answer)) = commands.try_recv() else { panic!("no question") };
        answer.send(()).unwrap();
        assert!(commands.try_recv().is_err(), "one question is enough");
        assert_eq!(look(10_800), None);
        assert!(matches!(commands.try_recv(), Ok(WorkerCommand::Ping(_))), "the next question");
    }

    #[test]
    fn a_time_in_which_nobody_looked_counts_little() {
        let (sender, _orders) = mpsc::unbounded_channel();
        let start = Instant::now();
        let mut worker = WorkerLiveness::new(&sender, start);
        let mut look = |seconds| worker.look(start + Duration::from_secs(seconds));
        assert_eq!(look(0), None);
        for minutes in 1..=20 {
            assert_eq!(look(60 * minutes), None, "half a second of silence at most");
        }
        assert!(look(60 * 21).is_some());
    }

    #[test]
    fn a_worker_that_has_ended_is_not_silent() {
        let (sender, commands) = mpsc::unbounded_channel();
        let start = Instant::now();
        let mut worker = WorkerLiveness::new(&sender, start);
        assert_eq!(worker.look(start), None);
        drop(commands);
        for seconds in 1..50 {
            assert_eq!(worker.look(start + Duration::from_secs(seconds)), None);
        }
        drop(sender);
        assert_eq!(worker.look(start + Duration::from_secs(60)), None);
    }
}
