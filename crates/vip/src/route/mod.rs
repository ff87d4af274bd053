//! Links and addresses of this machine, asked for and changed over rtnetlink.

mod changes;

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, Prop};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::event::Mac;
use crate::netlink::{NLMSG_DONE, NLMSG_ERROR, Socket, messages};
use crate::vip::Vip;

pub(crate) use changes::{Change, Changes};

/// Addresses that are valid for longer are not ours: those end with the lease, or two seconds after the process.
const LASTING_SECONDS: u32 = 60;

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
}

impl Assigned {
    fn read(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut address = None;
        let mut lifetime = u32::MAX;
        for attribute in &message.attributes {
            match attribute {
                // On point-to-point links IFA_ADDRESS is the other end; IFA_LOCAL is missing for IPv6.
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::CacheInfo(found) => lifetime = found.ifa_valid,
                _ => (),
            }
        }
        Some(Self {
            index: message.header.index,
            address: local.or(address)?,
            prefix: message.header.prefix_len,
            lasting: lifetime > LASTING_SECONDS,
        })
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
pub(crate) struct Route {
    socket: Socket,
}

impl Route {
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
        self.socket.send(&bytes)?;
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

    /// Every interface.
    pub(crate) fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let answers = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        let links = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Interface::read(link)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The interface with this name or alternative name.
    pub(crate) fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        Ok(self.interfaces()?.into_iter().find(|interface| interface.is_called(name)))
    }

    /// Every address.
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

    /// Adds the address, or renews it, for `seconds` from now. With `own_route`, its network gets a route too.
    pub(crate) fn put(&mut self, vip: &Vip, index: u32, seconds: u32, own_route: bool) -> io::Result<()> {
        let mut message = about(vip.address, vip.prefix, index);
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        // Not preferred: connections that this machine opens keep their own source address, which stays here when the
        // virtual one moves (RFC 6724 §5, rule 3). IPv4 prefers the interface's first address anyway.
        lifetime.ifa_preferred = if vip.address.is_ipv6() { 0 } else { seconds };
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        let mut flags = AddressFlags::empty();
        if vip.address.is_ipv6() {
            // The lease says already that nobody else has it; waiting for duplicates takes a second (RFC 4862 §5.4).
            flags |= AddressFlags::Nodad;
        }
        if !own_route {
            flags |= AddressFlags::Noprefixroute;
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags).map(drop)
    }

    /// Removes an address; one that is gone already, or went with its interface, is as well.
    pub(crate) fn remove(&mut self, address: IpAddr, prefix: u8, index: u32) -> io::Result<()> {
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
