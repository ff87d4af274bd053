//! One lookup: which servers are asked for which names, and what the answers say.

use std::fs::Metadata;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::Semaphore;
use tokio::time::sleep_until;
use trestle_engine::Family;

use super::hosts::Hosts;

/// The name server that is asked where resolv.conf names none or is missing; see resolv.conf(5).
const NOBODY_NAMED: &[u8] = b"\nnameserver 127.0.0.1\n";

/// Most questions under way at a time for each family. Some name servers drop questions for AAAA, and those must not hold up
/// questions for A. Each question takes a socket for each name server that is asked.
const AT_A_TIME: usize = 32;

/// How long to wait for the second family after the first has been answered (RFC 8305 §3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// What tells that a file was replaced or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

/// Where names are looked up, by the last contents of this machine's two files.
struct Configuration {
    stamps: [Option<Stamp>; 2],
    hosts: Hosts,
    /// The name servers, or in words why none can be asked.
    servers: Result<Servers, String>,
}

/// The name servers and how they are asked.
#[derive(Clone)]
struct Servers {
    resolver: TokioResolver,
    search: Arc<[Name]>,
    /// Names with at least as many dots are first looked up as they are.
    ndots: usize,
    /// `options no-aaaa`: AAAA is not asked for.
    no_aaaa: bool,
}

/// Looks names up as getent(1) does: /etc/hosts, then name servers with the search list.
pub(super) struct Resolver {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    read: Mutex<Option<Arc<Configuration>>>,
    places: [Semaphore; 2],
}

/// Why a question gave no address.
#[derive(Debug)]
pub(super) struct Miss {
    kind: MissKind,
    words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MissKind {
    /// A server said that there is no such name.
    NoName,
    /// A server said that it has no address of the family.
    NoAddress,
    /// A server said that it could not find out.
    Refused,
    /// No server answered.
    Lost,
}

/// Addresses and how long they may be used.
pub(super) type FoundAddresses = Result<(Vec<IpAddr>, Duration), Miss>;

type Asked = Pin<Box<dyn Future<Output = FoundAddresses> + Send>>;

/// The answer for one family that is still on its way.
pub(super) struct Late {
    name: Name,
    pub(super) family: Family,
    pub(super) answer: Asked,
}

/// What was found.
pub(super) struct NameAnswer {
    /// The addresses of IPv4 and of IPv6; `None` where no server has answered.
    pub(super) v4: Option<Vec<IpAddr>>,
    pub(super) v6: Option<Vec<IpAddr>>,
    pub(super) ttl: Duration,
    pub(super) late: Option<Late>,
}

/// The addresses that an answer states for sure.
pub(super) fn certain(found: FoundAddresses) -> Option<Vec<IpAddr>> {
    match found {
        Ok((addresses, _)) => Some(addresses),
        Err(Miss { kind: MissKind::NoName | MissKind::NoAddress, .. }) => Some(Vec::new()),
        Err(Miss { kind: MissKind::Refused | MissKind::Lost, .. }) => None,
    }
}

impl Resolver {
    pub(super) fn new(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        let places = [(); 2].map(|()| Semaphore::new(AT_A_TIME));
        Self { resolv_conf, hosts, read: Mutex::default(), places }
    }

    /// Reads the files again if they have changed since they were read, and says whether they have.
    pub(super) fn follow_files(&self) -> bool {
        let stamps = [&self.resolv_conf, &self.hosts].map(|file| std::fs::metadata(file).ok().map(stamp));
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = read.as_ref().is_none_or(|read| read.stamps != stamps);
        if changed {
            // Where the file is missing or cannot be read, name servers are asked, as getent(1) does.
            let hosts = std::fs::read(&self.hosts).unwrap_or_default();
            let hosts = Hosts::parse(&String::from_utf8_lossy(&hosts));
            *read = Some(Arc::new(Configuration { stamps, hosts, servers: servers(&self.resolv_conf) }));
        }
        changed
    }

