//! The configuration as the member uses it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use trestle_dataplane::{AccessLogFormat, Sources};
use trestle_model::defaults::FEATURE_LEVEL_MAX;
use trestle_model::{Cidr, HostPort, Invalid, MemberName, Violations, usable_ip};

use super::admin_socket::AdminSocket;
use super::connections::{CHECK_DIRECTORY, own_address};
use super::founding::FoundingConfig;
use super::raw::{RawConfig, SettingSource};
use super::vip::VipConfig;

const DATA_DIR: &str = "/var/lib/trestle";
const ADMIN_PORT: u16 = 7480;
const PEER_PORT: u16 = 7481;
const HTTP_PORT: u16 = 7482;
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
const SHUTDOWN_GRACE_MAX: Duration = Duration::from_secs(24 * 3600);
const WORKERS_MAX: usize = 256;

/// Timing of heartbeats and elections; all members of a cluster should use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Heartbeat 50 ms, election 150 to 300 ms.
    #[default]
    Default,
    /// Heartbeat 25 ms, election 75 to 125 ms: for quiet machines in one place.
    Fast,
    /// Heartbeat 250 ms, election 1 to 2 s: for noisy machines or distant sites.
    Wide,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's name.
    pub name: MemberName,
    /// Where log, snapshots and identity are kept.
    pub data_dir: PathBuf,
    /// Where the admin API listens.
    pub admin_address: SocketAddr,
    /// Where it listens for processes of this machine.
    pub admin_socket: AdminSocket,
    /// Where peers reach this member.
    pub peer_address: SocketAddr,
    /// Where metrics and health are served.
    pub http_address: SocketAddr,
    /// The file with the token that others than this machine must show to fetch `/metrics`; `None` for no token.
    pub metrics_token_file: Option<PathBuf>,
    /// Admin address as others dial it.
    pub advertise_admin_address: HostPort,
    /// Peer address as others dial it.
    pub advertise_peer_address: HostPort,
    /// Address that listeners on a wildcard bind on this member.
    pub data_address: Option<IpAddr>,
    /// Members to ask to be taken in.
    pub join: Vec<HostPort>,
    /// File of the token by which this member joins while it is empty.
    pub join_token_file: Option<PathBuf>,
    /// How it founds a cluster together with others while it is empty.
    pub founding: Option<FoundingConfig>,
    /// Whether this member accepts plain connections while it belongs to no cluster, founds one that does, and may belong to one
    /// that does though other machines reach it.
    pub insecure: bool,
    /// Timing of elections.
    pub profile: Profile,
    /// Data plane threads.
    pub workers: NonZeroUsize,
    /// How long connections may finish on shutdown.
    pub shutdown_grace: Duration,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Form of the access log's lines; `None` for no access log.
    pub access_log: Option<AccessLogFormat>,
    /// File that they are added to; `None` for standard output.
    pub access_log_file: Option<PathBuf>,
    /// Directory that files of health checks must be below.
    pub check_directory: PathBuf,
    /// Own addresses that connections to backends come from.
    pub source: Sources,
    /// Networks that backends may be in; empty for all.
    pub backend_networks: Vec<Cidr>,
    /// The highest feature level that this program knows: no key sets it.
    pub feature_level_max: u32,
    /// Members in this process, among which its descriptors are shared out: one, but three in `trestled dev`.
    pub members_in_process: NonZeroUsize,
    /// What is this member's own about holding virtual IPs.
    pub vip: VipConfig,
}

/// Looks keys up and notes what is wrong with them.
pub(super) struct SettingReader<'a> {
    pub(super) given: &'a RawConfig,
    pub(super) v: Violations,
}

