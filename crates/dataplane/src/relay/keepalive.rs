//! Noticing peers that are gone without a word.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;
use trestle_model::defaults;

use crate::relay::socket_options;

/// When a connection whose peer does not answer is given up. [`crate::relay::peer_watch`] looks after unacknowledged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// Silence before the first probe; whole seconds.
    pub(crate) time: Duration,
    /// Between two probes; whole seconds.
    pub(crate) interval: Duration,
    /// Probes without an answer after which the peer is gone.
    pub(crate) count: u32,
    /// Most time between two retransmissions, or probes of a closed window.
    pub(crate) retransmission_max: Duration,
}

impl Default for Keepalive {
    /// As pools have it by default.
    fn default() -> Self {
        Self::new(defaults::DEAD_PEER_TIMEOUT)
    }
}

impl Keepalive {
    /// Such that a peer that vanishes is given up after `timeout`, of whole seconds, at least [the least that a pool may
    /// have](defaults::DEAD_PEER_TIMEOUT_BOUNDS).
    pub(crate) fn new(timeout: Duration) -> Self {
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        let (time, interval) = (seconds / 2, (seconds / 12).max(1));
        Self {
            time: Duration::from_secs(time.into()),
            interval: Duration::from_secs(interval.into()),
            count: (seconds - time) / interval,
            retransmission_max: timeout / 4,
        }
    }

    /// Sets it on a socket. Linux hands it down from a listening socket to those that are accepted there.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub(crate) fn apply(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, self.time)?;
        sockopt::set_tcp_keepintvl(socket, self.interval)?;
        sockopt::set_tcp_keepcnt(socket, self.count)?;
        socket_options::set_retransmission_max(socket, self.retransmission_max);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn probes_take_as_long_as_the_timeout() {
        for seconds in [5, 6, 13, 60, 120, 900] {
            let set = Keepalive::new(Duration::from_secs(seconds));
            let all = set.time + set.interval * set.count;
            assert!(all.as_secs() <= seconds && all.as_secs() * 5 >= seconds * 4, "{seconds}: {set:?}");
        }
        let set = Keepalive::default();
        assert_eq!((set.time.as_secs(), set.interval.as_secs(), set.count), (60, 10, 6));
    }

    #[test]
    fn an_accepted_socket_inherits_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let set = Keepalive::default();
        set.apply(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), set.time);
        assert_eq!(sockopt::tcp_keepintvl(&accepted).unwrap(), set.interval);
        assert_eq!(sockopt::tcp_keepcnt(&accepted).unwrap(), set.count);
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), 0, "it would end peers that do not read");
    }
}
