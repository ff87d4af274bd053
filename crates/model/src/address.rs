//! Addresses: where a listener binds, where a backend is dialled, where a member is reached.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

/// A TCP port, 1 to 65535.
pub type Port = NonZeroU16;

const PORT_RULE: &str = "port must be 1 to 65535";
const SCHEME_RULE: &str = "must be without a scheme such as http://, as in 10.0.0.1:8080";
const BRACKETS_RULE: &str = "an IPv6 address with a port needs brackets, as in [2001:db8::1]:443";
/// An interface has another number, and mostly another name, on each member.
const LINK_LOCAL_RULE: &str = "must not be link-local (fe80::/10), which reaches the network of one interface, and that \
                               cannot be told for all members: use an address that is routed, as of fd00::/8";
const ZONE_RULE: &str =
    "must have no zone, as %eth0: only link-local addresses have one, which cannot be used";

fn parse_port(text: &str) -> Result<Port, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = if digits { text.parse::<u16>().ok() } else { None };
    let rule = if text.starts_with("//") { SCHEME_RULE } else { PORT_RULE };
    port.and_then(Port::new).ok_or_else(|| rule.to_owned())
}

/// Splits `IP`, `IP:PORT`, `[IPv6]` and `[IPv6]:PORT`. A bare IPv6 address has no port.
fn parse_ip_port(text: &str, example: &str) -> Result<(IpAddr, Option<Port>), String> {
    let wrong = || format!("must be an IP address with a port, as in {example}");
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, after) = rest.split_once(']').ok_or_else(wrong)?;
        let ip = parse_v6(ip).ok_or_else(wrong)??;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if after.is_empty() => None,
            None => return Err(wrong()),
        };
        return Ok((IpAddr::V6(ip), port));
    }
    if text.matches(':').count() > 1 {
        // 2001:db8::1:443 parses as an address, but its author may well have meant port 443.
        return Err(BRACKETS_RULE.to_owned());
    }
    match text.split_once(':') {
        Some((ip, port)) => Ok((ip.parse().map_err(|_| wrong())?, Some(parse_port(port)?))),
        None => Ok((text.parse().map_err(|_| wrong())?, None)),
    }
}

/// An IPv6 address as it stands in brackets; `None` when it is none, an error when its zone (RFC 4007 §11) is one too many.
fn parse_v6(text: &str) -> Option<Result<Ipv6Addr, String>> {
    let Some((ip, _zone)) = text.split_once('%') else { return text.parse().ok().map(Ok) };
    let ip: Ipv6Addr = ip.parse().ok()?;
    Some(Err(if ip.is_unicast_link_local() { LINK_LOCAL_RULE } else { ZONE_RULE }.to_owned()))
}

fn refuse_multicast(ip: IpAddr) -> Result<IpAddr, String> {
    if ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
        return Err("must be a unicast address: tcp has neither multicast nor broadcast".to_owned());
    }
    Ok(ip)
}

/// An address that TCP can use on every member.
///
/// # Errors
/// The broken rule, for a multicast or broadcast address, for IPv6's link-local ones, and for an IPv4 address in IPv6 form.
pub fn usable_ip(ip: IpAddr) -> Result<IpAddr, String> {
    match refuse_multicast(ip)? {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(LINK_LOCAL_RULE.to_owned()),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(format!("must not be an IPv4 address in IPv6 form: write {v4}")),
            None => Ok(ip),
        },
        IpAddr::V4(_) => Ok(ip),
    }
}

/// What a backend's address names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name that each member looks up in /etc/hosts and the DNS, and looks up again when its answer has expired; in lower
    /// case. One that ends with a dot is not completed by a search list.
    Name(Arc<str>),
}

/// Where a backend is dialled. Without a port, the port that the client dialled is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendAddress {
    /// The backend's address or name.
    pub host: Host,
    /// Its port, or `None` for the port that the client dialled.
    pub port: Option<Port>,
}

impl BackendAddress {
    /// Parses `10.0.0.1:8080`, `10.0.0.1`, `[2001:db8::1]:8080`, `[2001:db8::1]`, `web.example:8080` or `web.example`, also
    /// with a final dot; the error is the broken rule.
    ///
    /// # Errors
    /// When the text is none of these, the port is 0, or the address is a wildcard, or none that is [usable](usable_ip).
    pub fn parse(text: &str) -> Result<Self, String> {
        let address = Self::decode(text)?;
        address.ip().map_or(Ok(()), |ip| usable_ip(ip).map(drop))?;
        Ok(address)
    }

