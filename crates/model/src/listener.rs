//! Listeners: where clients connect.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Bind, is_dns_name};
use crate::cidr::Cidr;
use crate::defaults;
use crate::listen::ListenAddress;
use crate::metadata::Metadata;
use crate::name::{ListenerName, PoolName};
use crate::revision::Revision;
use crate::violation::{Violations, within};

/// Server names that a route takes: one, or all names one label below another, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamePattern {
    /// This name.
    Exact(Arc<str>),
    /// Every name of one label more: of `example.com`, `a.example.com` but not `a.b.example.com`.
    Below(Arc<str>),
}

impl NamePattern {
    /// Bytes of the name.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Exact(name) | Self::Below(name) => name.len(),
        }
    }

    /// Parses `api.example.com` or `*.example.com`; the error is the broken rule.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = |name: &str| name.to_ascii_lowercase().into();
        let (pattern, name) = match text.strip_prefix("*.") {
            Some(name) => (Self::Below(lower(name)), name),
            None => (Self::Exact(lower(text)), text),
        };
        if is_dns_name(name) {
            Ok(pattern)
        } else {
            Err("must be a host name, as in api.example.com or *.example.com".to_owned())
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// Where TLS connections of some names or protocols go. They are not decrypted: what counts is the client's hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Names of which one must be the client's SNI; empty for any, and for none.
    pub server_names: Vec<NamePattern>,
    /// Protocols of which the client must offer one by ALPN, as in `h2`; empty for any, and for none.
    pub alpn: Vec<Arc<str>>,
    /// The pool that they go to.
    pub pool: PoolName,
}

impl Route {
    fn check(&self, field: &str, v: &mut Violations) {
        if self.server_names.is_empty() && self.alpn.is_empty() {
            v.add(field, "", "must name server names or protocols; the listener's pool takes the rest");
        }
        let max = defaults::ROUTE_NAMES_MAX;
        for (name, count) in [("server_names", self.server_names.len()), ("alpn", self.alpn.len())] {
            if count > max {
                v.add(format!("{field}.{name}"), format!("{count} names"), format!("must be at most {max}"));
            }
        }
        // RFC 7301 §3.1 allows any bytes; every registered name is printable.
        let bad = |name: &&Arc<str>| {
            !(1..=255).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_graphic())
        };
        for name in self.alpn.iter().filter(bad) {
            v.add(format!("{field}.alpn"), name, "must be 1 to 255 printable ASCII characters, as in h2");
        }
    }
}

/// What becomes of a client that says nothing before its pool is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSilence {
    /// It is reset.
    #[default]
    Reset,
    /// It goes to the listener's own pool, as protocols need whose server speaks first.
    Pool,
}

/// The settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Addresses that every member binds; 1 to 16 with at most 8 192 ports, none named twice.
    pub binds: Vec<ListenAddress>,
    /// The pool that connections go to that no route takes.
    pub pool: PoolName,
    /// Where TLS connections go by server name and protocol; at most 64. The most specific one decides, of equals the
    /// first.
    pub routes: Vec<Route>,
    /// Networks whose connections begin with a PROXY protocol header, version 1 or 2, and are reset without; at most 64.
    /// Who connects from elsewhere sends none.
    pub accept_proxy_from: Vec<Cidr>,
    /// Networks that clients may connect from; at most 64, empty for all.
    pub allow: Vec<Cidr>,
    /// Networks that they may not, even where allowed; at most 64.
    pub deny: Vec<Cidr>,
    /// Connections on each member at a time; more wait to be accepted. 0 for no bound.
    pub max_connections: u32,
    /// Connections from one address, or one IPv6 network of 64 bits, on each member at a time; more are reset. 0 for no
    /// bound.
    pub max_connections_per_source: u32,
    /// Connections accepted each second on each member, after a pause a tenth of them at once; more wait to be accepted. 0
    /// for no bound.
    pub accept_rate: u32,
    /// Connections accepted each second from one address or network as above on each member, after a pause all of them at
    /// once; more are reset. 0 for no bound.
    pub accept_rate_per_source: u32,
    /// How long a client may take for the PROXY header and the TLS hello, both together, where they are read.
    pub first_bytes_timeout: Duration,
    /// What becomes of a client that sends nothing in that time, where there are routes.
    pub on_silence: OnSilence,
    /// Who cares for it, and notes.
    pub metadata: Metadata,
}