    fn configuration(&self) -> Option<Arc<Configuration>> {
        self.follow_files();
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The addresses of `name`. `late` is an answer to the previous lookup that is still on its way.
    ///
    /// # Errors
    /// Why no address was found, in words.
    pub(super) async fn look_up(
        self: &Arc<Self>,
        name: &str,
        mut late: Option<Late>,
    ) -> Result<NameAnswer, String> {
        let configuration = self.configuration().ok_or("no configuration was read")?;
        if let Some(addresses) = configuration.hosts.find(name) {
            let (v4, v6) = addresses.iter().copied().partition(IpAddr::is_ipv4);
            return Ok(NameAnswer { v4: Some(v4), v6: Some(v6), ttl: Duration::MAX, late: None });
        }
        let servers = configuration.servers.clone()?;
        drop(configuration);
        let mut missed: Option<Miss> = None;
        for name in servers.names(name)? {
            let late = late.take_if(|late| late.name == name);
            let (v4, v6, late) = self.ask(&servers, &name, late).await;
            if let Some(ttl) = [&v4, &v6].into_iter().flatten().flatten().map(|(_, ttl)| *ttl).min() {
                return Ok(NameAnswer { v4: v4.and_then(certain), v6: v6.and_then(certain), ttl, late });
            }
            // Of several reasons the least certain one is told, and of two equal ones that of the first question.
            for miss in [v4, v6].into_iter().flatten().filter_map(Result::err) {
                if missed.as_ref().is_none_or(|before| before.kind < miss.kind) {
                    missed = Some(miss);
                }
            }
            // Going on would use the addresses of the next name only because a packet was lost; see resolv.conf(5).
            if missed.as_ref().is_some_and(|miss| miss.kind == MissKind::Lost) {
                break;
            }
        }
        Err(missed.map_or_else(|| "has no address".to_owned(), |miss| miss.words))
    }

    /// Asks for the addresses of both families. Once one is answered, it waits only a moment for the other, so that a name server
    /// that drops one kind of question holds nothing up.
    ///
    /// hickory's `lookup_ip` is not used, because it hides that one of the two failed. An address of the other family would then
    /// be used only because a packet was lost.
    async fn ask(
        self: &Arc<Self>,
        servers: &Servers,
        name: &Name,
        late: Option<Late>,
    ) -> (Option<FoundAddresses>, Option<FoundAddresses>, Option<Late>) {
        let (late_v4, late_v6) = match late {
            Some(late) if late.family == Family::V4 => (Some(late.answer), None),
            late => (None, late.map(|late| late.answer)),
        };
        let mut asked_v4 = late_v4.unwrap_or_else(|| self.question(servers, name, Family::V4));
        let mut asked_v6 = late_v6.unwrap_or_else(|| self.question(servers, name, Family::V6));
        let (mut v4, mut v6): (Option<FoundAddresses>, Option<FoundAddresses>) = (None, None);
        let mut end: Option<Instant> = None;
        while v4.is_none() || v6.is_none() {
            tokio::select! {
                biased;
                found = &mut asked_v4, if v4.is_none() => v4 = Some(found),
                found = &mut asked_v6, if v6.is_none() => v6 = Some(found),
                () = sleep_until(end.unwrap_or_else(Instant::now).into()), if end.is_some() => break,
            }
            // A name that does not exist has no addresses of either family (RFC 8020). But some servers say so of every name that
            // they are asked for AAAA of (RFC 4074 §4.2).
            let is_none = matches!(&v4, Some(Err(miss)) if miss.kind == MissKind::NoName);
            if is_none || [&v4, &v6].into_iter().flatten().any(Result::is_ok) {
                end.get_or_insert_with(|| Instant::now() + RESOLUTION_DELAY);
            }
        }
        let late = |family, answer| Late { name: name.clone(), family, answer };
        let late = match (&v4, &v6) {
            (None, _) => Some(late(Family::V4, asked_v4)),
            (_, None) => Some(late(Family::V6, asked_v6)),
            _ => None,
        };
        (v4, v6, late)
    }

    fn question(self: &Arc<Self>, servers: &Servers, name: &Name, family: Family) -> Asked {
        let (this, resolver, name) = (self.clone(), servers.resolver.clone(), name.clone());
        let is_asked = family == Family::V4 || !servers.no_aaaa;
        Box::pin(async move {
            if !is_asked {
                return Err(Miss { kind: MissKind::NoAddress, words: "has no address".to_owned() });
            }
            let [v4, v6] = &this.places;
            let (places, record) = match family {
                Family::V4 => (v4, RecordType::A),
                Family::V6 => (v6, RecordType::AAAA),
            };
            // This fails only when the semaphore is closed, which never happens.
            let _place = places.acquire().await;
            found(resolver.lookup(name, record).await)
        })
    }
}

impl Servers {
    /// The names that are asked for in place of one. A name without a final dot is completed by the search list.
    fn names(&self, name: &str) -> Result<Vec<Name>, String> {
        // The stricter parser for host names is not used, because it refuses underscores.
        let name = Name::from_ascii(name).map_err(|error| format!("is no name of the DNS: {error}"))?;
        let mut whole = name.clone();
        whole.set_fqdn(true);
        if name.is_fqdn() {
            return Ok(vec![whole]);
        }
        let mut names = Vec::new();
        if usize::from(name.num_labels()) > self.ndots || name.is_localhost() {
            names.push(whole.clone());
        }
        // A name that would be too long is left out.
        names.extend(self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()));
        names.push(whole);
        let mut once: Vec<Name> = Vec::new();
        for name in names {
            if !once.contains(&name) {
                once.push(name);
            }
        }
        Ok(once)
    }
}

fn stamp(file: Metadata) -> Stamp {
    Stamp { inode: file.ino(), changed: (file.ctime(), file.ctime_nsec()), size: file.size() }
}

/// Reads a file in the form of resolv.conf(5).
fn servers(file: &Path) -> Result<Servers, String> {
    let shown = file.display();
    let mut text = match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|error| format!("{shown} cannot be read: {error}"))?,
    };
    if !text.split(|byte| *byte == b'\n').any(|line| line.trim_ascii_start().starts_with(b"nameserver")) {
        text.extend_from_slice(NOBODY_NAMED);
    }
    let (config, mut options) =
        parse_resolv_conf(&text).map_err(|error| format!("{shown} cannot be understood: {error}"))?;
    // hickory does not parse this option.
    let (parsed, _) = resolv_conf::Config::parse_with_errors(text.as_slice());
    // There is no cache: nothing asks again while an answer is valid, and a name must be found soon after it was added.
    options.cache_size = 0;
    // /etc/hosts is read here, before both kinds of questions.
    options.use_hosts_file = ResolveHosts::Never;
    let search: Vec<&Name> = match config.search() {
        [] => config.domain().into_iter().collect(),
        search => search.iter().collect(),
    };
    let search = search.into_iter().cloned().collect();
    let ndots = options.ndots;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let resolver = builder.build().map_err(|error| format!("no resolver: {error}"))?;
    Ok(Servers { resolver, search, ndots, no_aaaa: parsed.no_aaaa })
}