    /// As [`BackendAddress::parse`], for what is stored: takes whatever was taken once.
    ///
    /// # Errors
    /// When the text is none of these, the port is 0, or the address is a wildcard, multicast or broadcast one.
    pub fn decode(text: &str) -> Result<Self, String> {
        // The first group of an IPv6 address can be a name too.
        if parse_v6(text).is_some() {
            return Err(BRACKETS_RULE.to_owned());
        }
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        if is_dns_name(name.strip_suffix('.').unwrap_or(name)) {
            let port = port.map(parse_port).transpose()?;
            return Ok(Self { host: Host::Name(name.to_ascii_lowercase().into()), port });
        }
        let (ip, port) = parse_ip_port(text, "10.0.0.1:8080 or web.example:8080")?;
        if ip.is_unspecified() {
            return Err("must be an address that can be dialled, not the wildcard".to_owned());
        }
        Ok(Self { host: Host::Ip(refuse_multicast(ip)?), port })
    }

    /// The IP address, unless the backend is known by name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }

    /// The port to dial for a client that dialled `dialled`.
    pub fn port_for(&self, dialled: u16) -> u16 {
        self.port.map_or(dialled, Port::get)
    }
}

impl From<SocketAddr> for BackendAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: Port::new(address.port()) }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Ip(ip), Some(port)) => SocketAddr::new(*ip, port.get()).fmt(f),
            (Host::Ip(IpAddr::V6(ip)), None) => write!(f, "[{ip}]"),
            (Host::Ip(ip), None) => ip.fmt(f),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => f.write_str(name),
        }
    }
}

/// One label of a host name (RFC 1123 §2.1); the underscore is common in names of services.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A host name of letters, digits and hyphens whose last label is no number, so that a mistyped address is no name.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// Where a listener accepts connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bind {
    /// A local address; `0.0.0.0` or `[::]` for all addresses of that family.
    pub ip: IpAddr,
    /// The port, or the first of a range.
    pub first: Port,
    /// The last port of the range; the same as the first for a single port, and never less.
    pub last: Port,
}

impl Bind {
    /// Parses `0.0.0.0:6443`, `*:6443`, `:6443`, `[::]:6443`, or any of them with a range of ports as in
    /// `0.0.0.0:30000-30100`; the error is the broken rule.
    ///
    /// # Errors
    /// When the text is none of these, the port is missing or 0, the range runs backwards, or the address is none that is
    /// [usable](usable_ip).
    pub fn parse(text: &str) -> Result<Self, String> {
        let bind = Self::decode(text)?;
        usable_ip(bind.ip)?;
        Ok(bind)
    }

    /// As [`Bind::parse`], for what is stored: takes whatever was taken once.
    ///
    /// # Errors
    /// When the text is none of these, the port is missing or 0, the range runs backwards, or the address is a multicast
    /// or broadcast one.
    pub fn decode(text: &str) -> Result<Self, String> {
        // HAProxy writes the IPv4 wildcard as `*:6443` and `:6443`.
        let text = match text.strip_prefix('*').unwrap_or(text) {
            rest if rest.starts_with(':') && !rest.starts_with("::") => format!("0.0.0.0{rest}"),
            _ => text.to_owned(),
        };
        let colon = text.rfind(':').unwrap_or(text.len());
        let (first, last) = match text.get(colon..).and_then(|ports| ports.split_once('-')) {
            Some((port, last)) => (text.get(..colon).unwrap_or_default().to_owned() + port, Some(last)),
            None => (text, None),
        };
        let (ip, Some(first)) = parse_ip_port(&first, "0.0.0.0:6443")? else {
            return Err("must name a port, as in 0.0.0.0:6443".to_owned());
        };
        let last = last.map_or(Ok(first), parse_port)?;
        if last < first {
            return Err(
                "must be a range of ports that begins with the smaller one, as in 30000-30100".to_owned()
            );
        }
        Ok(Self { ip: refuse_multicast(ip)?, first, last })
    }

    /// How many ports it names.
    pub fn ports(self) -> usize {
        usize::from(self.last.get() - self.first.get()) + 1
    }

    /// Whether this address is one of those that it names.
    pub fn names(self, address: SocketAddr) -> bool {
        self.ip == address.ip() && (self.first.get()..=self.last.get()).contains(&address.port())
    }

    /// What it means on a member with this data address, which stands for the wildcard of its family.
    #[must_use]
    pub fn on(self, data_address: Option<IpAddr>) -> Self {
        let own = data_address.filter(|own| self.ip.is_unspecified() && own.is_ipv4() == self.ip.is_ipv4());
        Self { ip: own.unwrap_or(self.ip), ..self }
    }

    /// Every address that it names.
    pub fn sockets(self) -> impl Iterator<Item = SocketAddr> {
        (self.first.get()..=self.last.get()).map(move |port| SocketAddr::new(self.ip, port))
    }

