//! A connection on its way to a backend.

use std::net::SocketAddr;
use std::sync::Arc;

use trestle_model::PoolName;

use super::preamble::Greeting;
use crate::observe::close_reason::CloseReason;
use crate::table::Table;
use crate::upstream::backend_runtime::Live;
use crate::upstream::pool::Pool;
use crate::upstream::slot::{Place, Taken};

/// A client that is led to a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arriving {
    /// The client's address.
    pub(super) source: SocketAddr,
    /// The port that the client dialled.
    pub(super) dialled: u16,
}

impl Arriving {
    pub(super) fn lead(
        self,
        table: &Table,
        pool: &PoolName,
        greeting: Option<Box<Greeting>>,
    ) -> Result<Attempt, CloseReason> {
        let pool = table.pools.get(pool);
        let aimed = pool.and_then(|pool| Some((pool, self.aim(pool, &[])?)));
        let (pool, target) = aimed.ok_or(CloseReason::NoBackend)?;
        Ok(Attempt { arriving: self, target, pool: pool.clone(), greeting })
    }

    /// A place at a backend that is not among `tried`, or a turn in the queue; `None` when there is nothing to wait for.
    pub(super) fn aim(self, pool: &Pool, tried: &[Arc<Live>]) -> Option<Target> {
        match pool.take(self.source, tried) {
            Taken::Place(place, backend) => Some(Some((place, backend.address(self.dialled)?))),
            Taken::Full => Some(None),
            Taken::Nothing => None,
        }
    }
}

/// A place and where that is; `None` when it has to be waited for.
pub(super) type Target = Option<(Place, SocketAddr)>;

/// A connection on its way to a backend.
pub(super) struct Attempt {
    pub(super) arriving: Arriving,
    pub(super) target: Target,
    pub(super) pool: Arc<Pool>,
    /// What was read already; in a box, because of most nothing was.
    pub(super) greeting: Option<Box<Greeting>>,
}
