//! Links and addresses of this machine, asked for and changed over rtnetlink.

#[cfg(test)]
mod fuzz;
mod monitor;
mod placement;
mod promotion;

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
    CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, Prop};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::event::Mac;
use crate::netlink::{NLMSG_DONE, NLMSG_ERROR, Socket, messages};

pub(crate) use monitor::{RouteChange, RouteMonitor};
pub(crate) use placement::AddressPlacement;

/// Addresses that are valid for longer are not ours: those end with the lease, or two seconds after the process.
const LASTING_SECONDS: u32 = 60;

/// Says who added an address (IFA_PROTO, Linux 5.18 and later; `ip address` shows it as "proto 0x54"). The kernel gives it no
/// meaning, and keeps the numbers below 4 for itself (`linux/if_addr.h`).
const OURS: u8 = 0x54;

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alternative_names: Vec<String>,
    /// Ethernet address; `None` for loopback, tunnels and the like.
    pub(crate) mac: Option<Mac>,
    /// Taken up, and with a carrier.
    pub(crate) up: bool,
}

impl Interface {
    fn read(message: &LinkMessage) -> Self {
        let needed = LinkFlags::Up | LinkFlags::LowerUp;
        let mut found = Self {
            index: message.header.index,
            name: String::new(),
            alternative_names: Vec::new(),
            mac: None,
            up: message.header.flags.contains(needed),
        };
        let loopback = message.header.flags.contains(LinkFlags::Loopback);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => found.name.clone_from(name),
                LinkAttribute::Address(bytes) if !loopback => {
                    found.mac = bytes.as_slice().try_into().ok().map(Mac);
                }
                LinkAttribute::PropList(properties) => {
                    found.alternative_names.extend(properties.iter().filter_map(|p| match p {
                        Prop::AltIfName(name) => Some(name.clone()),
                        _ => None,
                    }));
                }
                _ => (),
            }
        }
        found
    }

    /// Whether this is what a configuration calls `name`.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternative_names.iter().any(|other| other == name)
    }
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) index: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    /// Without an end, or with one that is far: from a configuration file or a DHCP server, but not from us.
    pub(crate) lasting: bool,
    /// Added by Trestle; always false before Linux 5.18, which does not say.
    pub(crate) ours: bool,
    pub(crate) scope: AddressScope,
    /// It belongs to another one of the same network, and goes with that unless it is promoted.
    pub(crate) secondary: bool,
}

/// The prefix of an address that is a network by itself.
pub(crate) fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Assigned {
    fn read(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        let mut lifetime = u32::MAX;
        let mut ours = false;
        for attribute in &message.attributes {
            match attribute {
                // On point-to-point links IFA_ADDRESS is the other end; IFA_LOCAL is missing for IPv6.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::CacheInfo(found) => lifetime = found.ifa_valid,
                AddressAttribute::Protocol(protocol) => ours = u8::from(*protocol) == OURS,
                _ => (),
            }
        }
        // IFA_F_SECONDARY and IPv6's IFA_F_TEMPORARY are one bit.
        let address = local.or(address)?;
        let secondary = address.is_ipv4() && message.header.flags.contains(AddressHeaderFlags::Secondary);
        Some(Self {
            index: message.header.index,
            address,
            prefix: message.header.prefix_len,
            lasting: lifetime > LASTING_SECONDS,
            ours,
            scope: message.header.scope,
            secondary,
        })
    }

    /// Whether it is a virtual IP: of this member, or of another one in this network namespace.
    pub(crate) fn is_virtual(&self) -> bool {
        self.ours || (self.prefix == whole(self.address) && !self.lasting)
    }

    /// Whether `address` is in this one's network.
    pub(crate) fn shares_network(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.prefix)
    }
}

/// A socket for requests.
#[derive(Debug)]
pub(crate) struct RouteSocket {
    socket: Socket,
}

impl RouteSocket {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(None, 0)? })
    }

    /// Sends a request and reads its answer to the end.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.socket.number(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.exchange(&bytes, sequence)
    }

    /// Sends what is to be sent, and reads the answer to the end.
    fn exchange(&mut self, bytes: &[u8], sequence: u32) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.socket.send(bytes)?;
        let mut answers = Vec::new();
        loop {
            for found in messages(self.socket.receive()?).filter(|found| found.sequence == sequence) {
                if found.kind == NLMSG_ERROR || found.kind == NLMSG_DONE {
                    return found.error().map_or(Ok(answers), Err);
                }
                answers.extend(parsed(found.whole));
            }
        }
    }

    fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        let answers = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Every interface.
    pub(crate) fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        Ok(self.links()?.iter().map(Interface::read).collect())
    }

    /// The interface with this name or alternative name.
    pub(crate) fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        Ok(self.interfaces()?.into_iter().find(|interface| interface.is_called(name)))
    }

    /// Every address, those of an interface in the order in which the kernel goes through them.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Assigned>> {
        let answers = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        let addresses = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => Assigned::read(address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// The interface with the narrowest network that `address` is in, by its lasting addresses.
    pub(crate) fn interface_in(&mut self, address: IpAddr) -> io::Result<Option<String>> {
        let addresses = self.addresses()?;
        let around = addresses.iter().filter(|own| own.lasting && own.shares_network(address));
        let Some(narrowest) = around.max_by_key(|own| own.prefix) else { return Ok(None) };
        let interfaces = self.interfaces()?;
        Ok(interfaces.into_iter().find(|found| found.index == narrowest.index).map(|found| found.name))
    }

    /// Adds the address, or renews it, for `seconds` from now.
    ///
    /// It is a network by itself (/32 or /128) and brings no route: so it takes no address of the host's own network with it
    /// when it goes (`__inet_del_ifa` of `net/ipv4/devinet.c`), and no route names it as the source of what the host opens.
    pub(crate) fn put(
        &mut self,
        address: IpAddr,
        index: u32,
        seconds: u32,
        scope: AddressScope,
    ) -> io::Result<()> {
        let mut message = about(address, whole(address), index);
        message.header.scope = scope;
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        // Not preferred: connections that this machine opens keep their own source address, which stays here when the
        // virtual one moves (RFC 6724 §5, rule 3). For IPv4 the kernel goes by scope and order instead (see `place`), and
        // this tells programs that look for an address of this machine.
        lifetime.ifa_preferred = 0;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        let mut flags = AddressFlags::Noprefixroute;
        if address.is_ipv6() {
            // The lease says already that nobody else has it; waiting for duplicates takes a second (RFC 4862 §5.4).
            flags |= AddressFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OURS)));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    /// Removes a virtual IP; one that is gone already, or went with its interface, is as well.
    pub(crate) fn remove(&mut self, address: IpAddr, index: u32) -> io::Result<()> {
        self.remove_with(address, whole(address), index)
    }

    /// Removes an address as it was found. Others of its network stay, whatever the kernel does of itself: see [`promotion`].
    pub(crate) fn remove_found(&mut self, found: &Assigned) -> io::Result<()> {
        self.keeping_secondaries(found, |route| route.remove_with(found.address, found.prefix, found.index))
    }

    fn remove_with(&mut self, address: IpAddr, prefix: u8, index: u32) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(about(address, prefix, index));
        match self.request(message, NLM_F_ACK) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn about(address: IpAddr, prefix: u8, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// Messages that the library cannot read are left out: a newer kernel may send them.
fn parsed(message: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::deserialize(message).ok()?.payload {
        netlink_packet_core::NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}