    /// Addresses as few ranges: those with neighbouring ports that follow one another stand together.
    pub fn ranges(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<Self> {
        let mut ranges: Vec<Self> = Vec::new();
        for address in addresses {
            // Port 0 is no address that anybody can reach.
            let Some(port) = Port::new(address.port()) else { continue };
            match ranges.last_mut() {
                Some(range) if range.ip == address.ip() && range.last.checked_add(1) == Some(port) => {
                    range.last = port;
                }
                _ => ranges.push(Self { ip: address.ip(), first: port, last: port }),
            }
        }
        ranges
    }

    /// Whether an address is named by both.
    pub fn overlaps(self, other: Self) -> bool {
        self.ip == other.ip && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.first.get()).fmt(f)?;
        if self.last > self.first { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}

/// A host name or IP address with a port: where members reach one another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort(Arc<str>);

impl HostPort {
    /// Parses `10.0.0.1:7481`, `[2001:db8::1]:7481` or `trestle-1.example:7481`; the error is the broken rule.
    ///
    /// # Errors
    /// When the host is no address and no RFC 1123 host name, or the port is missing or 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "must be HOST:PORT, as in 10.0.0.1:7481 or trestle-1.example:7481".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        parse_port(port)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match bracketed {
            Some(v6) => parse_v6(v6).transpose()?.is_some(),
            None if host.contains(':') => return Err(BRACKETS_RULE.to_owned()),
            None => host.len() <= 253 && host.split('.').all(is_label),
        };
        if good { Ok(Self(text.into())) } else { Err(wrong()) }
    }

    /// As [`HostPort::parse`], for what a member tells others, who must be able to dial it.
    ///
    /// # Errors
    /// When it is no [`HostPort`], or its address is a wildcard, or none that is [usable](usable_ip).
    pub fn parse_reachable(text: &str) -> Result<Self, String> {
        let address = Self::parse(text)?;
        if let Some(socket) = address.as_socket() {
            if socket.ip().is_unspecified() {
                return Err("must be an address that others can dial, not the wildcard".to_owned());
            }
            usable_ip(socket.ip())?;
        }
        Ok(address)
    }

