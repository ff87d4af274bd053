//! Where a virtual IP stands among the addresses of its interface, so that the kernel never takes it for the host's own.
//!
//! For IPv4 the kernel chooses the source of a connection whose route names none by going through the addresses of the
//! interface in their order, and takes the first whose scope is wide enough (`inet_select_addr` of `net/ipv4/devinet.c`; so do
//! masquerading, and programs that take the first address of a card for the host's). There is no flag that leaves an address
//! out. An address of scope "host" is never wide enough, but always stands before those of scope "global"; one of scope
//! "global" stands behind those that were there before. So beside a global address of the host a virtual IP is global and
//! behind it, and where there is none it has the scope "host".
//!
//! IPv6 leaves addresses out whose preferred lifetime is over, in whatever order they are (RFC 6724 §5, rule 3).

use std::net::IpAddr;

use netlink_packet_route::address::AddressScope;

use super::{Assigned, whole};

/// What is to be done for an address to stand where it belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AddressPlacement {
    /// Scope that it is to be added with.
    pub(crate) scope: AddressScope,
    /// Forms of it to be removed before it is added: out of place, with another prefix as earlier versions had it, or left on
    /// another interface. None of them is meant to last.
    pub(crate) misplaced: Vec<Assigned>,
}

impl AddressPlacement {
    /// For `address` on the interface `index`, `all` being all addresses in the kernel's order.
    pub(crate) fn of(address: IpAddr, index: u32, all: &[Assigned]) -> Self {
        let own = all.iter().position(|a| a.index == index && a.is_hosts_own());
        let scope = match own {
            None if address.is_ipv4() => AddressScope::Host,
            _ => AddressScope::Universe,
        };
        let in_place = |(at, found): (usize, &Assigned)| {
            let stands = address.is_ipv6() || (found.scope == scope && own.is_none_or(|own| own < at));
            found.index == index && found.prefix == whole(address) && stands
        };
        let forms = all.iter().enumerate().filter(|(_, found)| found.address == address);
        let misplaced = forms.filter(|form| !in_place(*form) && !form.1.lasting).map(|(_, found)| *found);
        Self { scope, misplaced: misplaced.collect() }
    }
}

impl Assigned {
    /// Whether the kernel may choose it as a source, and it is no virtual IP.
    pub(crate) fn is_hosts_own(&self) -> bool {
        self.address.is_ipv4()
            && self.scope == AddressScope::Universe
            && !self.secondary
            && !self.is_virtual()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(text: &str, index: u32, scope: AddressScope) -> Assigned {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address: IpAddr = address.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let prefix = prefix.parse().unwrap_or(0);
        let lasting = prefix != whole(address);
        Assigned { index, address, prefix, lasting, ours: !lasting, scope, secondary: false }
    }

    #[test]
    fn a_virtual_ip_stands_behind_the_hosts_own_or_is_out_of_scope() {
        let vip = IpAddr::from([192, 0, 2, 50]);
        let host = assigned("192.0.2.1/24", 2, AddressScope::Universe);
        let global = assigned("192.0.2.50/32", 2, AddressScope::Universe);
        let hidden = assigned("192.0.2.50/32", 2, AddressScope::Host);
        let other = assigned("192.0.2.51/32", 2, AddressScope::Universe);
        let elsewhere = assigned("198.51.100.1/24", 3, AddressScope::Universe);
        for (all, scope, misplaced) in [
            (vec![host], AddressScope::Universe, vec![]),
            (vec![host, global], AddressScope::Universe, vec![]),
            (vec![host, other, global], AddressScope::Universe, vec![]),
            // The host's own came later, or again.
            (vec![global, host], AddressScope::Universe, vec![global]),
            (vec![hidden, host], AddressScope::Universe, vec![hidden]),
            // It has gone, or was never there; another virtual IP is none.
            (vec![elsewhere, global], AddressScope::Host, vec![global]),
            (vec![hidden, other], AddressScope::Host, vec![]),
            (vec![other], AddressScope::Host, vec![]),
        ] {
            assert_eq!(AddressPlacement::of(vip, 2, &all), AddressPlacement { scope, misplaced }, "{all:?}");
        }
    }

    #[test]
    fn what_an_earlier_version_left_is_out_of_place_and_what_is_to_last_is_not_ours() {
        let vip = IpAddr::from([192, 0, 2, 50]);
        let lasting = assigned("192.0.2.50/24", 2, AddressScope::Universe);
        let wide = Assigned { lasting: false, ..lasting };
        assert_eq!(AddressPlacement::of(vip, 2, &[wide]).misplaced, [wide]);
        assert_eq!(AddressPlacement::of(vip, 2, &[lasting]).misplaced, []);

        let six: IpAddr = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50]);
        let narrow = Assigned { address: six, prefix: 128, ..wide };
        assert_eq!(AddressPlacement::of(six, 2, &[narrow]).misplaced, []);
        let wide = Assigned { prefix: 64, ..narrow };
        assert_eq!(AddressPlacement::of(six, 2, &[wide]).misplaced, [wide]);
        assert_eq!(AddressPlacement::of(six, 3, &[narrow]).misplaced, [narrow]);
    }
}
