//! The entry of one connection in its worker's table.

use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use trestle_model::PoolName;

use super::packed_address::PackedAddress;
use crate::accept::admission::SourcePermit;
use crate::accept::listener::Listener;
use crate::forwarder::OpenConnection;
use crate::observe::access_log::AccessRecord;
use crate::observe::close_reason::CloseReason;
use crate::observe::snapshot::{ConnectionSnapshot, ConnectionState};
use crate::upstream::backend_runtime::BackendRuntime;

/// How far a connection has come.
#[derive(Debug, Default)]
pub(super) enum Stage {
    #[default]
    Accepted,
    Opening(PoolName),
    Waiting(PoolName),
    Relaying {
        runtime: Arc<BackendRuntime>,
        backend: PackedAddress,
        /// From when it was accepted.
        connect_time: Duration,
    },
}

/// What only some connections have.
#[derive(Debug, Default)]
pub(super) struct Details {
    pub(super) client: Option<SocketAddr>,
    pub(super) server_name: Option<Arc<str>>,
    /// Counts the connection in the limits of its address.
    pub(super) permit: Option<SourcePermit>,
}

#[derive(Debug, Default)]
pub(super) struct ConnectionProgress {
    pub(super) stage: Stage,
    pub(super) details: Option<Box<Details>>,
    /// Wakes the connection's task.
    pub(super) waker: Option<Waker>,
}

impl ConnectionProgress {
    pub(super) fn wake(&self) {
        self.waker.iter().for_each(Waker::wake_by_ref);
    }
}

/// One connection: 200 bytes with the counts of its `Arc`.
#[derive(Debug)]
pub(crate) struct ConnectionEntry {
    pub(super) id: u64,
    pub(super) client: PackedAddress,
    pub(super) local: PackedAddress,
    pub(super) listener: Arc<Listener>,
    pub(super) opened: Instant,
    /// Written by the connection's own task alone.
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Place in its worker's slab.
    pub(super) slot: u32,
    /// 0, or one more than the [`CloseReason`] that it is to be closed for, or was.
    pub(super) closing: AtomicU8,
    pub(super) retries: AtomicU8,
    /// Whether the connection counts for its client among all of this member.
    pub(super) counted: AtomicBool,
    pub(super) progress: Mutex<ConnectionProgress>,
}

impl ConnectionEntry {
    pub(super) fn progress(&self) -> MutexGuard<'_, ConnectionProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn closing(&self) -> Option<CloseReason> {
        let place = usize::from(self.closing.load(SeqCst)).checked_sub(1)?;
        CloseReason::ALL.get(place).copied()
    }

    /// Sets why the connection is to be closed, unless a reason was set already.
    pub(super) fn close(&self, reason: CloseReason) -> bool {
        self.closing.compare_exchange(0, reason as u8 + 1, SeqCst, SeqCst).is_ok()
    }
}

impl OpenConnection for ConnectionEntry {
    fn end(&self, reason: CloseReason) -> bool {
        let first = self.close(reason);
        if first {
            // The reason is there before this looks for the waker, and the task looks at the reason after it has left
            // its waker: one of the two finds the other.
            self.progress().wake();
        }
        first
    }
}

impl AccessRecord for ConnectionEntry {
    fn retries(&self) -> u8 {
        self.retries.load(Relaxed)
    }

    fn read(&self) -> ConnectionSnapshot {
        let mut connection = ConnectionSnapshot {
            id: self.id,
            client: self.client.into(),
            listener: self.listener.config.name.clone(),
            local: self.local.into(),
            pool: None,
            backend: None,
            backend_address: None,
            server_name: None,
            state: ConnectionState::Opening,
            opened: self.opened,
            connect_time: None,
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        };
        let progress = self.progress();
        if let Some(details) = &progress.details {
            connection.client = details.client.unwrap_or(connection.client);
            connection.server_name = details.server_name.clone();
        }
        match &progress.stage {
            Stage::Accepted => {}
            Stage::Opening(pool) => connection.pool = Some(pool.clone()),
            Stage::Waiting(pool) => {
                connection.pool = Some(pool.clone());
                connection.state = ConnectionState::Waiting;
            }
            Stage::Relaying { runtime, backend, connect_time } => {
                connection.pool = Some(runtime.pool.clone());
                connection.backend = Some(runtime.name.clone());
                connection.backend_address = Some((*backend).into());
                connection.state = ConnectionState::Relaying;
                connection.connect_time = Some(*connect_time);
            }
        }
        drop(progress);
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_little() {
        let counts = 2 * size_of::<usize>();
        // With the header of malloc(3) not more than 208, the next of its steps.
        assert_eq!(size_of::<ConnectionEntry>() + counts, 200);
    }
}
