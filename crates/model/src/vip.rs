//! Virtual IPs: addresses that one member at a time holds.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::usable_ip;
use crate::defaults;
use crate::metadata::Metadata;
use crate::name::{MemberName, VipName};
use crate::revision::Revision;
use crate::violation::{Violations, within};

/// Name of a network interface of Linux.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Arc<str>);

impl InterfaceName {
    /// Parses a name; the error is the broken rule.
    ///
    /// # Errors
    /// When the kernel would not take it: empty, longer than 15 bytes, `.` or `..`, or with a slash, colon, space or
    /// anything but printable ASCII.
    pub fn parse(text: &str) -> Result<Self, String> {
        // dev_valid_name in Linux' net/core/dev.c.
        let good = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if good {
            Ok(Self(text.into()))
        } else {
            Err("must be the name of an interface, as in eth0: 1 to 15 printable characters without / and :"
                .to_owned())
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address of a virtual IP with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipAddress {
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix that it is added to an interface with.
    pub prefix_len: u8,
}

impl VipAddress {
    /// Parses `10.0.3.100/24` or `2001:db8::100/64`; without a length the address stands alone (/32 or /128). The error is
    /// the broken rule.
    ///
    /// # Errors
    /// When it is neither, or not an address that hosts of a network can reach: a wildcard, loopback, link-local,
    /// multicast or broadcast one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be an address with the length of its prefix, as in 10.0.3.100/24".to_owned();
        let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
        let ip = usable_ip(ip.parse::<IpAddr>().map_err(|_| wrong())?)?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let prefix_len = match length {
            None => max,
            Some(length) if digits(length) => length.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        if !(1..=max).contains(&prefix_len) {
            return Err(format!("must have a prefix of 1 to {max} bits"));
        }
        let local = matches!(ip, IpAddr::V4(ip) if ip.is_link_local());
        if ip.is_unspecified() || ip.is_loopback() || local {
            return Err(
                "must be an address that other hosts reach, not a wildcard, loopback or link-local one"
                    .to_owned(),
            );
        }
        Ok(Self { ip, prefix_len })
    }

    /// What this address stands for in its prefix instead of a host: the network, or all its hosts. Every IPv4 network of up
    /// to /30 has both (RFC 919, RFC 3021), and every IPv6 network of up to /126 the first (RFC 4291, section 2.6.1).
    pub fn stands_for(&self) -> Option<&'static str> {
        let (max, bits) = match self.ip {
            IpAddr::V4(ip) => (32, u128::from(ip.to_bits())),
            IpAddr::V6(ip) => (128, ip.to_bits()),
        };
        let host = u32::from(max - self.prefix_len);
        if host < 2 {
            return None;
        }
        let mask = 1u128.checked_shl(host).map_or(u128::MAX, |bit| bit - 1);
        match bits & mask {
            0 => Some("the network address"),
            all if all == mask && self.ip.is_ipv4() => Some("the broadcast address"),
            _ => None,
        }
    }

    /// The name of a virtual IP that is given none: its address, with `-` for each colon of IPv6.
    ///
    /// # Errors
    /// When that is no name, as for `2001:db8::`; then it needs a name of its own.
    pub fn default_name(&self) -> Result<VipName, String> {
        VipName::parse(&self.ip.to_string().replace(':', "-"))
    }
}

impl fmt::Display for VipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// What becomes of a virtual IP whose holder loses the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnQuorumLoss {
    /// It is let go when the lease ends: at most one member serves it at any time.
    #[default]
    Release,
    /// The holder goes on while it runs and thinks that it leads. The other side of a split may elect a leader that serves
    /// the VIP too: *two holders are possible*. A holder that is stopped or killed still loses it within a lease.
    Hold,
}

/// The settings of a virtual IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipSpec {
    /// The address; it never changes.
    pub address: VipAddress,
    /// The interface that gets it; `None` for the one that has an address of the same network.
    pub interface: Option<InterfaceName>,
    /// Members on which it is another interface; at most 15.
    pub interface_overrides: BTreeMap<MemberName, InterfaceName>,
    /// What becomes of it when the quorum is lost.
    pub on_quorum_loss: OnQuorumLoss,
    /// Who shall hold it, best first; empty leaves it where it is. All VIPs are held by one member: of those with
    /// preferences, the one with the lowest address decides.
    pub preferred: Vec<MemberName>,
    /// How long a preferred member must have been fit before the VIP goes to it.
    pub preference_delay: Duration,
    /// Who cares for it, and notes.
    pub metadata: Metadata,
}

impl VipSpec {
    /// A virtual IP with default settings.
    pub fn new(address: VipAddress) -> Self {
        Self {
            address,
            interface: None,
            interface_overrides: BTreeMap::new(),
            on_quorum_loss: OnQuorumLoss::default(),
            preferred: Vec::new(),
            preference_delay: defaults::PREFERENCE_DELAY,
            metadata: Metadata::default(),
        }
    }

