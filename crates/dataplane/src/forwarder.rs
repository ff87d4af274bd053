//! The seam between deciding and forwarding.
//!
//! The reconciler decides which addresses are open, which table holds, and which connections end. A forwarder makes it so and
//! says what came of it. The relay in user space ([`crate::worker::relay_forwarder`]) is one; one in the kernel would be another.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::accept::bind::BindError;
use crate::accept::listener::Listener;
use crate::machine::budget::BudgetUse;
use crate::observe::close_reason::CloseReason;
use crate::observe::counters::TrafficCounts;
use crate::observe::snapshot::ConnectionSnapshot;
use crate::table::Table;
use crate::upstream::backend::Backend;
use crate::upstream::backend_runtime::BackendRuntime;

/// How an address is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenMode {
    /// On all cores, if there is room; else on one.
    pub(crate) spread: bool,
    /// Although it may not be on this machine yet.
    pub(crate) ahead: bool,
}

/// What a table that is published changes for connections.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) table: Arc<Table>,
    /// Backends with the epochs that begin: connections of the earlier ones end.
    pub(crate) epochs: Vec<(Arc<BackendRuntime>, u32)>,
    /// Addresses of backends that are dead while others of the same backend are not: connections there end as
    /// [`CloseReason::BackendDown`].
    pub(crate) dead: Vec<(Arc<BackendRuntime>, IpAddr)>,
}

/// A connection that can be ended.
pub(crate) trait OpenConnection: fmt::Debug + Send + Sync {
    /// Has it end for `reason`; false when it is about to end already.
    fn end(&self, reason: CloseReason) -> bool;
}

/// Open connections of one backend, with their numbers.
pub(crate) type Connections = Vec<(u64, Weak<dyn OpenConnection>)>;

/// A future that the reconciler awaits.
pub(crate) type Completion<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Forwards connections by the table. The reconciler's thread changes it, one call at a time; any thread asks it.
pub(crate) trait Forwarder: fmt::Debug + Send + Sync {
    /// Begins a round in which each address is tried once, or goes on with one that was interrupted.
    fn begin_opening(&self);

    /// Whether an address is open.
    fn is_open(&self, address: SocketAddr) -> bool;

    /// Opens an address that is not open. No connection is taken there before [`Forwarder::accept_opened`].
    ///
    /// # Errors
    /// Why it cannot be opened; [`BindError::Opening`] when it was put off and is new.
    fn open(&self, address: SocketAddr, opening: OpenMode) -> Result<(), BindError>;

    /// Whether an address was put off since opening began: the round is to go on once everything else has had its turn.
    fn has_put_off(&self) -> bool;

    /// Closes the addresses that are not to be kept; done once what waited there was taken.
    fn close_except(&self, keep: &dyn Fn(SocketAddr) -> bool) -> Completion<'static>;

    /// The table that is published has the listeners of the addresses that were opened: takes connections there from now on.
    fn accept_opened(&self);

    /// Goes by this table from now on, and ends the connections that are not to outlive the one before.
    fn publish(&self, publication: Publication);

    /// The connections that are open now, in the order of their numbers.
    fn connections(&self) -> Vec<ConnectionSnapshot>;

    /// The open connections of these backends, by where the backend is in memory; one entry for each.
    fn connections_of(
        &self,
        backends: &[Arc<BackendRuntime>],
    ) -> BTreeMap<*const BackendRuntime, Connections>;

    /// Ends connections by number, and says how many of them were there and not about to end already.
    fn close(&self, ids: &[u64], reason: CloseReason) -> usize;

    /// What was counted for a listener up to now.
    fn listener_counts(&self, listener: &Listener) -> TrafficCounts;

    /// What was counted for a backend up to now.
    fn backend_counts(&self, backend: &Backend) -> TrafficCounts;

    /// Connections that are open now.
    fn open_connections(&self) -> usize;

    /// Connections that ended because this member stopped, since this was last asked.
    fn take_cut(&self) -> usize;

    /// Done once no connection is open.
    fn until_idle(&self) -> Completion<'_>;

    /// File descriptors that it has, and may have.
    fn descriptors(&self) -> BudgetUse;

    /// Its parts that do not run, in words. It judges by what it saw before, so it is to be asked at least every second.
    fn stalled(&self, now: Instant) -> Vec<String>;

    /// Ends it, and with it the connections that are left.
    fn stop(&self);
}

#[cfg(test)]
mod tests;
