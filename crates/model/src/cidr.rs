//! Networks, as lists of who may connect name them.

use std::fmt;
use std::net::IpAddr;

/// A network: an address and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    ip: IpAddr,
    prefix: u8,
}

/// The bits of an address, left-aligned.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Cidr {
    /// Parses `10.0.0.0/8`, `2001:db8::/32`, or an address, which stands for itself alone; the error is the broken rule.
    ///
    /// # Errors
    /// When it is neither, the prefix is too long, or the address has bits beyond the prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be a network as in 10.0.0.0/8 or 2001:db8::/32, or an address".to_owned();
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        if prefix > longest {
            return Err(format!("must have a prefix of 0 to {longest}"));
        }
        let cidr = Self { ip, prefix };
        if bits(ip) & !cidr.mask() != 0 {
            return Err(format!(
                "must have no bits beyond its prefix; an address alone is written without /{prefix}"
            ));
        }
        Ok(cidr)
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Whether an address is in the network. An IPv4 address counts as itself when it comes mapped into IPv6.
    pub fn contains(self, ip: IpAddr) -> bool {
        let (ip, own) = (ip.to_canonical(), self.ip.to_canonical());
        // A network of mapped addresses is written with 96 bits more.
        let prefix =
            if own.is_ipv4() == self.ip.is_ipv4() { self.prefix } else { self.prefix.saturating_sub(96) };
        own.is_ipv4() == ip.is_ipv4() && bits(own) == bits(ip) & Self { ip: own, prefix }.mask()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn networks_round_trip() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(Cidr::parse(text).map(|c| c.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Cidr::parse("192.0.2.7"), Cidr::parse("192.0.2.7/32"));
        assert_eq!(Cidr::parse("::1"), Cidr::parse("::1/128"));
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.1/8",
            "10.0.0.0/+8",
            "10/8",
            "a/8",
            "::/8/8",
        ] {
            assert!(Cidr::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses() {
        let contains = |network, ip: &str| Cidr::parse(network).unwrap().contains(ip.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "192.0.2.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3") && contains("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(
            contains("2001:db8::/33", "2001:db8:7fff::1") && !contains("2001:db8::/33", "2001:db8:8000::1")
        );
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.6"));
    }
}
