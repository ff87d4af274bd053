//! Watching the data plane's threads, and those of its tasks that nothing else would miss.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use trestle_engine::{SIGN_INTERVAL, SignOfLife};

/// How long, after a thread has ended, a panic is waited for that may have caused it: a thread that panics drops what it holds,
/// and others end because of that, before the panic itself is reported.
const CAUSE_WAIT: Duration = Duration::from_millis(250);

/// How a thread or task ended, in words.
#[derive(Debug, Clone)]
struct End {
    words: String,
    panicked: bool,
}

/// The first thread or task that ended, or that panicked.
#[derive(Debug, Clone, Default)]
pub(crate) struct ThreadEnds(Arc<watch::Sender<Option<End>>>);

thread_local! {
    static ENDED: RefCell<Option<ThreadEnds>> = const { RefCell::new(None) };
}

/// A task of this thread that may end, but not by a panic: nothing waits for it, and its work would no longer be done.
pub(crate) fn watched<T>(what: &str, body: impl Future<Output = T>) -> impl Future<Output = T> {
    let ended = ENDED.with_borrow(Clone::clone);
    let watched = ended.map(|ended| EndGuard { what: what.to_owned(), ended, any: false });
    async move {
        let _watched = watched;
        body.await
    }
}

/// Reports when the thread or task that holds it ends.
pub(crate) struct EndGuard {
    what: String,
    ended: ThreadEnds,
    /// Whether any end counts, or only a panic.
    any: bool,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        let how = match (panicked, self.any) {
            (true, _) => "panicked; see the log",
            (false, true) => "has ended",
            (false, false) => return,
        };
        self.ended.0.send_if_modified(|first| {
            let counts = first.as_ref().is_none_or(|first| panicked && !first.panicked);
            if counts {
                *first = Some(End { words: format!("{} {how}", self.what), panicked });
            }
            counts
        });
    }
}

impl ThreadEnds {
    /// To be held by a thread for as long as it runs.
    pub(crate) fn thread(&self, name: &str) -> EndGuard {
        EndGuard { what: format!("thread {name}"), ended: self.clone(), any: true }
    }

    /// To be called by a thread when it starts, for [`watched`].
    pub(crate) fn install(&self) {
        ENDED.set(Some(self.clone()));
    }

    /// Waits for the first end, or for the panic that brought it about.
    pub(crate) async fn first(&self) -> String {
        let mut ended = self.0.subscribe();
        // Both can only fail without a sender, which lives as long as `self`.
        let _ = ended.wait_for(Option::is_some).await;
        let cause = ended.wait_for(|end| end.as_ref().is_some_and(|end| end.panicked));
        let _ = timeout(CAUSE_WAIT, cause).await;
        let first = self.0.borrow().as_ref().map(|end| end.words.clone());
        match first {
            Some(words) => words,
            None => std::future::pending().await,
        }
    }
}

/// The sign of life of a thread.
#[derive(Debug)]
pub(crate) struct ThreadLiveness {
    pub(crate) name: String,
    origin: Instant,
    sign: SignOfLife,
}

impl ThreadLiveness {
    pub(crate) fn new(name: String) -> Self {
        Self { name, origin: Instant::now(), sign: SignOfLife::default() }
    }

    /// How long the thread has given no sign of life, if that is too long.
    pub(crate) fn silent(&self) -> Option<Duration> {
        self.sign.silent(self.origin.elapsed())
    }

    /// Runs `body`, on a runtime of its own, and gives signs of life as long as the thread runs its tasks.
    pub(crate) async fn during(self: Arc<Self>, body: impl Future<Output = ()>) {
        tokio::pin!(body);
        let mut beats = interval(SIGN_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = &mut body => return,
                _ = beats.tick() => self.sign.give(self.origin.elapsed()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use trestle_engine::SILENT_MAX;

    use super::*;

    async fn first(ended: &ThreadEnds) -> String {
        tokio::time::timeout(Duration::from_secs(60), ended.first()).await.unwrap()
    }

    #[tokio::test]
    async fn the_first_end_of_a_thread_is_told() {
        let ended = ThreadEnds::default();
        let watched = ended.thread("trestle-table");
        std::thread::spawn(move || {
            let _watched = watched;
            panic!("on purpose");
        });
        assert_eq!(first(&ended).await, "thread trestle-table panicked; see the log");
        drop(ended.thread("trestle-probe"));
        assert_eq!(first(&ended).await, "thread trestle-table panicked; see the log");
        let ended = ThreadEnds::default();
        drop(ended.thread("trestle-probe"));
        assert_eq!(first(&ended).await, "thread trestle-probe has ended");
    }

    #[tokio::test]
    async fn a_panic_is_told_rather_than_what_ended_because_of_it() {
        let ended = ThreadEnds::default();
        let (cause, effect) = (ended.thread("trestle-table"), ended.thread("trestle-data-0"));
        let told = tokio::spawn({
            let ended = ended.clone();
            async move { first(&ended).await }
        });
        std::thread::spawn(move || {
            let _cause = cause;
            // What ends because of it is told first.
            std::thread::spawn(move || drop(effect)).join().unwrap();
            // Without the hook of panics: printing a backtrace can take longer than the cause is waited for.
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert_eq!(told.await.unwrap(), "thread trestle-table panicked; see the log");
    }

    #[tokio::test]
    async fn a_task_may_end_but_not_panic() {
        let ended = ThreadEnds::default();
        ended.install();
        tokio::spawn(watched("a check", async {})).await.unwrap();
        assert!(ended.0.borrow().is_none());
        tokio::spawn(watched("a check", async { panic!("on purpose") })).await.unwrap_err();
        assert_eq!(first(&ended).await, "a check panicked; see the log");
    }

    #[tokio::test]
    async fn a_thread_that_comes_round_gives_signs_of_life() {
        let mut beat = ThreadLiveness::new("trestle-table".to_owned());
        assert_eq!(beat.silent(), None);
        beat.origin = Instant::now().checked_sub(2 * SILENT_MAX).unwrap();
        assert!(beat.silent().is_some());
        let beat = Arc::new(beat);
        beat.clone().during(tokio::time::sleep(Duration::from_millis(100))).await;
        assert_eq!(beat.silent(), None);
    }
}