    /// The text as it was parsed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when the host is an IP address and not a name.
    pub fn as_socket(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_addresses_round_trip() {
        let names =
            ["web.example:80", "web", "_http._tcp.web.example", "3com.example:1", "web_1.x.:80", "web."];
        for text in
            ["10.0.0.1:8080", "10.0.0.1", "[2001:db8::1]:443", "[2001:db8::1]"].into_iter().chain(names)
        {
            assert_eq!(BackendAddress::parse(text).map(|a| a.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn backend_addresses_that_cannot_be_dialled_are_refused() {
        for text in [
            "",
            ":",
            ":80",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:+80",
            "10.0.0:80",
            "host:0",
            "-host:80",
            "ho st:80",
            "host:80:90",
            "host..:80",
            ".:80",
            "10.0.0.1.:80",
            "10.0.0.300:80",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "2001:db8::1:443",
            "[2001:db8::1",
            "[::1]x",
            "10.0.0.1:80 ",
            "1.2.3.4:80:90",
        ] {
            assert!(BackendAddress::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(BackendAddress::parse("2001:db8::1:443"), Err(BRACKETS_RULE.to_owned()));
        assert_eq!(BackendAddress::parse("http://10.0.0.1:80"), Err(SCHEME_RULE.to_owned()));
    }

    /// What can never work, and a part of the reason that is given.
    const UNUSABLE: [(&str, &str); 5] = [
        ("fe80::5", "link-local (fe80::/10)"),
        ("fe80::5%eth0", "link-local (fe80::/10)"),
        ("febf::5%2", "link-local (fe80::/10)"),
        ("fd00::5%eth0", "no zone"),
        ("::ffff:127.0.0.1", "write 127.0.0.1"),
    ];

    #[test]
    fn what_can_never_work_is_refused_with_the_reason_and_is_still_read_from_disk() {
        for (ip, reason) in UNUSABLE {
            let text = format!("[{ip}]:9000");
            let refused = [
                BackendAddress::parse(&text).unwrap_err(),
                BackendAddress::parse(&format!("[{ip}]")).unwrap_err(),
                Bind::parse(&text).unwrap_err(),
                Bind::parse(&format!("{text}-9100")).unwrap_err(),
                HostPort::parse_reachable(&text).unwrap_err(),
            ];
            for said in refused {
                assert!(said.contains(reason), "{ip}: {said}");
            }
            // Zones were never taken.
            if !ip.contains('%') {
                assert_eq!(BackendAddress::decode(&text).map(|a| a.to_string()), Ok(text.clone()));
                assert_eq!(Bind::decode(&text).map(|b| b.to_string()), Ok(text.clone()));
                assert!(HostPort::parse(&text).is_ok());
            }
        }
        for text in ["[fec0::5]:9000", "[::102:304]:9000", "240.0.0.1:9000", "169.254.0.1:9000", "[::1]:9000"]
        {
            assert_eq!(BackendAddress::parse(text).map(|a| a.to_string()), Ok(text.to_owned()));
            assert_eq!(Bind::parse(text).map(|b| b.to_string()), Ok(text.to_owned()));
            assert!(HostPort::parse_reachable(text).is_ok(), "{text}");
        }
        for text in ["0.0.0.0:9000", "[::]:9000", "224.0.0.1:9000", "255.255.255.255:9000"] {
            assert!(HostPort::parse_reachable(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_ipv6_address_gets_the_rule_about_brackets_whatever_it_begins_with() {
        for text in
            ["fd00::5", "fd00::5:9000", "2001:db8::1:443", "::1", "fe80::5%eth0", "1:2:3:4:5:6:7:8:443"]
        {
            assert_eq!(BackendAddress::parse(text), Err(BRACKETS_RULE.to_owned()), "{text}");
            assert!(Bind::parse(text).is_err(), "{text}");
        }
        assert_eq!(BackendAddress::parse("host:80:90"), Err(PORT_RULE.to_owned()));
    }

    #[test]
    fn a_backend_without_a_port_takes_the_dialled_one() {
        let port = |t: &str| BackendAddress::parse(t).map(|a| a.port_for(6443));
        assert_eq!((port("10.0.0.1"), port("web.example")), (Ok(6443), Ok(6443)));
        assert_eq!((port("10.0.0.1:80"), port("web.example:80")), (Ok(80), Ok(80)));
    }

    #[test]
    fn binds_take_haproxy_wildcards() {
        for text in ["*:6443", ":6443", "0.0.0.0:6443"] {
            assert_eq!(Bind::parse(text).map(|b| b.to_string()), Ok("0.0.0.0:6443".to_owned()));
        }
        assert_eq!(Bind::parse("[::]:6443").map(|b| b.to_string()), Ok("[::]:6443".to_owned()));
        for text in ["", "*", "0.0.0.0", ":0", ":::6443", "::1:80", "eth0:80"] {
            assert!(Bind::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn binds_take_ranges_of_ports() {
        for text in ["0.0.0.0:30000-30100", "[::1]:1-65535"] {
            assert_eq!(Bind::parse(text).map(|b| b.to_string()), Ok(text.to_owned()));
        }
        let bind = |text| Bind::parse(text).ok();
        assert_eq!(bind("*:80-81"), bind("0.0.0.0:80-81"));
        assert_eq!(bind("*:80-80"), bind("*:80"));
        let sockets = |text| bind(text).map(|b| b.sockets().map(|s| s.port()).collect::<Vec<_>>());
        assert_eq!(sockets("*:80-82"), Some(vec![80, 81, 82]));
        let overlap = |a, b| bind(a).zip(bind(b)).map(|(a, b)| a.overlaps(b) && b.overlaps(a));
        assert_eq!(overlap("*:80-90", "*:90"), Some(true));
        assert_eq!(overlap("*:80-90", "*:85-86"), Some(true));
        assert_eq!(overlap("*:80-90", "*:91-99"), Some(false));
        assert_eq!(overlap("*:80-90", "10.0.0.1:85"), Some(false));
        for text in ["*:81-80", "*:0-80", "*:80-", "*:-80", "*:80-65536", "*:80-81-82", "*:80-x"] {
            assert!(Bind::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn neighbouring_ports_stand_together() {
        let ranges = |list: &[&str]| -> Vec<String> {
            let addresses = list.iter().filter_map(|address| address.parse().ok());
            Bind::ranges(addresses).iter().map(ToString::to_string).collect()
        };
        let bound = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:82", "10.0.0.1:90", "[::1]:91", "[::1]:92"];
        assert_eq!(ranges(&bound), ["10.0.0.1:80-82", "10.0.0.1:90", "[::1]:91-92"]);
        assert_eq!(ranges(&["10.0.0.1:65535", "10.0.0.1:1", "10.0.0.1:0"]).len(), 2);
        assert!(ranges(&[]).is_empty());
        let all = Bind::parse("0.0.0.0:30000-32767").map(|bind| Bind::ranges(bind.sockets()));
        assert_eq!(all.map(|ranges| ranges.len()), Ok(1));
    }

    #[test]
    fn member_addresses_may_be_names() {
        for text in ["10.0.0.1:7481", "[::1]:7481", "trestle-1:7481", "a.b.example:1"] {
            assert!(HostPort::parse(text).is_ok(), "{text}");
        }
        for text in ["", "a", "a:", ":1", "::1:7481", "a b:1", "a/b:1", "a:0", "-a:1", "[a]:1"] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }
}
