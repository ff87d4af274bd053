//! Digests that prove that members agree.

use std::fmt;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::check::{CheckKind, ExchangeCheck, GrpcCheck, HttpCheck, TlsCheck};
use crate::listener::{Listener, ListenerSpec, Route};
use crate::machine::{Machine, Staged};
use crate::member::{Member, MemberSpec};
use crate::pool::{
    AdminState, Algorithm, AllDown, Backend, BackendSpec, HealthCheck, InitialState, OnDown, OnPrimaryUp,
    Pool, PoolSpec, SendProxy,
};
use crate::sockets::MemberSockets;
use crate::state::ClusterState;
use crate::tenure::{Tenure, VipEvent, VipEventKind};
use crate::vip::{OnQuorumLoss, Vip, VipSpec};

/// SHA-256 of a state. Equal states have equal digests on every member and version that knows the same fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Feeds values with their lengths, so that no two different sequences look alike.
struct Feeder(Sha256);

impl Feeder {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.update(bytes);
        self
    }

    fn text(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.bytes(text.as_ref().as_bytes())
    }

    fn texts<T: ToString>(&mut self, texts: &[T]) -> &mut Self {
        self.number(texts.len() as u64);
        for text in texts {
            self.text(text.to_string());
        }
        self
    }

    fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.0.update(number.into().to_le_bytes());
        self
    }

    fn time(&mut self, time: Duration) -> &mut Self {
        self.number(time.as_secs()).number(time.subsec_nanos())
    }

    /// Every field is named, so that a new one cannot be left out unseen.
    fn pool(&mut self, pool: &Pool) -> &mut Self {
        let Pool { name, spec, revision } = pool;
        let PoolSpec {
            algorithm,
            health,
            connect_timeout,
            connect_retries,
            on_down,
            on_primary_up,
            all_down,
            minimum_healthy,
            queue_length,
            queue_timeout,
            slow_start,
            stickiness,
            idle_timeout,
            max_lifetime,
            close_spread_percent,
            dead_peer_timeout,
            send_proxy,
        } = spec;
        let algorithm = match algorithm {
            Algorithm::RoundRobin => 1_u64,
            Algorithm::LeastConnections => 2,
            Algorithm::RandomTwo => 3,
            Algorithm::SourceHash => 4,
            Algorithm::First => 5,
            Algorithm::SourcePortHash => 6,
        };
        let send_proxy = match send_proxy {
            SendProxy::Off => 0_u64,
            SendProxy::V1 => 1,
            SendProxy::V2 => 2,
        };
        self.text(name.as_str()).number(*revision).number(algorithm).time(*connect_timeout);
        self.number(*connect_retries).health(health);
        self.number(*on_down == OnDown::Keep).number(*all_down == AllDown::FailOpen);
        self.number(*minimum_healthy).number(*queue_length).time(*queue_timeout).time(*slow_start);
        self.time(*stickiness)
            .time(*idle_timeout)
            .time(*max_lifetime)
            .time(*dead_peer_timeout)
            .number(send_proxy)
            .number(*on_primary_up == OnPrimaryUp::Close)
            .number(*close_spread_percent)
    }

    fn health(&mut self, health: &HealthCheck) -> &mut Self {
        let HealthCheck {
            kind,
            interval,
            fast_interval,
            timeout,
            rise,
            fall,
            jitter_percent,
            port,
            initial_state,
        } = health;
        let initial_state = match initial_state {
            InitialState::Unknown => 0_u64,
            InitialState::Healthy => 1,
            InitialState::Unhealthy => 2,
        };
        self.kind(kind).time(*interval).time(*fast_interval).time(*timeout).number(*rise).number(*fall);
        self.number(*jitter_percent).number(port.map_or(0, u16::from)).number(initial_state)
    }

    fn kind(&mut self, kind: &CheckKind) -> &mut Self {
        match kind {
            CheckKind::None => self.number(0_u64),
            CheckKind::Tcp => self.number(1_u64),
            CheckKind::Tls(tls) => self.number(2_u64).tls(tls),
            CheckKind::Http(http) => {
                let HttpCheck { tls, method, path, host, token_file, headers, expect, body_contains } = http;
                self.number(3_u64).optional_tls(tls.as_ref());
                self.text(method.as_str()).text(path).optional(host.as_deref());
                self.number(headers.len() as u64);
                for (name, value) in headers {
                    self.text(name).text(value);
                }
                self.texts(expect).optional(body_contains.as_deref()).optional(token_file.as_deref())
            }
            CheckKind::Grpc(GrpcCheck { tls, authority, service }) => {
                self.number(4_u64).optional_tls(tls.as_ref());
                self.optional(authority.as_deref()).optional(service.as_deref())
            }
            CheckKind::Exchange(ExchangeCheck { tls, send, expect, then }) => {
                self.number(5_u64).optional_tls(tls.as_ref()).bytes(send).bytes(expect);
                self.number(then.len() as u64);
                then.iter().fold(self, |digest, step| digest.bytes(&step.send).bytes(&step.expect))
            }
        }
    }

    fn optional_tls(&mut self, tls: Option<&TlsCheck>) -> &mut Self {
        self.number(tls.is_some());
        match tls {
            Some(tls) => self.tls(tls),
            None => self,
        }
    }

    fn tls(&mut self, tls: &TlsCheck) -> &mut Self {
        let TlsCheck { server_name, ca, min_days_left, identity } = tls;
        self.optional(server_name.as_deref()).optional(ca.as_deref()).number(*min_days_left);
        let files = identity.as_ref().map(|i| (&*i.certificate_file, &*i.key_file)).unzip();
        self.optional(files.0).optional(files.1)
    }

    fn optional(&mut self, text: Option<&str>) -> &mut Self {
        self.number(text.is_some()).text(text.unwrap_or_default())
    }

    fn backend(&mut self, backend: &Backend) -> &mut Self {
        let Backend { name, spec, revision } = backend;
        let BackendSpec { address, weight, backup, max_connections, admin_state } = spec;
        let (state, timeout) = match admin_state {
            AdminState::Enabled => (0_u64, None),
            AdminState::Draining { timeout } => (1, *timeout),
            AdminState::Disabled => (2, None),
        };
        self.text(name.as_str()).number(*revision).text(address.to_string()).number(*weight).number(*backup);
        self.number(state).time(timeout.unwrap_or_default()).number(*max_connections)
    }

    fn listener(&mut self, listener: &Listener) -> &mut Self {
        // Of an old listener, versions differ in what they know of when it was created.
        let Listener { name, spec, revision, created: _ } = listener;
        let ListenerSpec {
            binds,
            pool,
            routes,
            accept_proxy_from,
            allow,
            deny,
            max_connections,
            max_connections_per_source,
            accept_rate,
            accept_rate_per_source,
        } = spec;
        self.text(name.as_str()).number(*revision).text(pool.as_str()).texts(binds);
        self.number(routes.len() as u64);
        for Route { server_names, alpn, pool } in routes {
            self.texts(server_names).texts(alpn).text(pool.as_str());
        }
        self.texts(accept_proxy_from).texts(allow).texts(deny).number(*max_connections);
        self.number(*max_connections_per_source).number(*accept_rate).number(*accept_rate_per_source)
    }

    fn member(&mut self, member: &Member) -> &mut Self {
        let Member {
            id,
            spec: MemberSpec { name, peer_address, admin_address },
            draining,
            drain_timeout,
            revision,
        } = member;
        self.number(id.0).number(*revision).text(name.as_str());
        self.text(peer_address.as_str()).text(admin_address.as_str());
        // As before there were drains with a time, where there is none.
        match drain_timeout {
            Some(timeout) => self.number(2_u64).time(*timeout),
            None => self.number(*draining),
        }
    }

    fn vip(&mut self, vip: &Vip) -> &mut Self {
        let Vip { name, spec, revision } = vip;
        let VipSpec { address, interface, interface_overrides, on_quorum_loss, preferred, preference_delay } =
            spec;
        self.text(name.as_str()).number(*revision).text(address.to_string());
        self.optional(interface.as_ref().map(|name| name.as_str()));
        self.number(interface_overrides.len() as u64);
        for (member, interface) in interface_overrides {
            self.text(member.as_str()).text(interface.as_str());
        }
        self.number(*on_quorum_loss == OnQuorumLoss::Hold).texts(preferred).time(*preference_delay)
    }

    fn vip_event(&mut self, event: &VipEvent) -> &mut Self {
        let VipEvent { revision, time_ms, member, name, term, kind, reason, vips } = event;
        self.number(*revision).number(*time_ms).number(member.0).number(*term);
        self.number(*kind == VipEventKind::Released).optional(name.as_ref().map(|name| name.as_str()));
        self.text(reason).texts(vips)
    }
}

