//! The sockets of checks: how many there may be, and those that TCP checks reuse.
//!
//! Making, registering and closing a socket costs nearly as much as its connection: in a loop of bare system calls on
//! loopback, 21 us for a check with a new socket and 13.7 us with one that is reused. The sequence numbers of such a socket
//! continue from one connection to the next instead of beginning at a random one (RFC 6528). An attacker who guesses one has a
//! connection that carries nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_tcp_quickack};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::machine::local_ports::may_meet_itself;
use crate::relay::socket::Socket;
use crate::upstream::source::{ConnectError, Sources};

/// Most sockets of checks at a time, in use or free. This is enough for 10 000 backends that are checked once a second and answer
/// within 100 ms.
const AT_A_TIME: usize = 1024;

/// The sockets of all checks of this member.
#[derive(Debug)]
pub(super) struct CheckSockets {
    source: Sources,
    places: Semaphore,
    free: Mutex<Free>,
}

/// Sockets that nobody uses. They are not connected, and are bound where a source address is configured.
#[derive(Debug, Default)]
struct Free {
    v4: Stack,
    v6: Stack,
}

/// The free sockets of one family. The last one used is taken next, so that those that are not needed stay at the bottom.
#[derive(Debug, Default)]
struct Stack {
    legs: Vec<Socket>,
    /// The smallest number of free sockets since the last sweep.
    least: usize,
}

impl Stack {
    fn pop(&mut self) -> Option<Socket> {
        let leg = self.legs.pop();
        self.least = self.least.min(self.legs.len());
        leg
    }

    fn sweep(&mut self) {
        self.legs.drain(..self.least);
        self.least = self.legs.len();
    }
}

impl Free {
    fn of(&mut self, address: SocketAddr) -> &mut Stack {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    fn shrink(&mut self, most: usize) {
        while self.v4.legs.len() + self.v6.legs.len() > most {
            drop(self.v6.pop().or_else(|| self.v4.pop()));
        }
    }
}

impl CheckSockets {
    /// The sockets of checks that come from `source`.
    pub(super) fn new(source: Sources) -> Self {
        Self { source, places: Semaphore::new(AT_A_TIME), free: Mutex::default() }
    }

    /// Begins to connect from the source address of checks.
    ///
    /// # Errors
    /// What this member lacks, or an error that connect(2) reports at once.
    pub(super) fn connect<T>(
        &self,
        address: SocketAddr,
        prepare: impl Fn(&OwnedFd) -> io::Result<()>,
        connect: impl Fn(OwnedFd) -> io::Result<T>,
    ) -> Result<T, ConnectError> {
        // Connections report what one of several addresses lacks.
        self.source.connect(address, prepare, connect, |_| {})
    }

    /// Waits until one more check may begin. It may have one socket until the permit is dropped. The answer is never `None`,
    /// because nobody closes the semaphore.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }

    /// Closes free sockets where a new one needs their place.
    pub(super) fn make_room(&self) {
        self.free().shrink(self.places.available_permits());
    }

