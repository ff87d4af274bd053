//! The listening sockets that are open, and the workers that have them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::accept::bind::{self, BindError};
use crate::connection::relay_state::RelayState;
use crate::forwarder::OpenMode;
use crate::machine::budget::NoRoom;

use super::command::WorkerCommand;

/// How long workers may take to empty the queues of sockets that are closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How long sockets may be opened in a row before verdicts, and whatever else is new, are published: thousands of ports must
/// hold up nothing else. Above what a thousand listeners take.
const OPEN_FOR: Duration = Duration::from_millis(50);

/// The same where that much takes long to publish, so that most of the time goes into opening.
const OPEN_FOR_MAX: Duration = Duration::from_millis(500);

/// An address with the port first, so that sockets on the same port are neighbours in the map.
type Key = (u16, IpAddr);

fn key(address: SocketAddr) -> Key {
    (address.port(), address.ip())
}

/// An address whose sockets are open, and the workers that have one each.
#[derive(Debug)]
struct Open {
    address: SocketAddr,
    workers: Range<usize>,
}

/// A new socket at an address, and the worker that is to have it.
type Fresh = (SocketAddr, usize, TcpListener);

/// All listening sockets of this member.
#[derive(Debug)]
pub(super) struct OpenSockets {
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    state: Arc<RelayState>,
    open: BTreeMap<Key, Open>,
    /// Sockets that are open and not with the workers yet.
    fresh: Vec<Fresh>,
    /// When opening pauses.
    until: Instant,
    /// Whether an address was put off.
    put_off: bool,
    /// Number of the round in which each address is tried once; it may be interrupted.
    round: u64,
    /// Addresses that could not be bound when they were tried last, and in which round that was.
    failed: BTreeMap<Key, (u64, BindError)>,
}

impl OpenSockets {
    pub(super) fn new(workers: Vec<mpsc::UnboundedSender<WorkerCommand>>, state: Arc<RelayState>) -> Self {
        Self {
            workers,
            state,
            open: BTreeMap::new(),
            fresh: Vec::new(),
            until: Instant::now(),
            put_off: false,
            round: 0,
            failed: BTreeMap::new(),
        }
    }