impl SettingReader<'_> {
    pub(super) fn field(name: &str, source: &SettingSource) -> String {
        match source {
            SettingSource::Default => name.to_owned(),
            source => format!("{name} ({source})"),
        }
    }

    /// The key's value, or the default when it is not given; `None` with a note when it breaks a rule.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, source) = self.given.text(name).unwrap_or((default, &SettingSource::Default));
        self.v.take(&Self::field(name, source), text, parse(text))
    }

    pub(super) fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (text, source) = self.given.text(name)?;
        self.v.take(&Self::field(name, source), text, parse(text))
    }

    fn socket(&mut self, name: &str, default_port: u16) -> Option<SocketAddr> {
        let default = &format!("127.0.0.1:{default_port}");
        self.read(name, default, |text| match text.parse::<SocketAddr>() {
            // With its zone a link-local address is one of this machine's.
            Ok(SocketAddr::V6(v6)) if v6.port() > 0 && v6.scope_id() > 0 => Ok(v6.into()),
            Ok(address) if address.port() > 0 => usable_ip(address.ip()).map(|_| address),
            _ => Err(format!("must be IP:PORT with a port of 1 to 65535, as in {default}")),
        })
    }

    pub(super) fn note(&mut self, name: &str, value: impl std::fmt::Display, rule: &str) {
        let source = self.given.text(name).map_or(&SettingSource::Default, |(_, source)| source);
        self.v.add(Self::field(name, source), value, rule);
    }

    /// What others dial: as given, or the address itself unless it is a wildcard, which nobody can dial.
    fn advertised(&mut self, name: &str, bound_name: &str, bound: Option<SocketAddr>) -> Option<HostPort> {
        if self.given.text(name).is_some() {
            return self.optional(name, HostPort::parse_reachable);
        }
        let bound = bound?;
        if bound.ip().is_unspecified() {
            self.note(bound_name, bound, &format!("is a wildcard that others cannot dial: set {name} too"));
        }
        if matches!(bound, SocketAddr::V6(v6) if v6.scope_id() > 0) {
            let rule = format!("has a zone, which means nothing to others: set {name} too");
            self.note(bound_name, bound, &rule);
        }
        Some(bound.into())
    }

    /// Asking to be taken in goes over plain connections, which nobody takes unless both files say so.
    fn must_be_insecure(&mut self, insecure: bool) {
        let asked =
            self.given.texts("join").map(|(texts, _)| texts.join(",")).filter(|texts| !texts.is_empty());
        // With a token nobody is asked so.
        let has_token = self.given.text("join_token_file").is_some();
        if let Some(asked) = asked
            && !insecure
            && !has_token
        {
            let rule = "asks over connections that are neither encrypted nor authenticated, which takes insecure = true on this \
                        member and in its cluster. A cluster that was founded without that takes in whoever has a token: \
                        \"trestle token create\" on one of its members, then \"trestled join\" here, and leave join out. A member \
                        that belongs to a cluster needs neither";
            self.note("join", asked, rule);
        }
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<usize>() {
        Ok(0) => Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
        Ok(n) if n <= WORKERS_MAX => Ok(NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)),
        _ => Err(format!("must be 1 to {WORKERS_MAX}, or 0 for one per core")),
    }
}

