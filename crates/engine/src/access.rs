//! Who may connect.

use std::net::IpAddr;

use trestle_model::Cidr;

/// Whether a client at `ip` may connect: it is in none of the denied networks, and in one of the allowed ones or there
/// are none. How long prefixes are makes no difference. An IPv4 address that comes mapped into IPv6 counts as IPv4.
pub fn is_admitted(allow: &[Cidr], deny: &[Cidr], ip: IpAddr) -> bool {
    let within = |networks: &[Cidr]| networks.iter().any(|network| network.contains(ip));
    !within(deny) && (allow.is_empty() || within(allow))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|text| Cidr::parse(text).unwrap()).collect()
    }

    fn admitted(allow: &[&str], deny: &[&str], ip: &str) -> bool {
        is_admitted(&networks(allow), &networks(deny), ip.parse().unwrap())
    }

    #[test]
    fn empty_lists_admit_all() {
        assert!(admitted(&[], &[], "192.0.2.1") && admitted(&[], &[], "2001:db8::1"));
    }

    #[test]
    fn deny_wins_however_short() {
        assert!(!admitted(&["10.1.2.3"], &["10.0.0.0/8"], "10.1.2.3"));
        assert!(!admitted(&["0.0.0.0/0"], &["10.1.2.3"], "10.1.2.3"));
        assert!(admitted(&["10.0.0.0/8"], &["10.1.2.3"], "10.1.2.4"));
    }

    #[test]
    fn what_is_not_allowed_is_refused_of_either_family() {
        assert!(
            !admitted(&["10.0.0.0/8"], &[], "11.0.0.1") && !admitted(&["10.0.0.0/8"], &[], "2001:db8::1")
        );
        assert!(!admitted(&["2001:db8::/32"], &[], "10.0.0.1"));
        assert!(admitted(&["10.0.0.0/8", "2001:db8::/32"], &[], "2001:db8::1"));
    }

    fn v4_network() -> impl Strategy<Value = Cidr> {
        (any::<u32>(), 0u32..=32).prop_map(|(bits, prefix)| {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Cidr::parse(&format!("{}/{prefix}", Ipv4Addr::from(bits & mask))).unwrap()
        })
    }

    proptest! {
        #[test]
        fn mapped_addresses_are_judged_as_ipv4(
            allow in prop::collection::vec(v4_network(), 0..4),
            deny in prop::collection::vec(v4_network(), 0..4),
            bits in any::<u32>(),
        ) {
            let (v4, mapped) = (Ipv4Addr::from(bits), Ipv4Addr::from(bits).to_ipv6_mapped());
            let as_v4 = is_admitted(&allow, &deny, v4.into());
            prop_assert_eq!(as_v4, is_admitted(&allow, &deny, mapped.into()));
        }

        #[test]
        fn more_denied_never_admits_more(
            allow in prop::collection::vec(v4_network(), 0..4), deny in v4_network(), bits in any::<u32>(),
        ) {
            let ip = IpAddr::from(Ipv4Addr::from(bits));
            prop_assert!(is_admitted(&allow, &[], ip) || !is_admitted(&allow, &[deny], ip));
            prop_assert!(!deny.contains(ip) || !is_admitted(&allow, &[deny], ip));
        }

        #[test]
        fn an_ipv4_list_admits_no_ipv6(allow in v4_network(), bits in any::<u128>()) {
            let ip = Ipv6Addr::from(bits);
            prop_assume!(ip.to_ipv4_mapped().is_none());
            prop_assert!(!is_admitted(&[allow], &[], ip.into()));
        }
    }
}
