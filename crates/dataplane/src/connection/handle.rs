//! The handle by which a connection's task records what happens to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use trestle_model::{PoolName, PoolSpec};

use super::connection_table::{ConnectionTable, close_overdue};
use super::entry::{ConnectionEntry, ConnectionProgress, Details, Stage};
use super::relay_state::RelayState;
use super::timeouts::TimedConnection;
use crate::accept::admission::SourcePermit;
use crate::accept::listener::Listener;
use crate::machine::budget::PER_CONNECTION;
use crate::observe::access_log::EndedConnection;
use crate::observe::close_reason::CloseReason;
use crate::upstream::backend_runtime::BackendRuntime;

/// The handle that a connection's task holds. Dropping it takes the connection off the list, counts its end and logs it: with
/// the reason that was given, or else as ended by this member's stop.
#[derive(Debug)]
pub(crate) struct ConnectionHandle {
    pub(super) entry: Arc<ConnectionEntry>,
    pub(super) connections: Arc<ConnectionTable>,
}

impl ConnectionHandle {
    /// Registers a connection from `client` that was accepted at `local` and that its listener has admitted.
    pub(super) fn open(
        connections: &Arc<ConnectionTable>,
        client: SocketAddr,
        local: SocketAddr,
        listener: Arc<Listener>,
    ) -> Self {
        let id = connections.shared.opened();
        connections.shared.budget.take(PER_CONNECTION);
        listener.counters.record_connection();
        let entry = connections.add(|slot| ConnectionEntry {
            id,
            client: client.into(),
            local: local.into(),
            listener,
            opened: Instant::now(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            slot,
            closing: AtomicU8::new(0),
            retries: AtomicU8::new(0),
            counted: AtomicBool::new(false),
            progress: Mutex::default(),
        });
        Self { entry, connections: connections.clone() }
    }

    /// What all threads share.
    pub(crate) fn shared(&self) -> &RelayState {
        &self.connections.shared
    }

    /// The listener as it was when the connection was accepted.
    pub(crate) fn listener(&self) -> &Listener {
        &self.entry.listener
    }

    /// The address at which it was accepted.
    pub(crate) fn local(&self) -> SocketAddr {
        self.entry.local.into()
    }

    fn detail(&self, set: impl FnOnce(&mut Details)) {
        set(self.entry.progress().details.get_or_insert_default());
    }

    /// Records the client's address that a PROXY header names.
    pub(crate) fn set_client(&self, client: SocketAddr) {
        self.detail(|details| details.client = Some(client));
    }

    /// Records the server name that the client asks for.
    pub(crate) fn set_server_name(&self, server_name: &str) {
        self.detail(|details| details.server_name = Some(server_name.into()));
    }

    /// Keeps the permit of the client's address until the connection ends.
    pub(crate) fn set_permit(&self, permit: SourcePermit) {
        self.detail(|details| details.permit = Some(permit));
    }

    /// Counts the connection for its client among all connections of this member, unless the client has its share of them.
    pub(crate) fn try_count_client(&self) -> bool {
        let shared = self.shared();
        let client = self.client(&self.entry.progress());
        // Its own descriptors are taken already.
        let counted = shared.clients.try_count(client.ip(), shared.budget.free() + 1);
        self.entry.counted.store(counted, Relaxed);
        counted
    }

    fn client(&self, progress: &ConnectionProgress) -> SocketAddr {
        let told = progress.details.as_ref().and_then(|details| details.client);
        told.unwrap_or(self.entry.client.into())
    }

    /// Sets the times after which the connection is closed, if its pool sets any. To be called on its worker.
    pub(crate) fn set_timeouts(&self, spec: &PoolSpec) {
        if spec.idle_timeout.is_zero() && spec.max_lifetime.is_zero() {
            return;
        }
        let (entry, now) = (&self.entry, Instant::now());
        let timed = TimedConnection::new(entry.slot, entry.id, spec, entry.opened, now);
        if self.connections.timeouts().add(entry.id, timed, now) {
            tokio::spawn(close_overdue(self.connections.clone()));
        }
    }

    /// Whether the client has sent something, and nothing has come for it.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.entry.bytes_in.load(Relaxed) > 0 && self.entry.bytes_out.load(Relaxed) == 0
    }

    /// Records that a backend of this pool was selected.
    pub(crate) fn set_opening(&self, pool: &PoolName) {
        self.entry.progress().stage = Stage::Opening(pool.clone());
    }

    /// Records that the client waits for a slot at a backend of this pool.
    pub(crate) fn set_waiting(&self, pool: &PoolName) {
        self.entry.progress().stage = Stage::Waiting(pool.clone());
    }

    /// Records that another connect follows a failed one.
    pub(crate) fn record_retry(&self) {
        let retries = &self.entry.retries;
        retries.store(retries.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Records that the connection to this backend, at this address, is established.
    pub(crate) fn set_relaying(&self, runtime: &Arc<BackendRuntime>, address: SocketAddr) {
        let connect_time = self.entry.opened.elapsed();
        self.entry.progress().stage =
            Stage::Relaying { runtime: runtime.clone(), backend: address.into(), connect_time };
    }

    /// Records bytes that came from the client, and bytes that went to it.
    pub(crate) fn record_bytes(&self, up: u64, down: u64) {
        for (count, more) in [(&self.entry.bytes_in, up), (&self.entry.bytes_out, down)] {
            if more > 0 {
                count.store(count.load(Relaxed) + more, Relaxed);
            }
        }
        self.entry.listener.counters.record_bytes(up, down);
    }

    /// The reason for which the connection is to end, if there is one.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.entry.closing()
    }

    /// Ready when the connection is to end, with the reason. A task that has polled once is woken for it, and may from then on
    /// ask for [`ConnectionHandle::closing`].
    pub(crate) fn poll_closing(&self, cx: &Context<'_>) -> Poll<CloseReason> {
        self.entry.progress().waker = Some(cx.waker().clone());
        self.closing().map_or(Poll::Pending, Poll::Ready)
    }

    /// Ends the connection for this reason, or for one that was given earlier.
    pub(crate) fn close(self, reason: CloseReason) {
        self.entry.close(reason);
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        let (entry, shared) = (&self.entry, &self.connections.shared);
        entry.close(CloseReason::MemberShutdown);
        let reason = entry.closing().unwrap_or(CloseReason::MemberShutdown);
        self.connections.remove(entry.slot);
        let mut progress = entry.progress();
        if let Stage::Relaying { runtime, .. } = &progress.stage {
            runtime.counters.record_close(reason);
        }
        // The log may keep the entry for a while, and would keep the memory of the task with it.
        progress.waker = None;
        if entry.counted.load(Relaxed) {
            shared.clients.uncount(self.client(&progress).ip());
        }
        let permit = progress.details.as_mut().and_then(|details| details.permit.take());
        drop(progress);
        drop(permit);
        // After the backend's, so that whoever sees the listener's count sees the backend's.
        entry.listener.counters.record_close(reason);
        entry.listener.release();
        if let Some(log) = &shared.access_log {
            log.push(EndedConnection { connection: entry.clone(), reason, at: Instant::now() });
        }
        shared.budget.give(PER_CONNECTION);
        shared.ended(reason);
    }
}