impl ClusterState {
    /// The digest of the configuration. Who holds the virtual IPs is left out: it changes without a revision, so that two
    /// members of one revision may differ in it.
    pub fn digest(&self) -> Digest {
        let Self {
            cluster_id,
            recovery,
            recovery_draws: _,
            revision,
            pools,
            listeners,
            members,
            vips,
            starts: _,
            sockets: _,
            tenure: _,
            vip_events: _,
        } = self;
        let mut f = Feeder(Sha256::new());
        f.text(cluster_id.as_ref().map_or("", |id| id.as_str())).number(*recovery).number(*revision);
        f.number(pools.len() as u64);
        for entry in pools.values() {
            f.pool(&entry.pool).number(entry.backends.len() as u64);
            entry.backends.values().for_each(|backend| {
                f.backend(backend);
            });
        }
        f.number(listeners.len() as u64);
        for listener in listeners.values() {
            f.listener(listener);
        }
        f.number(members.len() as u64);
        for member in members.values() {
            f.member(member);
        }
        f.number(vips.len() as u64);
        for vip in vips.values() {
            f.vip(vip);
        }
        Digest(f.0.finalize().into())
    }
}

impl Machine {
    /// The digest of the state, of the members' starts and sockets, of who holds the virtual IPs, and of the remembered requests.
    pub fn digest(&self) -> Digest {
        let mut f = Feeder(Sha256::new());
        f.0.update(self.state.digest().0);
        f.number(self.state.starts.len() as u64);
        for (member, start) in &self.state.starts {
            f.number(member.0).number(*start);
        }
        f.number(self.state.sockets.len() as u64);
        for (member, sockets) in &self.state.sockets {
            let MemberSockets { admin, peer, http, data_address, network } = &**sockets;
            f.number(member.0).texts(&[admin, peer, http]).number(*network);
            f.optional(data_address.map(|address| address.to_string()).as_deref());
        }
        f.number(self.state.tenure.is_some());
        if let Some(Tenure { member, term, reach, released }) = self.state.tenure {
            f.number(member.0).number(term).time(reach).number(released);
        }
        f.number(self.state.vip_events.len() as u64);
        for event in &self.state.vip_events {
            f.vip_event(event);
        }
        f.number(self.staged.is_some());
        if let Some(Staged { upload, pieces, index }) = &self.staged {
            f.number(*upload).number(*index).number(pieces.len() as u64);
            pieces.iter().for_each(|piece| {
                f.bytes(piece);
            });
        }
        f.number(self.remembered().len() as u64);
        for remembered in self.remembered() {
            f.text(remembered.id.as_str()).number(remembered.fingerprint).number(remembered.revision);
        }
        Digest(f.0.finalize().into())
    }
}
