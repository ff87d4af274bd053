//! Where Raft is found while it runs, and what this member says of its part in it.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::watch;
use trestle_api::status::Failure;

use crate::error::Error;
use crate::replica::RaftHandle;
use crate::status::{RaftRole, RaftState, RaftStatus, of_raft};
use crate::store::{LogProbe, LogReader};

/// Raft while it runs.
#[derive(Clone)]
pub(crate) struct RunningRaft {
    pub(crate) raft: RaftHandle,
    /// The log that it writes.
    pub(crate) log: LogReader,
    /// Asks the thread that writes it for a sign of life.
    pub(crate) probe: LogProbe,
    /// Set before it is stopped, so that its end is nobody's surprise.
    pub(crate) ended: Arc<watch::Sender<bool>>,
}

/// The running Raft, or why there is none.
pub(crate) struct RaftSlot {
    running: RwLock<Option<RunningRaft>>,
    role: watch::Sender<RaftRole>,
    failure: watch::Sender<Option<String>>,
}

impl RaftSlot {
    pub(crate) fn new(state: RaftState) -> Self {
        let role = watch::Sender::new(RaftRole { state, ..RaftRole::default() });
        Self { running: RwLock::default(), role, failure: watch::Sender::default() }
    }

    /// What `get` takes of the running Raft.
    fn of_running<T>(&self, get: impl FnOnce(&RunningRaft) -> T) -> Option<T> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(get)
    }

    pub(crate) fn handle(&self) -> Option<RaftHandle> {
        self.of_running(|running| running.raft.clone())
    }

    /// The log of the running Raft.
    pub(crate) fn log(&self) -> Option<LogReader> {
        self.of_running(|running| running.log.clone())
    }

    /// What asks the running Raft's writer for a sign of life.
    pub(crate) fn log_probe(&self) -> Option<LogProbe> {
        self.of_running(|running| running.probe.clone())
    }

    pub(crate) fn replace(&self, running: Option<RunningRaft>) -> Option<RunningRaft> {
        std::mem::replace(&mut *self.running.write().unwrap_or_else(PoisonError::into_inner), running)
    }

    /// The running Raft, or the failure that there is none.
    pub(crate) fn running(&self) -> Result<RaftHandle, Error> {
        self.handle().ok_or_else(|| {
            Error::Failed(match self.role.borrow().state {
                RaftState::Empty => Failure::NoCluster,
                RaftState::Removed => Failure::Removed,
                RaftState::Stopped => Failure::ShuttingDown,
                _ => Failure::NoLeader("this member has just started and does not take part yet".to_owned()),
            })
        })
    }

    /// What this member says of its part; no more than its state while Raft does not run.
    pub(crate) fn status(&self) -> RaftStatus {
        match self.handle() {
            Some(raft) => of_raft(&raft),
            None => RaftStatus { state: self.role.borrow().state, ..RaftStatus::default() },
        }
    }

    pub(crate) fn role(&self) -> watch::Ref<'_, RaftRole> {
        self.role.borrow()
    }

    pub(crate) fn watch_role(&self) -> watch::Receiver<RaftRole> {
        self.role.subscribe()
    }

    /// Whether this member leads, by Raft's word.
    pub(crate) fn leads(&self) -> bool {
        let role = self.role.borrow();
        role.state == RaftState::Leader && role.leader.is_some()
    }

    /// Sets the state that this member has without Raft.
    pub(crate) fn set_state(&self, state: RaftState) {
        self.role.send_modify(|role| *role = RaftRole { state, term: role.term, ..RaftRole::default() });
    }

    /// Publishes a role that is new while `is_current` holds, and returns the old one.
    pub(crate) fn publish(&self, new: &RaftRole, is_current: impl FnOnce() -> bool) -> Option<RaftRole> {
        let mut old = None;
        self.role.send_if_modified(|role| {
            let changed = *role != *new && is_current();
            if changed {
                old = Some(std::mem::replace(role, new.clone()));
            }
            changed
        });
        old
    }

    /// Notes that Raft has failed; the first reason counts.
    pub(crate) fn fail(&self, why: String) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(why);
            }
            first
        });
    }

    /// Resolves with the reason once Raft has failed.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) {
            Some(why) => why,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// Starts a task that there is one of. It may end; only a panic is a failure.
    pub(crate) fn spawn_watched(
        self: &Arc<Self>,
        runtime: &Handle,
        name: &'static str,
        body: impl Future<Output = ()> + Send + 'static,
    ) {
        let watched = FailOnPanic { raft: self.clone(), name };
        runtime.spawn(async move {
            let _watched = watched;
            body.await;
        });
    }
}

/// A task that this member cannot do without: when it panics, the member has failed.
struct FailOnPanic {
    raft: Arc<RaftSlot>,
    name: &'static str,
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.raft.fail(format!("the task for {} panicked; see the log", self.name));
        }
    }
}