    /// Begins to open sockets, or goes on with those that were put off.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        let paused = now.saturating_duration_since(self.until);
        self.until = now + OPEN_FOR;
        if std::mem::take(&mut self.put_off) {
            self.until = now + (2 * paused).clamp(OPEN_FOR, OPEN_FOR_MAX);
        } else {
            self.round += 1;
        }
    }

    /// Whether an address was put off: opening is to go on as soon as everything else has had its turn.
    pub(super) fn has_put_off(&self) -> bool {
        self.put_off
    }

    /// Whether sockets are open at an address.
    pub(super) fn is_open(&self, address: SocketAddr) -> bool {
        self.open.contains_key(&key(address))
    }

    /// Opens sockets at an address where none is: one for each worker if they are to be spread and descriptors allow, else
    /// one for one worker.
    ///
    /// # Errors
    /// Why there are none; [`BindError::Opening`] when it was put off and is new.
    pub(super) fn open(&mut self, address: SocketAddr, opening: OpenMode) -> Result<(), BindError> {
        let known = self.failed.get(&key(address));
        if let Some((_, known)) = known.filter(|(round, _)| *round == self.round) {
            return Err(known.clone());
        }
        if self.until <= Instant::now() {
            self.put_off = true;
            return Err(known.map_or(BindError::Opening, |(_, known)| known.clone()));
        }
        let opened = self.try_open(address, opening);
        match &opened {
            Ok(()) => drop(self.failed.remove(&key(address))),
            Err(error) => drop(self.failed.insert(key(address), (self.round, error.clone()))),
        }
        opened
    }

    fn try_open(&mut self, address: SocketAddr, opening: OpenMode) -> Result<(), BindError> {
        let workers = self.take_room(address.port(), opening.spread)?;
        let sockets = bind::open(address, workers.len(), !self.overlaps(address), opening.ahead)
            .inspect_err(|_| {
                self.state.budget.unlisten(workers.len());
            })?;
        let fresh = workers.clone().zip(sockets).map(|(worker, socket)| (address, worker, socket));
        self.fresh.extend(fresh);
        self.open.insert(key(address), Open { address, workers });
        Ok(())
    }

    /// The workers that get a socket at a port, for which there are descriptors from now on.
    fn take_room(&self, port: u16, spread: bool) -> Result<Range<usize>, BindError> {
        let (budget, all) = (&self.state.budget, self.workers.len());
        if spread && budget.listen(all, false).is_ok() {
            return Ok(0..all);
        }
        let one = usize::from(port) % all.max(1);
        budget.listen(1, !spread).map(|()| one..one + 1).map_err(|no_room| match no_room {
            NoRoom::Listening(most) => BindError::TooMany(most),
            NoRoom::Connections => BindError::Crowded,
        })
    }

    /// Whether a wildcard is beside an address of the same port. That is meant: the kernel gives connections to the more
    /// specific one. The test for strangers would only find our own socket.
    fn overlaps(&self, address: SocketAddr) -> bool {
        let same_port = (address.port(), IpAddr::from([0; 4]))..=(address.port(), IpAddr::from([0xff; 16]));
        self.open.range(same_port).any(|(_, Open { address: other, .. })| {
            other.is_ipv4() == address.is_ipv4()
                && (other.ip().is_unspecified() || address.ip().is_unspecified())
        })
    }

    /// Closes the sockets at addresses that are not to be kept; done once the workers have accepted what waited there.
    pub(super) fn close_except(
        &mut self,
        keep: &dyn Fn(SocketAddr) -> bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.failed.retain(|(port, ip), _| keep(SocketAddr::new(*ip, *port)));
        let (done, mut all_done) = mpsc::channel(1);
        self.open.retain(|_, Open { address, workers }| {
            let keep = keep(*address);
            if !keep {
                self.state.budget.unlisten(workers.len());
                for worker in self.workers.get(workers.clone()).into_iter().flatten() {
                    // Fails only when the worker's thread is gone, and its sockets with it.
                    let _ = worker.send(WorkerCommand::Close(*address, done.clone()));
                }
            }
            keep
        });
        drop(done);
        async move {
            if timeout(CLOSE_LIMIT, all_done.recv()).await.is_err() {
                tracing::warn!(
                    "a worker took longer than {CLOSE_LIMIT:?} to close its listening sockets; going on"
                );
            }
        }
    }

    /// Gives no worker anything any more, which ends them.
    pub(super) fn forget_workers(&mut self) {
        self.workers.clear();
    }

    /// Gives new sockets to their workers.
    pub(super) fn hand_over(&mut self) {
        for (address, worker, socket) in self.fresh.drain(..) {
            if let Some(worker) = self.workers.get(worker) {
                let _ = worker.send(WorkerCommand::Listen(address, socket));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;
    use crate::connection::relay_state::tests::state;

    /// Two workers, and what they are told.
    fn sockets() -> (OpenSockets, Vec<mpsc::UnboundedReceiver<WorkerCommand>>) {
        let (workers, told) = (0..2).map(|_| mpsc::unbounded_channel()).unzip();
        (OpenSockets::new(workers, state()), told)
    }

    fn opening(spread: bool) -> OpenMode {
        OpenMode { spread, ahead: false }
    }

    /// An address that no other test has.
    fn free() -> SocketAddr {
        TcpListener::bind(("127.8.255.3", 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_port_that_is_not_spread_is_one_workers() {
        let (mut sockets, mut told) = sockets();
        let (spread, one) = (free(), free());
        sockets.begin();
        sockets.open(spread, opening(true)).unwrap();
        sockets.open(one, opening(false)).unwrap();
        sockets.hand_over();
        for (worker, told) in told.iter_mut().enumerate() {
            let mut addresses = Vec::new();
            while let Ok(WorkerCommand::Listen(address, _)) = told.try_recv() {
                addresses.push(address);
            }
            let its_own = (usize::from(one.port()) % 2 == worker).then_some(one);
            assert_eq!(addresses, [spread].into_iter().chain(its_own).collect::<Vec<_>>());
        }
        assert_eq!(sockets.state.budget.read().used, 3);
    }

    #[test]
    fn what_takes_too_long_is_put_off_and_gone_on_with() {
        let (mut sockets, _told) = sockets();
        let (first, second) = (free(), free());
        sockets.begin();
        sockets.open(first, opening(true)).unwrap();
        sockets.until = Instant::now();
        assert_eq!(sockets.open(second, opening(true)), Err(BindError::Opening));
        assert!(sockets.has_put_off() && !sockets.is_open(second));
        sockets.begin();
        assert!(!sockets.has_put_off());
        sockets.open(second, opening(true)).unwrap();
    }

    #[test]
    fn what_cannot_be_bound_is_tried_once_in_each_round_and_keeps_its_reason() {
        let (mut sockets, _told) = sockets();
        let stranger = TcpListener::bind(("127.8.255.3", 0)).unwrap();
        let (taken, other) = (stranger.local_addr().unwrap(), free());
        sockets.begin();
        assert_eq!(sockets.open(taken, opening(true)), Err(BindError::InUseEphemeral));
        drop(stranger);
        sockets.until = Instant::now();
        assert_eq!(sockets.open(other, opening(true)), Err(BindError::Opening));
        // The round goes on with those that were not tried, or it would never end.
        sockets.begin();
        assert_eq!(sockets.open(taken, opening(true)), Err(BindError::InUseEphemeral));
        sockets.open(other, opening(true)).unwrap();
        // In the next round it is tried again; until then it is as it was.
        sockets.begin();
        sockets.until = Instant::now();
        assert_eq!(sockets.open(taken, opening(true)), Err(BindError::InUseEphemeral));
        assert!(sockets.has_put_off());
        sockets.begin();
        sockets.open(taken, opening(true)).unwrap();
    }
}
