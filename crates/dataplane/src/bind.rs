//! Listening sockets: opening them, and saying why one could not be opened.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};
use trestle_model::{Bind, ListenerName};

use crate::keepalive::Keepalive;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;

/// Why an address of a listener does not accept connections. Tried again at every drift interval.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error(
        "{0}: address already in use by another process; stop that process or choose another address or port"
    )]
    InUse(SocketAddr),
    /// It belongs to no interface of this member.
    #[error(
        "{0}: cannot assign requested address: it is not on this machine; add it to an interface or change the listener"
    )]
    NotHere(SocketAddr),
    /// Another listener means the same address on this member.
    #[error(
        "{address}: listener \"{listener}\" has this address on this member; choose another address or port for one of them"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// The listener that has it.
        listener: ListenerName,
    },
    /// This member is drained, and no virtual IP has this address.
    #[error("{0}: not listening: this member is drained")]
    Drained(SocketAddr),
    /// This member is stopping.
    #[error("{0}: not listening: this member is stopping")]
    Stopped(SocketAddr),
    /// The first checks of the backends that the listener leads to have not ended yet. Lasts two seconds at most.
    #[error("{0}: not listening yet: waits for the first checks of its backends")]
    Unchecked(SocketAddr),
    /// The operating system refused for another reason.
    #[error("{address}: cannot listen: {source}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(address),
            _ => Self::Refused { address, source },
        }
    }
}

/// The addresses that a configured one means on a member with this data address.
pub(crate) fn effective(bind: Bind, data_address: Option<IpAddr>) -> impl Iterator<Item = SocketAddr> {
    let own = data_address.filter(|own| bind.ip.is_unspecified() && own.is_ipv4() == bind.ip.is_ipv4());
    bind.sockets().map(move |socket| SocketAddr::new(own.unwrap_or(socket.ip()), socket.port()))
}

fn socket(address: SocketAddr, share: bool, ahead: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` means IPv6 only, so that it never takes what belongs to a listener on `0.0.0.0`.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    if ahead {
        // IP_FREEBIND of ip(7): any process may set it, and no sysctl has to be changed.
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listening(address: SocketAddr, ahead: bool) -> io::Result<TcpListener> {
    let socket = socket(address, true, ahead)?;
    // Linux hands these options down to accepted sockets, which saves six calls for each connection.
    socket.set_tcp_nodelay(true)?;
    Keepalive::default().apply(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Opens `count` listening sockets that share `address`.
///
/// With `alone`, first makes sure that nobody else listens there: a socket without SO_REUSEPORT is refused where any
/// other listens, while one with it would quietly share connections with another process of the same user.
///
/// With `ahead`, the address need not be on this machine: connections arrive as soon as it is, and the sockets stay open
/// when it goes.
pub(crate) fn open(
    address: SocketAddr,
    count: usize,
    alone: bool,
    ahead: bool,
) -> Result<Vec<TcpListener>, BindError> {
    let open = || -> io::Result<Vec<TcpListener>> {
        if alone {
            drop(socket(address, false, ahead)?);
        }
        (0..count).map(|_| listening(address, ahead)).collect()
    };
    open().map_err(|source| BindError::new(address, source))
}
