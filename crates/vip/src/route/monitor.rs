//! Changes of links and addresses, as the kernel announces them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;

use super::{Assigned, Interface, parsed};
use crate::netlink::{Socket, messages};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// One change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RouteChange {
    /// An interface is new, or something about it is.
    Link(Interface),
    /// An interface is gone.
    LinkGone(u32),
    /// An address is gone.
    AddressGone { index: u32, address: IpAddr },
    /// An address of the host itself, by which the place of virtual IPs goes, came, changed or went.
    OwnAddress { index: u32 },
    /// The kernel had more to say than the socket holds.
    Missed,
}

/// Hears of changes.
#[derive(Debug)]
pub(crate) struct RouteMonitor {
    socket: Socket,
}

impl RouteMonitor {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(None, GROUPS)? })
    }

    /// All that has happened since the last look; empty when nothing has.
    pub(crate) fn waiting(&mut self) -> io::Result<Vec<RouteChange>> {
        let mut found = Vec::new();
        loop {
            match self.socket.receive_waiting() {
                Ok(None) => return Ok(found),
                Ok(Some(bytes)) => {
                    found.extend(messages(bytes).filter_map(|m| parsed(m.whole)).flat_map(|m| read(&m)));
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => found.push(RouteChange::Missed),
                Err(error) => return Err(error),
            }
        }
    }
}

fn read(message: &RouteNetlinkMessage) -> Vec<RouteChange> {
    let own =
        |found: &Assigned| found.is_hosts_own().then_some(RouteChange::OwnAddress { index: found.index });
    match message {
        // Bridges announce their ports in a family of their own, with half of the attributes.
        RouteNetlinkMessage::NewLink(link) if u8::from(link.header.interface_family) == 0 => {
            vec![RouteChange::Link(Interface::read(link))]
        }
        RouteNetlinkMessage::DelLink(link) if u8::from(link.header.interface_family) == 0 => {
            vec![RouteChange::LinkGone(link.header.index)]
        }
        RouteNetlinkMessage::NewAddress(address) => Assigned::read(address).iter().filter_map(own).collect(),
        RouteNetlinkMessage::DelAddress(address) => match Assigned::read(address) {
            Some(gone) => [RouteChange::AddressGone { index: gone.index, address: gone.address }]
                .into_iter()
                .chain(own(&gone))
                .collect(),
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

impl AsFd for RouteMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
