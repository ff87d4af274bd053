//! What there is one of, and what happens when it ends.
//!
//! A member whose part that keeps the virtual IPs, follows the configuration or answers its peers has died looks healthy for
//! as long as nobody needs that part. So each is supervised: when one ends, by a panic or in any other way before this
//! member stops, the member as a whole fails, and whoever runs it starts it anew. One that hangs gives no sign of life any
//! more, which `/readyz`, the status and systemd's watchdog ask for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::error;
use trestle_engine::{SIGN_INTERVAL, SignOfLife};

/// The sign of life of a part.
#[derive(Debug)]
pub(crate) struct Liveness {
    name: &'static str,
    origin: Instant,
    sign: SignOfLife,
    ended: AtomicBool,
}

impl Liveness {
    /// Gives a sign of life.
    pub(crate) fn beat(&self) {
        self.sign.give(self.origin.elapsed());
    }

    fn silent(&self) -> Option<Duration> {
        self.sign.silent(self.origin.elapsed()).filter(|_| !self.ended.load(Ordering::Relaxed))
    }
}

/// What a supervised part does when it has done all that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// It goes on until the member stops.
    UntilStop,
    /// It may end; only a panic is a failure.
    UntilDone,
}

/// Supervises the parts of one member.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor(Arc<SupervisorState>);

#[derive(Debug)]
struct SupervisorState {
    origin: Instant,
    stopping: AtomicBool,
    failure: watch::Sender<Option<String>>,
    parts: Mutex<Vec<Arc<Liveness>>>,
}

/// Notes the end of a part, however it comes about.
struct PartGuard {
    supervisor: Supervisor,
    liveness: Arc<Liveness>,
    lasts: Lifetime,
    /// Whether it came to its end, and was not dropped on the way.
    done: bool,
}