    /// Closes the free sockets that nobody needed since the last sweep.
    pub(super) fn sweep(&self) {
        let mut free = self.free();
        free.v4.sweep();
        free.v6.sweep();
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, and resets the connection.
    ///
    /// The final acknowledgement is held back, as in HAProxy's checks. The reset comes first, so the backend's program never
    /// learns of a connection that carries nothing.
    ///
    /// # Errors
    /// Why there is no connection; `TimedOut` without a number after `limit`.
    pub(super) async fn reach(&self, address: SocketAddr, limit: Duration) -> Result<(), ConnectError> {
        let leg = self.begin(address)?;
        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
        timeout(limit, leg.connected()).await.map_err(timed_out)??;
        if may_meet_itself(address) && leg.local_addr()? == address {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        }
        // After a failure the socket is closed, so that one check never sees the error of another.
        if stays_plain(address) && leg.disconnect().is_ok() {
            self.free().of(address).legs.push(leg);
        }
        Ok(())
    }

    /// Begins to connect with a socket that is reset when it is closed.
    fn begin(&self, address: SocketAddr) -> Result<Socket, ConnectError> {
        let free = self.free().of(address).pop();
        if let Some(leg) = free {
            // Disconnecting a socket resets this setting, unlike the others (tcp_disconnect in Linux).
            set_tcp_quickack(&leg, false).map_err(io::Error::from)?;
            // Where that fails at once, a new socket tells the reason, perhaps from another address.
            if leg.reconnect(address).is_ok() {
                return Ok(leg);
            }
        }
        self.make_room();
        let prepare = |socket: &OwnedFd| {
            set_socket_linger(socket, Some(Duration::ZERO))?;
            Ok(set_tcp_quickack(socket, false)?)
        };
        self.connect(address, prepare, |socket| Socket::connect(socket, address))
    }
}

/// Whether a socket that was connected to this address can be connected to any other of its family. A mapped IPv4 address
/// limits it to IPv4 for ever, and an address with a scope binds it to an interface.
fn stays_plain(address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(_) => true,
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().is_none() && v6.scope_id() == 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

    use super::*;
    use crate::relay::reactor::tests::on_worker;

    const PATIENT: Duration = Duration::from_secs(10);

    fn sockets() -> CheckSockets {
        CheckSockets::new(Sources::default())
    }

    fn listener(ip: impl Into<IpAddr>) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((ip.into(), 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Whether an error is not caused by something that this member lacks.
    fn peers(error: ConnectError) -> io::Error {
        match error {
            ConnectError::Peer(error) => error,
            ConnectError::Own(shortage) => panic!("{shortage}"),
        }
    }

    /// How many sockets are free, of each family.
    fn free(sockets: &CheckSockets) -> (usize, usize) {
        let free = sockets.free();
        (free.v4.legs.len(), free.v6.legs.len())
    }

    #[test]
    fn a_socket_is_used_again_and_nothing_is_left_of_its_connections() {
        on_worker(async {
            let (one, other) = (listener(Ipv4Addr::LOCALHOST), listener([127, 0, 0, 2]));
            let v6 = listener(Ipv6Addr::LOCALHOST);
            let sockets = sockets();
            for _ in 0..3 {
                for (listener, address) in [&one, &other, &v6] {
                    sockets.reach(*address, PATIENT).await.unwrap();
                    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
                }
            }
            assert_eq!(free(&sockets), (1, 1));
        });
    }

    #[test]
    fn a_socket_that_was_connected_finds_what_is_wrong_as_a_new_one_does() {
        on_worker(async {
            let ((kept, good), (closed, bad)) =
                (listener(Ipv4Addr::LOCALHOST), listener(Ipv4Addr::LOCALHOST));
            drop(closed);
            let sockets = sockets();
            for _ in 0..2 {
                sockets.reach(good, PATIENT).await.unwrap();
                let refused = sockets.reach(bad, PATIENT).await.map_err(peers).unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
                assert_eq!(free(&sockets), (0, 0), "a socket that failed is not used again");
            }
            sockets.reach(good, PATIENT).await.unwrap();
            // What connect(2) says at once: no such address can be connected to.
            let broadcast = SocketAddr::from((Ipv4Addr::BROADCAST, good.port()));
            let fresh = CheckSockets::new(Sources::default())
                .reach(broadcast, PATIENT)
                .await
                .map_err(peers)
                .unwrap_err();
            let again = sockets.reach(broadcast, PATIENT).await.map_err(peers).unwrap_err();
            assert_eq!(again.raw_os_error(), fresh.raw_os_error());
            assert!(again.raw_os_error().is_some());
            drop(kept);
        });
    }

    #[test]
    fn a_backend_that_says_nothing_is_given_up_in_time() {
        on_worker(async {
            let (full, address) = listener(Ipv4Addr::LOCALHOST);
            // A queue of one, with as many connections as it takes; more are not answered.
            rustix::net::listen(&full, 0).unwrap();
            let _waiting = std::net::TcpStream::connect(address).unwrap();
            let (_kept, good) = listener(Ipv4Addr::LOCALHOST);
            let sockets = sockets();
            for _ in 0..2 {
                sockets.reach(good, PATIENT).await.unwrap();
                let late =
                    sockets.reach(address, Duration::from_millis(50)).await.map_err(peers).unwrap_err();
                assert_eq!((late.kind(), late.raw_os_error()), (io::ErrorKind::TimedOut, None));
                assert_eq!(free(&sockets), (0, 0));
            }
        });
    }

    #[test]
    fn the_source_address_is_kept() {
        on_worker(async {
            let v4 = Ipv4Addr::new(127, 0, 0, 7);
            let sockets = CheckSockets::new([v4.into(), Ipv6Addr::LOCALHOST.into()].into_iter().collect());
            for ((_kept, address), source) in [
                (listener(Ipv4Addr::LOCALHOST), IpAddr::V4(v4)),
                (listener(Ipv6Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ] {
                let mut leg = sockets.begin(address).unwrap();
                for _ in 0..3 {
                    leg.connected().await.unwrap();
                    assert_eq!(leg.local_addr().unwrap().ip(), source);
                    leg.disconnect().unwrap();
                    sockets.free().of(address).legs.push(leg);
                    leg = sockets.begin(address).unwrap();
                    assert_eq!(free(&sockets), (0, 0));
                }
            }
        });
    }

    #[test]
    fn mapped_addresses_have_sockets_of_their_own() {
        on_worker(async {
            let (_both, bound) = listener(Ipv6Addr::UNSPECIFIED);
            let sockets = sockets();
            for (ip, kept) in [(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0), (Ipv6Addr::LOCALHOST, 1)] {
                sockets.reach(SocketAddr::from((ip, bound.port())), PATIENT).await.unwrap();
                assert_eq!(free(&sockets), (0, kept));
            }
        });
    }

    #[test]
    fn free_sockets_take_no_place_and_are_closed_when_nobody_needs_them() {
        on_worker(async {
            let (_kept, address) = listener(Ipv4Addr::LOCALHOST);
            let sockets = sockets();
            let together = async |most: u32| {
                let legs: Vec<_> = (0..most).map(|_| sockets.begin(address).unwrap()).collect();
                for leg in legs {
                    leg.connected().await.unwrap();
                    leg.disconnect().unwrap();
                    sockets.free().of(address).legs.push(leg);
                }
            };
            together(8).await;
            assert_eq!(free(&sockets), (8, 0));
            sockets.sweep();
            together(3).await;
            assert_eq!(free(&sockets), (8, 0), "eight were in use since the sweep before");
            sockets.sweep();
            assert_eq!(free(&sockets), (3, 0));
            let places = sockets.places.acquire_many(AT_A_TIME as u32 - 1).await.unwrap();
            sockets.make_room();
            assert_eq!(free(&sockets), (1, 0));
            drop(places);
            sockets.sweep();
            sockets.sweep();
            assert_eq!(free(&sockets), (0, 0));
        });
    }
}
