//! The addresses of this machine that connections to backends come from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Own addresses to connect from, of either family; the system chooses where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sources {
    /// For backends with an IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// For backends with an IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Sources {
    /// Binds a socket that is to be connected to `target`, if there is an address for its family.
    ///
    /// # Errors
    /// What bind(2) says, as for an address that is not on this machine.
    pub(crate) fn bind(&self, socket: impl AsFd, target: SocketAddr) -> io::Result<()> {
        let ip = match target {
            SocketAddr::V4(_) => self.v4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.v6.map(IpAddr::V6),
        };
        let Some(ip) = ip else { return Ok(()) };
        leave_port_to_connect(socket.as_fd())?;
        Ok(rustix::net::bind(socket, &SocketAddr::new(ip, 0))?)
    }
}

/// Sets IP_BIND_ADDRESS_NO_PORT (ip(7)). Without it bind(2) takes a local port for this socket alone, and all backends
/// together get no more connections than there are ports; connect(2) may use a port once for each backend.
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
