//! The check of this node's own service: a URL, and whom to trust over TLS.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use hyper::Uri;
use trestle_model::{CheckKind, HttpCheck, TlsCheck, Violations, usable_ip};

use super::checked::SettingReader;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// A check of a service on this machine, by the code that checks backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCheckConfig {
    /// As it was given.
    pub url: String,
    /// What it does: `tcp`, or `http` with the defaults of a pool's (200 to 299 is good; redirects are not followed), over
    /// TLS if so told.
    pub kind: CheckKind,
    /// Where it connects.
    pub address: SocketAddr,
    /// Whom to trust, as a file of PEM certificates, which is read anew when it changes; `None` verifies nothing, as in a
    /// pool.
    pub ca_file: Option<PathBuf>,
}

fn wrong() -> String {
    "must be the URL of a service on this machine, as https://127.0.0.1:6443/readyz, http://10.0.0.1:8080/healthz or \
     tcp://127.0.0.1:6443, with an IP address and nothing after the path but a query; empty for none"
        .to_owned()
}

/// Reads a URL; the error is the broken rule.
fn parse(text: &str) -> Result<Option<LocalCheckConfig>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let authority =
        uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
    // What comes after it is for browsers, and is never sent.
    if text.contains('#') {
        return Err(wrong());
    }
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ip: IpAddr = host.parse().map_err(|_| wrong())?;
    let ip = usable_ip(ip)?;
    if ip.is_unspecified() {
        return Err("is a wildcard: name an address of this machine, as 127.0.0.1".to_owned());
    }
    let own_path = uri.path_and_query().map_or("/", |path| path.as_str());
    let http = |tls: Option<TlsCheck>| {
        CheckKind::Http(HttpCheck { tls, path: own_path.into(), ..HttpCheck::default() })
    };
    let (kind, default_port) = match uri.scheme_str() {
        Some("http") => (http(None), Some(HTTP_PORT)),
        Some("https") => (http(Some(TlsCheck::default())), Some(HTTPS_PORT)),
        // A path would be asked for nowhere.
        Some("tcp") if text.ends_with(authority.as_str()) => (CheckKind::Tcp, None),
        _ => return Err(wrong()),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok(),
        None => default_port,
    };
    let port = port.filter(|port| *port > 0).ok_or_else(wrong)?;
    let mut v = Violations::new();
    kind.check(&mut v);
    v.into_result().map_err(|_| wrong())?;
    Ok(Some(LocalCheckConfig {
        url: text.to_owned(),
        kind,
        address: SocketAddr::new(ip, port),
        ca_file: None,
    }))
}

fn file(text: &str) -> Result<Option<PathBuf>, String> {
    match Path::new(text) {
        _ if text.is_empty() => Ok(None),
        path if path.is_absolute() => Ok(Some(path.to_owned())),
        _ => Err("must be the path of a file of PEM certificates from the root on, as in /etc/kubernetes/pki/ca.crt; \
                  empty to verify nothing"
            .to_owned()),
    }
}

impl SettingReader<'_> {
    /// The keys `vip.local_check` and `vip.local_check_ca`. `own` are this member's own ports: that they answer says nothing
    /// of another service, and readiness may come of what the check finds.
    pub(super) fn local_check(&mut self, own: &[SocketAddr]) -> Option<Option<LocalCheckConfig>> {
        let check = self.read("vip.local_check", "", parse);
        let ca_file = self.read("vip.local_check_ca", "", file);
        let (mut check, ca_file) = (check?, ca_file?);
        if let (Some(ca_file), false) = (&ca_file, check.as_ref().is_some_and(is_verifiable)) {
            self.note("vip.local_check_ca", ca_file.display(), "goes with a vip.local_check of https://");
        }
        if let Some(check) = &mut check {
            let meets = |own: &SocketAddr| {
                own.port() == check.address.port()
                    && (own.ip() == check.address.ip()
                        || own.ip().is_unspecified() && check.address.ip().is_loopback())
            };
            if own.iter().any(meets) {
                self.note(
                    "vip.local_check",
                    &check.url,
                    "is a port of this member itself: name that of another service",
                );
            }
            check.ca_file = ca_file;
        }
        Some(check)
    }
}

