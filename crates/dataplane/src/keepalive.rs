//! Noticing peers that are gone without a word.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// When a leg whose peer does not answer is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keepalive {
    /// Silence before the first probe; whole seconds.
    pub(crate) time: Duration,
    /// Between two probes; whole seconds.
    pub(crate) interval: Duration,
    /// Probes without an answer after which the peer is gone.
    pub(crate) count: u32,
    /// How long sent bytes or probes may go unacknowledged; bounds retransmission too, which the kernel otherwise keeps
    /// up for about 15 minutes (tcp(7), `TCP_USER_TIMEOUT` and `tcp_retries2`).
    pub(crate) user_timeout: Duration,
}

impl Default for Keepalive {
    /// Two minutes for a peer that vanishes, whether or not bytes are under way.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 6,
            user_timeout: Duration::from_secs(120),
        }
    }
}

impl Keepalive {
    /// Sets it on a socket. Linux hands it down from a listening socket to those that are accepted there.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub(crate) fn apply(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        let user_timeout = u32::try_from(self.user_timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_socket_keepalive(socket, true)?;
        sockopt::set_tcp_keepidle(socket, self.time)?;
        sockopt::set_tcp_keepintvl(socket, self.interval)?;
        sockopt::set_tcp_keepcnt(socket, self.count)?;
        sockopt::set_tcp_user_timeout(socket, user_timeout)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::net::{TcpListener, TcpStream};

    use super::*;

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
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&accepted).unwrap()), set.user_timeout.as_millis());
    }
}
