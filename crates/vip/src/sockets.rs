//! Sockets that speak ARP and neighbour discovery.

use std::io;
use std::mem::size_of;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, sendto,
    socket_with,
};
use socket2::{Domain, SockFilter, Socket, Type};

use crate::frames::{Heard, NEIGHBOUR_ADVERTISEMENT, read_advertisement, read_arp};

/// No message of interest is longer.
const RECEIVE_BYTES: usize = 256;

/// The ARP of one interface: sends frames, hears everybody else's.
#[derive(Debug)]
pub(crate) struct ArpSocket {
    pub(crate) index: u32,
    fd: OwnedFd,
}

/// `struct sockaddr_ll`: where a packet socket is bound.
struct LinkAddress(libc::sockaddr_ll);

// SAFETY: `f` gets a pointer to the whole of a `sockaddr_ll` that outlives the call, and its size.
#[expect(unsafe_code, reason = "rustix has no type for this kind of address")]
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        const LENGTH: SocketAddrLen = size_of::<libc::sockaddr_ll>() as SocketAddrLen;
        f((&raw const self.0).cast(), LENGTH)
    }
}

impl ArpSocket {
    pub(crate) fn open(index: u32) -> io::Result<Self> {
        // Bound before it names a protocol, so that it never hears other interfaces.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None::<Protocol>)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
            sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        bind(&fd, &LinkAddress(address))?;
        Ok(Self { index, fd })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(&self.fd, frame, SendFlags::empty())?;
        Ok(())
    }

    /// The next claim that has been heard; `None` when there is none yet.
    pub(crate) fn heard(&self) -> Option<Heard> {
        heard(&self.fd, read_arp)
    }
}

impl AsFd for ArpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Neighbour discovery on every interface. What it sends passes the fence's `out` chain like anything else that is sent.
#[derive(Debug)]
pub(crate) struct NeighborSocket(Socket);

impl NeighborSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = icmpv6_socket()?;
        // Load the type; keep the message if it is an advertisement, else none of it (classic BPF).
        socket.attach_filter(&[
            SockFilter::new(0x30, 0, 0, 0),
            SockFilter::new(0x15, 0, 1, u32::from(NEIGHBOUR_ADVERTISEMENT)),
            SockFilter::new(0x06, 0, 0, u32::MAX),
            SockFilter::new(0x06, 0, 0, 0),
        ])?;
        Ok(Self(socket))
    }

    /// Sends a message about an address of this machine, from that address (RFC 4861 §4.4), which is what the fence goes by.
    pub(crate) fn send_from(from: Ipv6Addr, message: &[u8], to: Ipv6Addr, index: u32) -> io::Result<()> {
        let socket = icmpv6_socket()?;
        socket.bind(&SocketAddrV6::new(from, 0, 0, 0).into())?;
        sendto(&socket, message, SendFlags::empty(), &SocketAddrV6::new(to, 0, 0, index))?;
        Ok(())
    }

    /// Sends a message to a multicast group on an interface.
    pub(crate) fn send(&self, message: &[u8], to: Ipv6Addr, index: u32) -> io::Result<()> {
        sendto(&self.0, message, SendFlags::empty(), &SocketAddrV6::new(to, 0, 0, index))?;
        Ok(())
    }

    /// The next claim that has been heard; `None` when there is none yet.
    pub(crate) fn heard(&self) -> Option<Heard> {
        heard(&self.0, read_advertisement)
    }
}

impl AsFd for NeighborSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn icmpv6_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(socket2::Protocol::ICMPV6))?;
    // Neighbours ignore whatever may have come through a router (RFC 4861 §7.1).
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_loop_v6(false)?;
    Ok(socket)
}

/// Messages and errors that mean nothing here are passed over; an interface that goes down leaves one in the socket.
fn heard(fd: impl AsFd, read: impl Fn(&[u8]) -> Option<Heard>) -> Option<Heard> {
    /// At most this many at a time, so that a flood cannot keep the thread from its other work.
    const AT_A_TIME: usize = 64;
    let mut buffer = [0; RECEIVE_BYTES];
    for _ in 0..AT_A_TIME {
        match recv(&fd, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((received, _)) => {
                if let Some(found) = read(&buffer[..received]) {
                    return Some(found);
                }
            }
            Err(rustix::io::Errno::AGAIN) => return None,
            Err(_) => (),
        }
    }
    None
}
