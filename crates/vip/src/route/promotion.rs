//! Removing an address of a version of Trestle that added it with the prefix of its network.
//!
//! Such an address can be the primary one of its network. With its removal the kernel removes all others of the network too,
//! the host's own among them, unless the interface promotes them (`promote_secondaries` of
//! Documentation/networking/ip-sysctl.rst; off by default).

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, LinkAttribute};

use super::{Assigned, RouteSocket, whole};

/// `RTM_SETLINK` of `linux/rtnetlink.h`.
const SET_LINK: u16 = 19;
/// `IFLA_AF_SPEC` and `IFLA_INET_CONF` of `linux/if_link.h`; `IPV4_DEVCONF_PROMOTE_SECONDARIES` of `linux/ip.h`.
const AF_SPEC: u16 = 26;
const INET_CONF: u16 = 1;
const PROMOTE_SECONDARIES: u16 = 20;
const NESTED: u16 = 0x8000;

impl RouteSocket {
    /// Carries out the removal of `found` with its secondaries promoted, whatever the interface is set to.
    pub(super) fn keeping_secondaries(
        &mut self,
        found: &Assigned,
        remove: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let primary = found.address.is_ipv4() && found.prefix < whole(found.address) && !found.secondary;
        if !primary || self.promotes_secondaries(found.index)? {
            return remove(self);
        }
        self.promote_secondaries(found.index, true)?;
        let removed = remove(self);
        // The host's setting is the host's.
        self.promote_secondaries(found.index, false).and(removed)
    }

    fn promotes_secondaries(&mut self, index: u32) -> io::Result<bool> {
        let links = self.links()?;
        let inet = links.iter().filter(|link| link.header.index == index).flat_map(|link| &link.attributes);
        let settings = inet.filter_map(|attribute| match attribute {
            LinkAttribute::AfSpecUnspec(families) => Some(families),
            _ => None,
        });
        let inet = settings.flatten().filter_map(|family| match family {
            AfSpecUnspec::Inet(inet) => Some(inet),
            _ => None,
        });
        Ok(inet
            .flatten()
            .any(|setting| matches!(setting, AfSpecInet::DevConf(conf) if conf.promote_secondaries != 0)))
    }

    /// What the library writes holds every setting of the interface; the kernel takes single ones.
    fn promote_secondaries(&mut self, index: u32, promote: bool) -> io::Result<()> {
        let sequence = self.socket.number(1);
        let setting = attribute(PROMOTE_SECONDARIES, &u32::from(promote).to_ne_bytes());
        let inet = attribute(INET_CONF | NESTED, &setting);
        let families = attribute(libc::AF_INET as u16 | NESTED, &inet);
        let body = attribute(AF_SPEC | NESTED, &families);
        // `struct nlmsghdr` and `struct ifinfomsg`: family, type, index, flags, mask of flags.
        let mut message = Vec::new();
        message.extend_from_slice(&u32::try_from(32 + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
        message.extend_from_slice(&SET_LINK.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend_from_slice(&sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&index.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&body);
        self.exchange(&message, sequence).map(drop)
    }
}

/// An attribute whose value is a whole number of words long.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}
