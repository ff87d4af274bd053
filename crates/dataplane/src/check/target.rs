//! The target of a check, and its name in requests.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;

/// Ports that requests do not name (RFC 9110 §4.2.1, §4.2.2).
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// The target of a check.
#[derive(Debug, Clone)]
pub(super) struct CheckTarget {
    /// Where it connects.
    pub(super) address: SocketAddr,
    /// The backend's name, if it is configured by name.
    pub(super) name: Option<Arc<str>>,
}

impl CheckTarget {
    /// The server name in TLS, for which a verified certificate must be: the name, or without one the address, which is not
    /// sent (RFC 6066 §3).
    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.name.as_deref().and_then(dns_name).unwrap_or_else(|| self.address.ip().into())
    }

    /// The authority of requests: the name, with the port unless it is the scheme's default (RFC 9110 §7.2, RFC 9113 §8.3.1),
    /// or without a name the address and port.
    pub(super) fn authority(&self, over_tls: bool) -> String {
        let own = if over_tls { HTTPS_PORT } else { HTTP_PORT };
        match (&self.name, self.address.port()) {
            (None, _) => self.address.to_string(),
            (Some(name), port) if port == own => undotted(name).to_owned(),
            (Some(name), port) => format!("{}:{port}", undotted(name)),
        }
    }
}

/// The host name in the value of a Host field; `None` for an address.
pub(super) fn named_by_host(value: &str) -> Option<ServerName<'static>> {
    let is_port = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let name = value.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(value, |(name, _)| name);
    dns_name(name)
}

fn dns_name(name: &str) -> Option<ServerName<'static>> {
    let name = ServerName::try_from(undotted(name).to_owned()).ok();
    name.filter(|name| matches!(name, ServerName::DnsName(_)))
}

/// A name without the final dot, which belongs to lookups: certificates and servers' configurations have none (RFC 6066 §3).
fn undotted(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_model::{BackendAddress, Host};

    use super::*;

    fn target(backend: &str, connects_to: &str) -> CheckTarget {
        let Host::Name(name) = BackendAddress::parse(backend).unwrap().host else {
            panic!("{backend} is a name")
        };
        CheckTarget { address: connects_to.parse().unwrap(), name: Some(name) }
    }

    #[test]
    fn every_name_that_a_backend_can_have_is_a_server_name() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for name in
            ["web", "web.example", "web_1", "_http._tcp.web.example", "3com.example", "a--b.x1", &longest]
        {
            let target = target(name, "10.0.0.1:1");
            assert_eq!(target.server_name(), ServerName::try_from(name).unwrap(), "{name}");
        }
    }

    #[test]
    fn a_request_names_the_port_unless_it_is_the_schemes_own() {
        for (connects_to, plain, over_tls) in [
            ("10.0.0.1:80", "web.example", "web.example:80"),
            ("10.0.0.1:443", "web.example:443", "web.example"),
            ("[2001:db8::1]:9443", "web.example:9443", "web.example:9443"),
        ] {
            let target = target("Web.example", connects_to);
            assert_eq!((&*target.authority(false), &*target.authority(true)), (plain, over_tls));
        }
    }

    #[test]
    fn a_backend_without_a_name_goes_by_its_address() {
        for address in ["10.0.0.1:443", "[2001:db8::1]:80"] {
            let target = CheckTarget { address: address.parse().unwrap(), name: None };
            assert_eq!((target.authority(false), target.authority(true)), (address.into(), address.into()));
            assert_eq!(target.server_name(), target.address.ip().into());
        }
    }

    #[test]
    fn the_dot_of_the_root_is_for_look_ups_only() {
        let target = CheckTarget { address: ([10, 0, 0, 1], 80).into(), name: Some("web.example.".into()) };
        assert_eq!(&*target.authority(false), "web.example");
        assert_eq!(target.server_name().to_str(), "web.example");
    }

    #[test]
    fn a_host_field_names_a_server_unless_it_is_an_address() {
        for (value, name) in
            [("a.example", "a.example"), ("a.example:6443", "a.example"), ("web_1:80", "web_1")]
        {
            assert_eq!(named_by_host(value).unwrap().to_str(), name);
        }
        for value in
            ["10.0.0.1", "10.0.0.1:80", "::1", "2001:db8::1", "[::1]", "[::1]:80", ":80", "a..b", "a:b"]
        {
            assert_eq!(named_by_host(value), None, "{value}");
        }
    }
}