impl ListenerSpec {
    /// A listener with default settings.
    pub fn new<A: Into<ListenAddress>>(binds: Vec<A>, pool: PoolName) -> Self {
        Self {
            binds: binds.into_iter().map(Into::into).collect(),
            pool,
            routes: Vec::new(),
            accept_proxy_from: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            max_connections: 0,
            max_connections_per_source: 0,
            accept_rate: 0,
            accept_rate_per_source: 0,
            first_bytes_timeout: defaults::FIRST_BYTES_TIMEOUT,
            on_silence: OnSilence::default(),
            metadata: Metadata::default(),
        }
    }

    /// How many ports it has, over all its addresses.
    pub fn ports(&self) -> usize {
        self.binds.iter().map(ListenAddress::ports).sum()
    }

    /// Every pool that connections may go to; the same one may come more than once.
    pub fn pools(&self) -> impl Iterator<Item = &PoolName> {
        std::iter::once(&self.pool).chain(self.routes.iter().map(|route| &route.pool))
    }

    /// Notes every setting that breaks a rule.
    pub fn check(&self, v: &mut Violations) {
        if self.binds.is_empty() || self.binds.len() > defaults::BINDS_MAX {
            let rule = format!("must name 1 to {} addresses", defaults::BINDS_MAX);
            v.add("listener.binds", format!("{} addresses", self.binds.len()), rule);
        }
        let ports = self.ports();
        if ports > defaults::LISTENER_PORTS_MAX {
            let rule = format!(
                "must be at most {} over all addresses; name only ports that clients use, or several listeners",
                defaults::LISTENER_PORTS_MAX
            );
            v.add("listener.binds", format!("{ports} ports"), rule);
        }
        let lists = [
            ("listener.routes", self.routes.len(), defaults::ROUTES_MAX),
            ("listener.accept_proxy_from", self.accept_proxy_from.len(), defaults::NETWORKS_MAX),
            ("listener.allow", self.allow.len(), defaults::NETWORKS_MAX),
            ("listener.deny", self.deny.len(), defaults::NETWORKS_MAX),
        ];
        for (field, count, max) in lists.into_iter().filter(|(_, count, max)| count > max) {
            v.add(field, format!("{count} entries"), format!("must be at most {max}"));
        }
        for (i, route) in self.routes.iter().enumerate() {
            route.check(&format!("listener.routes[{i}]"), v);
        }
        self.check_numbers(v);
        self.metadata.check("listener", v);
    }

    /// Notes every number that is out of bounds.
    pub fn check_numbers(&self, v: &mut Violations) {
        let bounds = &defaults::CONNECTIONS_BOUNDS;
        within(v, "listener.max_connections", &self.max_connections, bounds);
        within(v, "listener.max_connections_per_source", &self.max_connections_per_source, bounds);
        within(v, "listener.accept_rate", &self.accept_rate, bounds);
        within(v, "listener.accept_rate_per_source", &self.accept_rate_per_source, bounds);
        let bounds = &defaults::FIRST_BYTES_TIMEOUT_BOUNDS;
        within(v, "listener.first_bytes_timeout", &self.first_bytes_timeout, bounds);
    }
}

/// A listener: addresses that lead to a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The listener's name.
    pub name: ListenerName,
    /// Its settings.
    pub spec: ListenerSpec,
    /// What each of its addresses means: those of virtual IPs in place of their names.
    pub binds: Vec<Bind>,
    /// Revision that last changed it.
    pub revision: Revision,
    /// Revision that created it: of two listeners that mean the same address on a member, the older one has it.
    pub created: Revision,
}