impl Drop for PartGuard {
    fn drop(&mut self) {
        self.liveness.ended.store(true, Ordering::Relaxed);
        let name = self.liveness.name;
        match (std::thread::panicking(), self.done, self.lasts) {
            (true, ..) => self.supervisor.fail(name, "it panicked; see the log"),
            (false, true, Lifetime::UntilStop) => self.supervisor.fail(name, "it ended by itself"),
            // A task that is dropped belongs to a runtime that stops.
            (false, ..) => {}
        }
    }
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        Self(Arc::new(SupervisorState {
            origin: Instant::now(),
            stopping: AtomicBool::new(false),
            failure: watch::Sender::new(None),
            parts: Mutex::default(),
        }))
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Arc<Liveness>>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self, name: &'static str, lasts: Lifetime) -> PartGuard {
        let (origin, sign) = (self.0.origin, SignOfLife::default());
        let liveness = Liveness { name, origin, sign, ended: AtomicBool::new(false) };
        let liveness = Arc::new(liveness);
        liveness.beat();
        self.parts().push(liveness.clone());
        PartGuard { supervisor: self.clone(), liveness, lasts, done: false }
    }

    /// Starts a task. Its sign of life is that it is polled in time.
    pub(crate) fn spawn(
        &self,
        runtime: &Handle,
        name: &'static str,
        lasts: Lifetime,
        body: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let mut guard = self.guard(name, lasts);
        runtime.spawn(async move {
            // All of it: its end is told when it is dropped.
            let guard = &mut guard;
            tokio::pin!(body);
            let mut beats = interval(SIGN_INTERVAL);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = &mut body => break,
                    _ = beats.tick() => guard.liveness.beat(),
                }
            }
            guard.done = true;
        })
    }

    /// Starts a thread, which has to give signs of life itself: at least every few seconds.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(crate) fn thread(
        &self,
        name: &'static str,
        body: impl FnOnce(&Liveness) + Send + 'static,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let mut guard = self.guard(name, Lifetime::UntilStop);
        let supervisor = self.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let guard = &mut guard;
            // Caught, so that what it held is let go of before anybody hears of it.
            let ended = catch_unwind(AssertUnwindSafe(|| body(&guard.liveness)));
            guard.done = ended.is_ok();
            if let Err(panic) = ended {
                supervisor.fail(name, &format!("it panicked: {}", words(&*panic)));
            }
        })
    }

    /// Something that there is one of has ended, so that this member cannot go on. The first reason counts; none does once
    /// the member stops.
    pub(crate) fn fail(&self, name: &str, why: &str) {
        if self.0.stopping.load(Ordering::Acquire) {
            return;
        }
        error!(part = name, why, "a part of this member that it cannot do without has ended");
        self.0.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(format!("{name}: {why}"));
            }
            first
        });
    }

    /// From now on parts end because they are told to.
    pub(crate) fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Resolves when something has ended that must not, with its name and why.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.0.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match failed {
            Some(why) => why,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// The parts that have ended or give no sign of life, in words.
    pub(crate) fn missing(&self) -> Vec<String> {
        let ended = self.0.failure.borrow().as_ref().map(|why| format!("has lost a part of itself: {why}"));
        let silent = |liveness: &Arc<Liveness>| {
            let seconds = liveness.silent()?.as_secs();
            Some(format!("{} has given no sign of life for {seconds} s", liveness.name))
        };
        ended.into_iter().chain(self.parts().iter().filter_map(silent)).collect()
    }

    /// Whether everything is there and alive. For the thread that keeps the leases: it waits for nobody.
    pub(crate) fn is_whole(&self) -> bool {
        // Whoever has the list now is alive.
        let Ok(parts) = self.0.parts.try_lock() else { return true };
        self.0.failure.borrow().is_none() && parts.iter().all(|liveness| liveness.silent().is_none())
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use trestle_engine::SILENT_MAX;

    use super::*;

    async fn failure(supervisor: &Supervisor) -> String {
        tokio::time::timeout(Duration::from_secs(60), supervisor.failed()).await.unwrap()
    }

    fn failed_already(supervisor: &Supervisor) -> bool {
        supervisor.0.failure.borrow().is_some()
    }

    #[tokio::test]
    async fn a_task_that_panics_fails_the_member() {
        let supervisor = Supervisor::new();
        let runtime = Handle::current();
        supervisor.spawn(&runtime, "well", Lifetime::UntilStop, std::future::pending());
        let task = supervisor.spawn(&runtime, "ill", Lifetime::UntilDone, async { panic!("on purpose") });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(failure(&supervisor).await, "ill: it panicked; see the log");
        assert_eq!(supervisor.missing(), ["has lost a part of itself: ill: it panicked; see the log"]);
        assert!(!supervisor.is_whole());
    }

    #[tokio::test]
    async fn a_task_that_ends_fails_the_member_unless_it_may() {
        let supervisor = Supervisor::new();
        let runtime = Handle::current();
        supervisor.spawn(&runtime, "done", Lifetime::UntilDone, async {}).await.unwrap();
        let dropped = supervisor.spawn(&runtime, "dropped", Lifetime::UntilStop, std::future::pending());
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        assert!(!failed_already(&supervisor));
        supervisor.spawn(&runtime, "ended", Lifetime::UntilStop, async {}).await.unwrap();
        assert_eq!(failure(&supervisor).await, "ended: it ended by itself");
    }

    #[tokio::test]
    async fn a_thread_that_ends_fails_the_member() {
        let supervisor = Supervisor::new();
        let thread = supervisor.thread("owner", |_| panic!("overflow when adding {}", "a duration")).unwrap();
        assert_eq!(failure(&supervisor).await, "owner: it panicked: overflow when adding a duration");
        thread.join().unwrap();
        let supervisor = Supervisor::new();
        supervisor.thread("owner", |_| {}).unwrap();
        assert_eq!(failure(&supervisor).await, "owner: it ended by itself");
    }

    #[tokio::test]
    async fn what_ends_while_the_member_stops_is_no_failure() {
        let supervisor = Supervisor::new();
        supervisor.stopping();
        supervisor.thread("owner", |_| {}).unwrap().join().unwrap();
        supervisor.spawn(&Handle::current(), "ended", Lifetime::UntilStop, async {}).await.unwrap();
        assert!(!failed_already(&supervisor) && supervisor.is_whole());
    }

    #[tokio::test]
    async fn what_gives_no_sign_of_life_is_named() {
        let mut shared = Arc::into_inner(Supervisor::new().0).unwrap();
        // As if it had been started long ago.
        shared.origin = Instant::now().checked_sub(2 * SILENT_MAX).unwrap();
        let supervisor = Supervisor(Arc::new(shared));
        let hangs = supervisor.guard("hangs", Lifetime::UntilStop);
        let runs = supervisor.guard("runs", Lifetime::UntilStop);
        assert!(supervisor.is_whole());
        hangs.liveness.sign.give(Duration::ZERO);
        runs.liveness.beat();
        assert_eq!(supervisor.missing(), ["hangs has given no sign of life for 20 s"]);
        assert!(!supervisor.is_whole());
        drop(hangs);
        assert!(supervisor.is_whole(), "what has ended is not silent as well");
    }
}