fn found(answer: Result<Lookup, NetError>) -> FoundAddresses {
    let lookup = answer.map_err(|error| miss(&error))?;
    let addresses: Vec<IpAddr> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
    if addresses.is_empty() {
        // The name is an alias of a name without addresses.
        return Err(Miss { kind: MissKind::NoAddress, words: "has no address".to_owned() });
    }
    Ok((addresses, lookup.valid_until().saturating_duration_since(Instant::now())))
}

fn miss(error: &NetError) -> Miss {
    let (kind, words) = match error {
        _ if error.is_nx_domain() => (MissKind::NoName, "no such name".to_owned()),
        _ if error.is_no_records_found() => (MissKind::NoAddress, "has no address".to_owned()),
        NetError::Timeout => (MissKind::Lost, "no answer from a name server".to_owned()),
        NetError::Io(_) | NetError::NoConnections => {
            (MissKind::Lost, "no name server can be reached".to_owned())
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            (MissKind::Refused, format!("the name server answered: {code}"))
        }
        other => (MissKind::Lost, format!("lookup failed: {other}")),
    };
    Miss { kind, words }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(resolv_conf: &str, name: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, resolv_conf).unwrap();
        servers(&file).unwrap().names(name).unwrap().iter().map(Name::to_ascii).collect()
    }

    #[tokio::test]
    async fn the_search_list_completes_names_that_have_no_final_dot() {
        let conf = "nameserver 127.0.0.1\nsearch my_corp.example b.example .\n";
        assert_eq!(names(conf, "web.")[..], ["web."]);
        assert_eq!(names(conf, "web"), ["web.my_corp.example.", "web.b.example.", "web."]);
        assert_eq!(names(conf, "web_1.x"), ["web_1.x.", "web_1.x.my_corp.example.", "web_1.x.b.example."]);
        let dots = "nameserver 127.0.0.1\nsearch a.example\noptions ndots:5\n";
        assert_eq!(names(dots, "web.b"), ["web.b.a.example.", "web.b."]);
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(names(dots, &long), [long + "."]);
    }
}
