//! One lookup: whom to ask, and which address of the answer to take.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::parse_resolv_conf;

/// How long resolv.conf and /etc/hosts are not read again. DHCP clients and people change them.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// Whom to ask where resolv.conf names nobody or is not there, as resolv.conf(5) has it.
const NOBODY_NAMED: &[u8] = b"\nnameserver 127.0.0.1\n";

/// Looks names up as this machine's configuration says: /etc/hosts, name servers, search list.
pub(super) struct Resolver {
    resolv_conf: PathBuf,
    made: Mutex<Option<(Instant, TokioResolver)>>,
}

/// Why a lookup for one family gave no address.
#[derive(Debug)]
struct Miss {
    words: String,
    /// Whether a server said that there is none, rather than nothing.
    certain: bool,
}

type Found = Result<Vec<IpAddr>, Miss>;

impl Resolver {
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf, made: Mutex::new(None) }
    }

    /// The address to take for `name`, where `current` has been taken so far, and how long it may be used.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn look_up(
        &self,
        name: &str,
        current: Option<IpAddr>,
    ) -> Result<(IpAddr, Duration), String> {
        let resolver = self.resolver()?;
        // Not `lookup_ip`, which hides that one of the two failed: then an address of the other family would be taken
        // because a packet was lost.
        let (v4, v6) =
            tokio::join!(resolver.lookup(name, RecordType::A), resolver.lookup(name, RecordType::AAAA));
        let until = [&v4, &v6].into_iter().flatten().map(Lookup::valid_until).min();
        let ttl = until.unwrap_or_else(Instant::now).saturating_duration_since(Instant::now());
        choose(current, found(v4), found(v6)).map(|ip| (ip, ttl))
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, resolver)) = &*made
            && at.elapsed() < READ_AGAIN
        {
            return Ok(resolver.clone());
        }
        let file = self.resolv_conf.display();
        let mut text = match std::fs::read(&self.resolv_conf) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| format!("{file} cannot be read: {error}"))?,
        };
        if !text.split(|byte| *byte == b'\n').any(|line| line.trim_ascii_start().starts_with(b"nameserver")) {
            text.extend_from_slice(NOBODY_NAMED);
        }
        let (config, mut options) =
            parse_resolv_conf(&text).map_err(|error| format!("{file} cannot be understood: {error}"))?;
        // Nothing asks twice while an answer is good, and a name that is missing shall be found soon after it is there.
        options.cache_size = 0;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| format!("no resolver: {error}"))?;
        *made = Some((Instant::now(), resolver.clone()));
        Ok(resolver)
    }
}

fn found(answer: Result<Lookup, NetError>) -> Found {
    match answer {
        Ok(lookup) => Ok(lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect()),
        Err(error) => Err(Miss { certain: error.is_no_records_found(), words: words(&error) }),
    }
}

fn words(error: &NetError) -> String {
    match error {
        _ if error.is_nx_domain() => "no such name".to_owned(),
        _ if error.is_no_records_found() => "has no address".to_owned(),
        NetError::Timeout => "no answer from a name server".to_owned(),
        NetError::Io(_) | NetError::NoConnections => "no name server can be reached".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server answered: {code}"),
        other => format!("lookup failed: {other}"),
    }
}

/// Takes one address. The current one is kept while it is still among the answers, and also while its family was not
/// answered for; otherwise it is the first by number, IPv4 before IPv6, so that all members take the same.
fn choose(current: Option<IpAddr>, v4: Found, v6: Found) -> Result<IpAddr, String> {
    // Wildcards are what some filters answer for names that they block; a connect would reach this machine.
    let usable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    let mut addresses: Vec<IpAddr> =
        [&v4, &v6].into_iter().flatten().flatten().copied().filter(usable).collect();
    addresses.sort_unstable();
    if let Some(current) = current {
        if addresses.contains(&current) {
            return Ok(current);
        }
        if let Err(Miss { words, certain: false }) = if current.is_ipv4() { &v4 } else { &v6 } {
            return Err(words.clone());
        }
    }
    let miss = [v4.err(), v6.err()].into_iter().flatten().next();
    addresses.first().copied().ok_or_else(|| miss.map_or("has no address".to_owned(), |miss| miss.words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ips(addresses: &[&str]) -> Found {
        Ok(addresses.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    fn miss(certain: bool) -> Found {
        Err(Miss { words: if certain { "none" } else { "lost" }.to_owned(), certain })
    }

    fn chosen(current: &str, v4: Found, v6: Found) -> String {
        choose(current.parse().ok(), v4, v6).map_or_else(|words| words, |ip| ip.to_string())
    }

    #[test]
    fn the_first_by_number_is_taken_and_then_kept() {
        let v4 = || ips(&["10.0.0.9", "10.0.0.10", "10.0.0.2"]);
        assert_eq!(chosen("", v4(), ips(&["::1"])), "10.0.0.2");
        assert_eq!(chosen("10.0.0.9", v4(), miss(true)), "10.0.0.9");
        assert_eq!(chosen("10.0.0.8", v4(), miss(false)), "10.0.0.2");
        assert_eq!(chosen("2001:db8::1", v4(), ips(&["2001:db8::1"])), "2001:db8::1");
        assert_eq!(chosen("", miss(true), ips(&["2001:db8::2", "2001:db8::1"])), "2001:db8::1");
    }

    #[test]
    fn a_lost_answer_is_no_reason_to_take_another_family() {
        assert_eq!(chosen("10.0.0.1", miss(false), ips(&["2001:db8::1"])), "lost");
        assert_eq!(chosen("10.0.0.1", miss(true), ips(&["2001:db8::1"])), "2001:db8::1");
        assert_eq!(chosen("2001:db8::1", ips(&["10.0.0.1"]), miss(false)), "lost");
        assert_eq!(chosen("", miss(false), ips(&["2001:db8::1"])), "2001:db8::1");
        assert_eq!(chosen("", miss(false), miss(true)), "lost");
    }

    #[test]
    fn what_cannot_be_dialled_is_no_address() {
        assert_eq!(chosen("", ips(&["0.0.0.0", "224.0.0.1"]), ips(&["::"])), "has no address");
        assert_eq!(chosen("", ips(&["0.0.0.0", "10.0.0.1"]), miss(true)), "10.0.0.1");
    }
}
