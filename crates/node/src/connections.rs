//! This member's own connections, as the API shows and closes them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use trestle_api::convert::{self, ConnectionFilter};
use trestle_api::peer;
use trestle_consensus::Consensus;
use trestle_dataplane::{ConnectionSnapshot, ConnectionState, DataPlane};

fn matches(filter: &ConnectionFilter, connection: &ConnectionSnapshot, now: Instant) -> bool {
    let same = |pool: &_, name: &_| {
        connection.pool.as_ref() == Some(pool) && connection.backend.as_ref() == Some(name)
    };
    filter.listener.as_ref().is_none_or(|listener| connection.listener == *listener)
        && filter.pool.as_ref().is_none_or(|pool| connection.pool.as_ref() == Some(pool))
        && filter.backend.as_ref().is_none_or(|(pool, name)| same(pool, name))
        && filter.client.is_none_or(|client| client.contains(connection.client.ip()))
        && filter.min_age.is_none_or(|age| now.saturating_duration_since(connection.opened) >= age)
}

fn state(state: ConnectionState) -> peer::ConnectionState {
    match state {
        ConnectionState::Opening => peer::ConnectionState::Opening,
        ConnectionState::Waiting => peer::ConnectionState::Waiting,
        ConnectionState::Relaying => peer::ConnectionState::Relaying,
    }
}

fn connection_report(connection: &ConnectionSnapshot, now: Instant) -> peer::ConnectionReport {
    let backend = connection.pool.as_ref().zip(connection.backend.as_ref());
    peer::ConnectionReport {
        number: connection.id,
        client_address: connection.client.to_string(),
        listener: convert::listener_name(&connection.listener),
        local_address: connection.local.to_string(),
        pool: connection.pool.as_ref().map(convert::pool_name).unwrap_or_default(),
        backend: backend.map(|(pool, name)| convert::backend_name(pool, name)).unwrap_or_default(),
        backend_address: connection.backend_address.map(|address| address.to_string()).unwrap_or_default(),
        state: state(connection.state).into(),
        age: Some(convert::duration(now.saturating_duration_since(connection.opened))),
        connect_time: connection.connect_time.map(convert::duration),
        bytes_in: connection.bytes_in,
        bytes_out: connection.bytes_out,
        server_name: connection.server_name.as_deref().unwrap_or_default().to_owned(),
    }
}

/// The connections of this member's data plane.
#[derive(Clone)]
pub(crate) struct OwnConnections {
    pub(crate) consensus: Consensus,
    pub(crate) plane: Arc<DataPlane>,
}

impl OwnConnections {
    /// How many connections came in through virtual IPs.
    pub(crate) fn on_vips(&self) -> u64 {
        let state = self.consensus.view().borrow().state.clone();
        let vips: BTreeSet<_> = state.vips.values().map(|vip| vip.spec.address.ip).collect();
        self.plane.connections().iter().filter(|connection| vips.contains(&connection.local.ip())).count()
            as u64
    }

    fn matching(&self, filter: &ConnectionFilter) -> Vec<ConnectionSnapshot> {
        let mut connections = self.plane.connections();
        let now = Instant::now();
        connections.retain(|connection| matches(filter, connection, now));
        connections
    }

    /// The connections of this member that `filter` matches with numbers above `after`, up to `limit`.
    pub(crate) fn list(
        &self,
        filter: &ConnectionFilter,
        after: u64,
        limit: usize,
    ) -> peer::ListConnectionsResponse {
        let all = self.matching(filter);
        let rest = all.get(all.partition_point(|connection| connection.id <= after)..).unwrap_or_default();
        let now = Instant::now();
        peer::ListConnectionsResponse {
            connections: rest.iter().take(limit).map(|c| connection_report(c, now)).collect(),
            total: all.len() as u64,
            remaining: rest.len() as u64,
        }
    }

    /// Closes what `filter` matches, or without one what has these numbers, and says how many that were; or says only which
    /// would be closed.
    pub(crate) fn close(
        &self,
        filter: Option<&ConnectionFilter>,
        numbers: &[u64],
        validate_only: bool,
    ) -> peer::CloseConnectionsResponse {
        let found: Vec<u64> = match filter {
            Some(filter) => self.matching(filter).iter().map(|connection| connection.id).collect(),
            None if validate_only => {
                let named: BTreeSet<u64> = numbers.iter().copied().collect();
                self.plane.connections().iter().map(|c| c.id).filter(|id| named.contains(id)).collect()
            }
            None => numbers.to_vec(),
        };
        match validate_only {
            true => peer::CloseConnectionsResponse { count: found.len() as u64, numbers: found },
            false => {
                let count = self.plane.close_connections(&found) as u64;
                peer::CloseConnectionsResponse { count, numbers: Vec::new() }
            }
        }
    }
}
