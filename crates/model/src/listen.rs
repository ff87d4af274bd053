//! Where a listener accepts connections, as it is asked for: an address, or a virtual IP by its name.

use std::fmt;
use std::net::IpAddr;

use crate::address::{Bind, Port};
use crate::name::VipName;

/// An address of a listener as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// A local address with its ports.
    Ip(Bind),
    /// The address of a virtual IP with ports.
    Vip {
        /// The virtual IP.
        name: VipName,
        /// The port, or the first of a range.
        first: Port,
        /// The last port of the range; the same as the first for a single port, and never less.
        last: Port,
    },
}

impl ListenAddress {
    /// Parses `vip:NAME:6443`, also `NAME:6443`, and whatever [`Bind::parse`] takes; the error is the broken rule. What is an
    /// address is one, even where a virtual IP has it for its name.
    ///
    /// # Errors
    /// As [`Bind::parse`].
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parsed(text, Bind::parse)
    }

    /// As [`ListenAddress::parse`], for what is stored: takes whatever was taken once.
    ///
    /// # Errors
    /// As [`Bind::decode`].
    pub fn decode(text: &str) -> Result<Self, String> {
        Self::parsed(text, Bind::decode)
    }

    fn parsed(text: &str, bind: impl Fn(&str) -> Result<Bind, String>) -> Result<Self, String> {
        let marked = text.strip_prefix("vip:");
        let Some((name, ports)) = marked.unwrap_or(text).rsplit_once(':') else {
            return bind(text).map(Self::Ip);
        };
        let parsed = VipName::parse(name);
        // Without a letter it is an address, if a mistyped one.
        let has_letter = || name.bytes().any(|b| b.is_ascii_alphabetic());
        let is_name = marked.is_some() || (parsed.is_ok() && has_letter());
        if !is_name {
            return bind(text).map(Self::Ip);
        }
        // Ports are what they are beside any address.
        let Bind { first, last, .. } = Bind::decode(&format!("0.0.0.0:{ports}"))?;
        Ok(Self::Vip { name: parsed?, first, last })
    }

    /// How many ports it names.
    pub fn ports(&self) -> usize {
        let (first, last) = self.range();
        usize::from(last.get() - first.get()) + 1
    }

    const fn range(&self) -> (Port, Port) {
        match self {
            Self::Ip(Bind { first, last, .. }) | Self::Vip { first, last, .. } => (*first, *last),
        }
    }

    /// The virtual IP that it names.
    pub const fn vip(&self) -> Option<&VipName> {
        match self {
            Self::Ip(_) => None,
            Self::Vip { name, .. } => Some(name),
        }
    }

    /// What it means where `address` is that of the virtual IP; `None` for one that is not there.
    pub fn resolved(&self, address: impl FnOnce(&VipName) -> Option<IpAddr>) -> Option<Bind> {
        match self {
            Self::Ip(bind) => Some(*bind),
            Self::Vip { name, first, last } => {
                address(name).map(|ip| Bind { ip, first: *first, last: *last })
            }
        }
    }
}

impl From<Bind> for ListenAddress {
    fn from(bind: Bind) -> Self {
        Self::Ip(bind)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(bind) => bind.fmt(f),
            Self::Vip { name, first, last } if first == last => write!(f, "vip:{name}:{first}"),
            Self::Vip { name, first, last } => write!(f, "vip:{name}:{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        ListenAddress::parse(text).map(|address| address.to_string())
    }

    #[test]
    fn a_name_is_a_virtual_ips_and_an_address_is_an_address() {
        for (text, is) in [
            ("vip:api:6443", "vip:api:6443"),
            ("api:6443", "vip:api:6443"),
            ("api:30000-30100", "vip:api:30000-30100"),
            ("vip:10.0.9.9:83", "vip:10.0.9.9:83"),
            ("vip:vip:1", "vip:vip:1"),
            ("10.0.9.9:83", "10.0.9.9:83"),
            ("*:80", "0.0.0.0:80"),
            (":81", "0.0.0.0:81"),
            ("[::]:82", "[::]:82"),
        ] {
            assert_eq!(parsed(text), Ok(is.to_owned()), "{text}");
            assert_eq!(ListenAddress::parse(is), ListenAddress::parse(text));
        }
        assert_eq!(parsed("api:0"), Err("port must be 1 to 65535".to_owned()));
        for text in [
            "",
            "api",
            "vip:",
            "vip:api",
            "vip::80",
            "vip:a b:80",
            "2001:db8::1:80",
            "10.0.0.1:0",
            "10.0.0.300:80",
            "vip:api:9-8",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