    /// The interface that gets it on this member, if its settings name one.
    pub fn interface_on(&self, member: &MemberName) -> Option<&InterfaceName> {
        self.interface_overrides.get(member).or(self.interface.as_ref())
    }

    /// Every member that the settings name.
    pub fn members(&self) -> impl Iterator<Item = (&'static str, &MemberName)> {
        let overridden = self.interface_overrides.keys().map(|name| ("vip.interface_overrides", name));
        overridden.chain(self.preferred.iter().map(|name| ("vip.preferred", name)))
    }

    /// Notes every setting that breaks a rule.
    pub fn check(&self, v: &mut Violations) {
        let max = defaults::MEMBERS_MAX;
        let lists = [
            ("vip.interface_overrides", self.interface_overrides.len()),
            ("vip.preferred", self.preferred.len()),
        ];
        for (field, count) in lists.into_iter().filter(|(_, count)| *count > max) {
            v.add(field, format!("{count} entries"), format!("must be at most {max}"));
        }
        for (i, name) in self.preferred.iter().enumerate() {
            if self.preferred.iter().take(i).any(|before| before == name) {
                v.add("vip.preferred", name, "must not be named twice");
            }
        }
        self.check_numbers(v);
        self.metadata.check("vip", v);
    }

    /// Notes every duration that is out of bounds.
    pub fn check_numbers(&self, v: &mut Violations) {
        within(v, "vip.preference_delay", &self.preference_delay, &defaults::PREFERENCE_DELAY_BOUNDS);
    }
}

/// A virtual IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// Its name.
    pub name: VipName,
    /// Its settings.
    pub spec: VipSpec,
    /// Revision that last changed it.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_stand_for_no_host_of_its_prefix() {
        let stands = |text| VipAddress::parse(text).unwrap().stands_for();
        for network in ["10.78.0.0/24", "10.78.0.4/30", "10.0.0.0/8", "2001:db8::/64", "2001:db8::4/126"] {
            assert_eq!(stands(network), Some("the network address"), "{network}");
        }
        for broadcast in ["10.78.0.255/24", "10.78.0.7/30", "10.255.255.255/8"] {
            assert_eq!(stands(broadcast), Some("the broadcast address"), "{broadcast}");
        }
        for host in [
            "10.78.0.1/24",
            "10.78.0.255/16",
            "10.78.0.0",
            "10.78.0.0/31",
            "10.78.0.1/31",
            "2001:db8::/127",
            "2001:db8::ffff:ffff:ffff:ffff/64",
        ] {
            assert_eq!(stands(host), None, "{host}");
        }
    }

    #[test]
    fn addresses_round_trip() {
        for text in ["10.0.3.100/24", "10.0.3.100/32", "2001:db8::100/64", "fd00::1/128"] {
            assert_eq!(VipAddress::parse(text).map(|a| a.to_string()), Ok(text.to_owned()));
        }
        let alone = |text| VipAddress::parse(text).map(|a| a.prefix_len);
        assert_eq!((alone("10.0.3.100"), alone("2001:db8::1")), (Ok(32), Ok(128)));
    }

    #[test]
    fn addresses_that_no_client_reaches_are_refused() {
        for text in [
            "",
            "/24",
            "10.0.3.100/",
            "10.0.3.100/0",
            "10.0.3.100/33",
            "10.0.3.100/+4",
            "10.0.3.100/24/1",
            "10.0.3/24",
            "eth0",
            "0.0.0.0/8",
            "127.0.0.1/8",
            "169.254.0.1/16",
            "224.0.0.1/24",
            "255.255.255.255/32",
            "::/0",
            "::1/128",
            "fe80::1/64",
            "ff02::1/16",
            "::ffff:10.0.0.1/128",
            "2001:db8::1/129",
        ] {
            assert!(VipAddress::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_names_its_vip() {
        let name = |text| VipAddress::parse(text).and_then(|a| a.default_name()).map(|n| n.to_string());
        assert_eq!(name("10.0.3.100/24"), Ok("10.0.3.100".to_owned()));
        assert_eq!(name("2001:db8::100/64"), Ok("2001-db8--100".to_owned()));
        assert!(name("2001:db8::/64").is_err());
    }

    #[test]
    fn interfaces_are_named_as_the_kernel_names_them() {
        for name in ["eth0", "br-lan", "bond0.100", "enp0s31f6", "wg_0", "vlan@1"] {
            assert!(InterfaceName::parse(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "eth0:1", "eth 0", "sixteen-letters-", "eth\n", "é"] {
            assert!(InterfaceName::parse(name).is_err(), "{name:?}");
        }
    }
}
