//! The addresses of this machine that connections to backends come from.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::machine::shortage::Shortage;
use crate::relay::socket::Socket;

/// Own addresses to connect from, of either family; the system chooses where there is none. Several of a family take
/// turns, and each has as many local ports towards a backend as there are.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    v4: Arc<[IpAddr]>,
    v6: Arc<[IpAddr]>,
    /// Whose turn it is; for all that share this.
    turn: Arc<AtomicUsize>,
}

impl PartialEq for Sources {
    fn eq(&self, other: &Self) -> bool {
        (&self.v4, &self.v6) == (&other.v4, &other.v6)
    }
}

impl Eq for Sources {}

impl FromIterator<IpAddr> for Sources {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
        Self { v4: v4.into(), v6: v6.into(), turn: Arc::default() }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// For what this member itself lacks.
    Own(Shortage),
    /// For what the peer or the network says; `TimedOut` without a number for a time limit of ours.
    Peer(io::Error),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Shortage::of(&error).map_or(Self::Peer(error), Self::Own)
    }
}

impl Sources {
    /// The addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().chain(&*self.v6).copied()
    }

    fn of(&self, target: SocketAddr) -> &[IpAddr] {
        if target.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// Makes a socket that `prepare` sets options on and `connect` begins to connect to `target`: from the address whose
    /// turn it is, or from the next while this member lacks something there that it may have at another. The last result
    /// stands, and `lacks` hears of those before.
    ///
    /// # Errors
    /// What socket(2), bind(2) and connect(2) themselves say.
    pub(crate) fn connect<T>(
        &self,
        target: SocketAddr,
        prepare: impl Fn(&OwnedFd) -> io::Result<()>,
        connect: impl Fn(OwnedFd) -> io::Result<T>,
        lacks: impl Fn(&Shortage),
    ) -> Result<T, ConnectError> {
        let attempt = |source: Option<IpAddr>| {
            let socket = Socket::unconnected(target)?;
            prepare(&socket)?;
            if let Some(ip) = source {
                leave_port_to_connect(socket.as_fd())?;
                rustix::net::bind(&socket, &SocketAddr::new(ip, 0))?;
            }
            connect(socket)
        };
        let told = |error: io::Error, source| match Shortage::of_connect(&error, source, target) {
            Some(shortage) => ConnectError::Own(shortage),
            None => ConnectError::Peer(error),
        };
        let addresses = self.of(target);
        if addresses.is_empty() {
            return attempt(None).map_err(|error| told(error, None));
        }
        let first = self.turn.fetch_add(1, Relaxed) % addresses.len();
        let (before, from) = addresses.split_at(first);
        let mut turns = from.iter().chain(before).copied().peekable();
        loop {
            let source = turns.next();
            match attempt(source).map_err(|error| told(error, source)) {
                Err(ConnectError::Own(shortage)) if turns.peek().is_some() => lacks(&shortage),
                last => return last,
            }
        }
    }
}

/// Sets IP_BIND_ADDRESS_NO_PORT (ip(7)). Without it bind(2) takes a local port for this socket alone, and all backends
/// together get no more connections than there are ports; connect(2) may use a port once for each backend.
#[expect(unsafe_code, reason = "neither rustix nor socket2 has this option")]
fn leave_port_to_connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `length` bytes from `on`,
    // which is as long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