fn is_verifiable(check: &LocalCheckConfig) -> bool {
    matches!(&check.kind, CheckKind::Http(http) if http.tls.is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Config, RawConfig, VipConfig};
    use super::*;

    fn check(toml: &str) -> Result<VipConfig, String> {
        let mut v = Violations::new();
        let given =
            RawConfig::from_toml(Path::new("t.toml"), &format!("name = \"m1\"\n[vip]\n{toml}"), &mut v);
        Config::check(&given, v).map(|config| config.vip).map_err(|invalid| invalid.to_string())
    }

    fn local(url: &str) -> LocalCheckConfig {
        check(&format!("local_check = \"{url}\"")).unwrap().local_check.unwrap()
    }

    #[test]
    fn a_url_says_what_is_checked_and_where() {
        let api = local("https://127.0.0.1:6443/readyz?verbose=1");
        assert_eq!(api.address.to_string(), "127.0.0.1:6443");
        let CheckKind::Http(http) = &api.kind else { panic!("{api:?}") };
        assert_eq!((&*http.path, http.tls.is_some()), ("/readyz?verbose=1", true));
        // As a pool's check of that kind.
        assert_eq!(http.tls, Some(TlsCheck::default()));
        assert_eq!(http.expect, HttpCheck::default().expect);

        let plain = local("http://10.0.0.1");
        assert_eq!(plain.address.to_string(), "10.0.0.1:80");
        assert_eq!(plain.kind, CheckKind::Http(HttpCheck::default()));
        assert_eq!(local("https://[2001:db8::1]/livez").address.to_string(), "[2001:db8::1]:443");
        let tcp = local("tcp://[::1]:5432");
        assert_eq!((tcp.kind, tcp.address.to_string()), (CheckKind::Tcp, "[::1]:5432".to_owned()));
        assert_eq!(check("local_check = \"\"").unwrap().local_check, None);
        assert_eq!(check("").unwrap().local_check, None);
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_what_is() {
        for url in [
            "127.0.0.1:6443",
            "/usr/local/bin/check",
            "https://",
            "https:///readyz",
            "https://localhost:6443/readyz",
            "https://user:secret@127.0.0.1:6443/readyz",
            "https://127.0.0.1:0/readyz",
            "https://127.0.0.1:/readyz",
            "https://127.0.0.1:65536/readyz",
            "https://127.0.0.1:6443/ready z",
            "https://127.0.0.1:6443/readyz#top",
            "tls://127.0.0.1:6443",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:6443/readyz",
            "tcp://127.0.0.1:6443/",
            "unix:///run/api.sock",
        ] {
            let said = check(&format!("local_check = \"{url}\"")).unwrap_err();
            assert!(said.contains("vip.local_check (t.toml:3)"), "{url}: {said}");
            assert!(said.contains("as https://127.0.0.1:6443/readyz"), "{url}: {said}");
        }
        for (url, rule) in [
            ("tcp://0.0.0.0:6443", "is a wildcard: name an address of this machine"),
            ("https://[fe80::1]:6443/", "link-local"),
            ("https://[::ffff:10.0.0.1]:6443/", "write 10.0.0.1"),
            ("tcp://224.0.0.1:6443", "multicast"),
            ("http://127.0.0.1:7482/readyz", "is a port of this member itself"),
        ] {
            let said = check(&format!("local_check = \"{url}\"")).unwrap_err();
            assert!(said.contains(rule), "{url}: {said}");
        }
    }

    #[test]
    fn a_ca_is_a_file_and_goes_with_https() {
        let toml =
            "local_check = \"https://10.0.0.1:6443/readyz\"\nlocal_check_ca = \"/etc/kubernetes/pki/ca.crt\"";
        let found = check(toml).unwrap().local_check.unwrap();
        assert_eq!(found.ca_file.as_deref(), Some(Path::new("/etc/kubernetes/pki/ca.crt")));
        let relative = toml.replace("/etc/", "etc/");
        assert!(check(&relative).unwrap_err().contains("as in /etc/kubernetes/pki/ca.crt"));
        for without in ["http://10.0.0.1:6443/readyz", "tcp://10.0.0.1:6443", ""] {
            let said = check(&toml.replace("https://10.0.0.1:6443/readyz", without)).unwrap_err();
            assert!(said.contains("goes with a vip.local_check of https://"), "{without}: {said}");
        }
    }
}
