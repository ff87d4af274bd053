//! A connection on its way to a backend.

use std::net::SocketAddr;
use std::sync::Arc;

use trestle_model::PoolName;

use super::preamble::Preamble;
use crate::observe::close_reason::CloseReason;
use crate::table::Table;
use crate::upstream::backend_runtime::BackendRuntime;
use crate::upstream::pool::Pool;
use crate::upstream::slot::{ConnectionSlot, SlotSelection};

/// Where a client is, and what it dialled.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientEndpoint {
    /// The client's address.
    pub(super) source: SocketAddr,
    /// The port that the client dialled.
    pub(super) dialled: u16,
}

impl ClientEndpoint {
    pub(super) fn dispatch(
        self,
        table: &Table,
        pool: &PoolName,
        preamble: Option<Box<Preamble>>,
    ) -> Result<ConnectAttempt, CloseReason> {
        let pool = table.pools.get(pool);
        let aimed = pool.and_then(|pool| Some((pool, self.select_backend(pool, &[])?)));
        let (pool, target) = aimed.ok_or(CloseReason::NoBackend)?;
        Ok(ConnectAttempt { endpoint: self, target, pool: pool.clone(), preamble })
    }

    /// A slot at a backend that is not among `tried`, or the need to wait for one; `None` when there is nothing to wait for.
    pub(super) fn select_backend(
        self,
        pool: &Pool,
        tried: &[Arc<BackendRuntime>],
    ) -> Option<SelectedBackend> {
        match pool.select(self.source, tried) {
            SlotSelection::Taken(slot, backend) => Some(Some((slot, backend.address(self.dialled)?))),
            SlotSelection::Full => Some(None),
            SlotSelection::Nothing => None,
        }
    }
}

/// A slot and the backend's address; `None` when a slot has to be waited for.
pub(super) type SelectedBackend = Option<(ConnectionSlot, SocketAddr)>;

/// A connection on its way to a backend.
pub(super) struct ConnectAttempt {
    pub(super) endpoint: ClientEndpoint,
    pub(super) target: SelectedBackend,
    pub(super) pool: Arc<Pool>,
    /// What was read already; in a box, because nothing was read of most connections.
    pub(super) preamble: Option<Box<Preamble>>,
}