fn grace(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(grace) if grace <= SHUTDOWN_GRACE_MAX => Ok(grace),
        _ => Err("must be a time of 0s to 24h, as in 30s".to_owned()),
    }
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "default" => Ok(Profile::Default),
        "fast" => Ok(Profile::Fast),
        "wide" => Ok(Profile::Wide),
        _ => Err("must be default, fast or wide".to_owned()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must be the path of a directory".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// What the kernel calls this machine, without its domain; empty when it cannot be read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

impl Config {
    /// The keys and addresses of the ports by which a cluster is ruled, as far as other machines reach them.
    pub(crate) fn reachable_ports(&self) -> Vec<String> {
        let ports = [("admin_address", self.admin_address), ("peer_address", self.peer_address)];
        let reachable = ports.iter().filter(|(_, address)| !address.ip().is_loopback());
        reachable.map(|(key, address)| format!("{key} {address}")).collect()
    }

    /// A member on one loopback address, with the default ports and one worker: three of them share a machine.
    pub fn on_loopback(name: MemberName, host: Ipv4Addr, data_dir: PathBuf) -> Self {
        let address = |port| SocketAddr::new(host.into(), port);
        Self {
            name,
            admin_socket: AdminSocket::within(&data_dir),
            data_dir,
            admin_address: address(ADMIN_PORT),
            peer_address: address(PEER_PORT),
            http_address: address(HTTP_PORT),
            metrics_token_file: None,
            advertise_admin_address: address(ADMIN_PORT).into(),
            advertise_peer_address: address(PEER_PORT).into(),
            data_address: Some(host.into()),
            join: Vec::new(),
            join_token_file: None,
            founding: None,
            insecure: false,
            profile: Profile::default(),
            workers: NonZeroUsize::MIN,
            shutdown_grace: SHUTDOWN_GRACE,
            log_format: LogFormat::default(),
            access_log: None,
            access_log_file: None,
            check_directory: CHECK_DIRECTORY.into(),
            source: Sources::default(),
            backend_networks: Vec::new(),
            feature_level_max: FEATURE_LEVEL_MAX,
            members_in_process: NonZeroUsize::MIN,
            vip: VipConfig::default(),
        }
    }

    /// Checks everything that was given, and the mistakes that were found while reading it.
    ///
    /// # Errors
    /// Every mistake.
    pub fn check(given: &RawConfig, found: Violations) -> Result<Self, Invalid> {
        let mut r = SettingReader { given, v: found };
        let name = r.read("name", &host_name(), MemberName::parse);
        let data_dir = r.read("data_dir", DATA_DIR, directory);
        let admin = r.socket("admin_address", ADMIN_PORT);
        let admin_socket = r.admin_socket();
        let peer = r.socket("peer_address", PEER_PORT);
        let http = r.socket("http_address", HTTP_PORT);
        let metrics_token_file = r.token_file("metrics_token_file");
        let insecure = r.read("insecure", "false", boolean);
        r.must_be_insecure(insecure != Some(false));
        for (name, address, others) in
            [("peer_address", peer, vec![admin]), ("http_address", http, vec![admin, peer])]
        {
            if address.is_some() && others.contains(&address) {
                r.note(
                    name,
                    address.map(|a| a.to_string()).unwrap_or_default(),
                    "is used for another port already",
                );
            }
        }
        let advertise_admin = r.advertised("advertise_admin_address", "admin_address", admin);
        let advertise_peer = r.advertised("advertise_peer_address", "peer_address", peer);
        let data_address = r.optional("data_address", own_address);
        let join = r.peers();
        let join_token_file = r.token_file("join_token_file");
        let founding = r.founding(advertise_peer.as_ref(), insecure == Some(true));
        let profile = r.read("profile", "default", profile);
        let workers = r.read("workers", "0", workers);
        let grace = r.read("shutdown_grace", &humantime::format_duration(SHUTDOWN_GRACE).to_string(), grace);
        let log_format = r.read("log_format", "text", log_format);
        let (access_log, access_log_file) = r.access_log();
        let check_directory = r.check_directory();
        let source = r.source();
        let backend_networks = r.backend_networks();
        let own: Vec<SocketAddr> = [admin, peer, http].into_iter().flatten().collect();
        let vip = r.vip(&own);
        r.v.into_result()?;
        let config = || {
            Some(Self {
                name: name?,
                data_dir: data_dir?,
                admin_address: admin?,
                admin_socket: admin_socket?,
                peer_address: peer?,
                http_address: http?,
                metrics_token_file,
                advertise_admin_address: advertise_admin?,
                advertise_peer_address: advertise_peer?,
                data_address,
                join,
                join_token_file,
                founding,
                insecure: insecure?,
                profile: profile?,
                workers: workers?,
                shutdown_grace: grace?,
                log_format: log_format?,
                access_log: access_log?,
                access_log_file: access_log_file?,
                check_directory: check_directory?,
                source,
                backend_networks,
                feature_level_max: FEATURE_LEVEL_MAX,
                members_in_process: NonZeroUsize::MIN,
                vip: vip?,
            })
        };
        // A value is missing only together with a note, and then the line above has returned.
        config().ok_or_else(|| Invalid(Vec::new()))
    }
}

impl fmt::Display for Config {
    /// As TOML, every key with the value that is in force.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = match self.profile {
            Profile::Default => "default",
            Profile::Fast => "fast",
            Profile::Wide => "wide",
        };
        let log_format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let join: Vec<_> = self.join.iter().map(|peer| format!("\"{peer}\"")).collect();
        writeln!(f, "name = \"{}\"", self.name)?;
        writeln!(f, "data_dir = {:?}", self.data_dir)?;
        writeln!(f, "admin_address = \"{}\"", self.admin_address)?;
        write!(f, "{}", self.admin_socket)?;
        writeln!(f, "peer_address = \"{}\"", self.peer_address)?;
        writeln!(f, "http_address = \"{}\"", self.http_address)?;
        if let Some(file) = &self.metrics_token_file {
            writeln!(f, "metrics_token_file = {file:?}")?;
        }
        writeln!(f, "advertise_admin_address = \"{}\"", self.advertise_admin_address)?;
        writeln!(f, "advertise_peer_address = \"{}\"", self.advertise_peer_address)?;
        if let Some(address) = self.data_address {
            writeln!(f, "data_address = \"{address}\"")?;
        }
        writeln!(f, "join = [{}]", join.join(", "))?;
        if let Some(file) = &self.join_token_file {
            writeln!(f, "join_token_file = {file:?}")?;
        }
        if let Some(founding) = &self.founding {
            write!(f, "{founding}")?;
        }
        writeln!(f, "insecure = {}", self.insecure)?;
        writeln!(f, "profile = \"{profile}\"")?;
        writeln!(f, "workers = {}", self.workers)?;
        writeln!(f, "shutdown_grace = \"{}\"", humantime::format_duration(self.shutdown_grace))?;
        writeln!(f, "log_format = \"{log_format}\"")?;
        self.write_connections(f)?;
        self.write_vip(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::KEYS;
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> RawConfig {
        let mut given = RawConfig::default();
        for (name, text) in pairs {
            let key = KEYS.iter().find(|key| key.name == *name).unwrap();
            let texts = if key.list {
                text.split(',').map(str::to_owned).collect()
            } else {
                vec![(*text).to_owned()]
            };
            given.set(key, texts, SettingSource::Flag(format!("--{name}")));
        }
        given
    }

    #[test]
    fn nothing_given_is_a_loopback_member() {
        let config = Config::check(&given(&[("name", "m1")]), Violations::new()).unwrap();
        assert_eq!(config.admin_address.to_string(), "127.0.0.1:7480");
        assert_eq!(config.advertise_peer_address.as_str(), "127.0.0.1:7481");
        assert_eq!(config.shutdown_grace, SHUTDOWN_GRACE);
    }

    #[test]
    fn every_mistake_is_listed() {
        let bad = given(&[
            ("name", "a/b"),
            ("data_dir", ""),
            ("admin_address", "localhost"),
            ("peer_address", "10.0.0.1:7481"),
            ("http_address", "127.0.0.1:0"),
            ("data_address", "0.0.0.0"),
            ("join", "a:1,b"),
            ("profile", "quick"),
            ("workers", "-1"),
            ("shutdown_grace", "soon"),
            ("log_format", "xml"),
            ("access_log", "yes"),
            ("access_log_file", ""),
            ("check_directory", "checks"),
            ("source_address", "10.0.0.1,10.0.0.1,::"),
        ]);
        let found = Config::check(&bad, Violations::new()).unwrap_err().0;
        assert_eq!(found.len(), 16, "{found:#?}");
        assert!(found.iter().any(|f| f.field == "join (--join)" && f.rule.contains("insecure = true")));
    }

    #[test]
    fn every_address_may_be_reached_and_wildcards_need_a_name() {
        let open = [("name", "m1"), ("admin_address", "10.0.0.1:7480"), ("peer_address", "10.0.0.1:7481")];
        assert!(!Config::check(&given(&open), Violations::new()).unwrap().insecure);
        let wildcard = [("name", "m1"), ("peer_address", "0.0.0.0:7481")];
        let found = Config::check(&given(&wildcard), Violations::new()).unwrap_err().0;
        assert!(found.iter().any(|f| f.rule.contains("advertise_peer_address")), "{found:?}");
    }

    #[test]
    fn whoever_asks_to_be_taken_in_says_that_it_is_insecure() {
        let asks = [("name", "m1"), ("join", "10.0.0.1:7481,10.0.0.2:7481")];
        let found = Config::check(&given(&asks), Violations::new()).unwrap_err().0;
        assert_eq!(found.len(), 1, "{found:?}");
        for part in ["insecure = true", "trestle token create", "trestled join"] {
            assert!(found[0].rule.contains(part), "{found:?}");
        }
        let insecure = [asks[0], asks[1], ("insecure", "true")];
        assert_eq!(Config::check(&given(&insecure), Violations::new()).unwrap().join.len(), 2);
        // One mistake is told once.
        let unclear = [asks[0], asks[1], ("insecure", "maybe")];
        assert_eq!(Config::check(&given(&unclear), Violations::new()).unwrap_err().0.len(), 1);
    }

    #[test]
    fn addresses_that_can_never_work_are_refused_with_the_reason() {
        let rules = |key, text| -> String {
            let pairs = [("name", "m1"), ("insecure", "true"), (key, text)];
            let found = Config::check(&given(&pairs), Violations::new());
            found.err().into_iter().flat_map(|invalid| invalid.0).map(|violation| violation.rule).collect()
        };
        for key in ["admin_address", "peer_address", "http_address", "advertise_peer_address"] {
            assert!(rules(key, "[fe80::1]:7480").contains("link-local"), "{key}");
            assert!(rules(key, "[::ffff:10.0.0.1]:7480").contains("write 10.0.0.1"), "{key}");
        }
        for key in ["source_address", "data_address"] {
            assert!(rules(key, "fe80::1").contains("link-local"), "{key}");
            assert!(rules(key, "::ffff:10.0.0.1").contains("write 10.0.0.1"), "{key}");
        }
        assert!(rules("advertise_admin_address", "0.0.0.0:7480").contains("wildcard"));
        // A zone means something on this machine, where nobody else is told of it.
        assert_eq!(rules("http_address", "[fe80::1%2]:7482"), "");
        assert!(rules("admin_address", "[fe80::1%2]:7480").contains("set advertise_admin_address too"));
    }

    #[test]
    fn two_ports_on_one_address_are_refused() {
        let same = [("name", "m1"), ("http_address", "127.0.0.1:7480")];
        assert!(Config::check(&given(&same), Violations::new()).is_err());
    }
}
