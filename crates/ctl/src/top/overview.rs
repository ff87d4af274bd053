//! What snapshots say, with the rates between two of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use trestle_api::v1;

use super::snapshot::Snapshot;
use crate::view::{PoolDown, PoolsDown, StatusView, raft_state_word, short_name, troubles, verdict_word};

/// The whole cluster at one time. Rates are `None` until they can be told.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Overview {
    /// Who answered, HOST:PORT.
    pub(crate) endpoint: String,
    /// `None` when the member that answers knows none.
    pub(crate) leader: Option<String>,
    pub(crate) revision: u64,
    pub(crate) voters: usize,
    pub(crate) voters_answering: usize,
    pub(crate) members: Vec<MemberRow>,
    pub(crate) vips: Vec<VipRow>,
    pub(crate) problems: Vec<String>,
    pub(crate) listeners: Vec<ListenerRow>,
    pub(crate) pools: Vec<PoolRow>,
}

/// A member in a few words.
#[derive(Debug, Serialize)]
pub(crate) struct MemberRow {
    pub(crate) name: String,
    /// Raft state, or "unreachable".
    pub(crate) state: String,
    pub(crate) connections: u64,
}

/// A virtual IP.
#[derive(Debug, Serialize)]
pub(crate) struct VipRow {
    pub(crate) name: String,
    /// Members whose kernels serve it; more than one is a split or a fault.
    pub(crate) holders: Vec<String>,
}

/// What goes through a listener, backend or pool, on all members that answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Traffic {
    pub(crate) connections: u64,
    pub(crate) connections_per_second: Option<f64>,
    pub(crate) bytes_in_per_second: Option<f64>,
    pub(crate) bytes_out_per_second: Option<f64>,
    /// Connections that reached no backend; for a backend, connects that failed.
    pub(crate) failures_per_second: Option<f64>,
}

/// A listener.
#[derive(Debug, Serialize)]
pub(crate) struct ListenerRow {
    pub(crate) name: String,
    /// Members that have all its addresses bound.
    pub(crate) ready: usize,
    /// Members that there are.
    pub(crate) members: usize,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
    /// What keeps it from being ready, or empty.
    pub(crate) problem: String,
}

/// A pool.
#[derive(Debug, Serialize)]
pub(crate) struct PoolRow {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
    /// Whether it has a health check.
    pub(crate) checked: bool,
    /// Members on which it is down, as the status says.
    pub(crate) down_on: Vec<String>,
    /// That it is down, in words.
    #[serde(skip)]
    pub(crate) down: Option<String>,
    pub(crate) backends: Vec<BackendRow>,
}

/// A backend.
#[derive(Debug, Serialize)]
pub(crate) struct BackendRow {
    /// POOL/NAME.
    pub(crate) name: String,
    pub(crate) address: String,
    /// "enabled", "draining", "drained" or "disabled".
    pub(crate) state: &'static str,
    /// What each member says, in the order of [`Overview::members`]: a verdict, or "-" when it says nothing.
    pub(crate) verdicts: Vec<&'static str>,
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
    /// Why it is not healthy, with the members that say so unless all do; or empty.
    pub(crate) reason: String,
    /// Whether its pool has a health check.
    pub(crate) checked: bool,
    /// The traffic on each member that says something.
    #[serde(skip)]
    pub(crate) by_member: BTreeMap<String, Traffic>,
}

impl BackendRow {
    /// True when every member that says something finds it healthy.
    pub(crate) fn healthy(&self) -> bool {
        let mut said = self.verdicts.iter().filter(|verdict| **verdict != "-").peekable();
        said.peek().is_some() && said.all(|verdict| *verdict == "healthy")
    }
}

/// What was counted for a resource on one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts([u64; 4]);

impl Counts {
    fn of_backend(view: &v1::MemberView) -> Self {
        Self([view.connections, view.bytes_in, view.bytes_out, view.connect_failures])
    }

    fn of_listener(view: &v1::ListenerView) -> Self {
        Self([view.connections, view.bytes_in, view.bytes_out, view.failures])
    }

    /// What came since; `None` when a counter went back, because it was begun anew.
    fn since(self, before: Self) -> Option<[u64; 4]> {
        let mut more = [0; 4];
        for ((more, now), before) in more.iter_mut().zip(self.0).zip(before.0) {
            *more = now.checked_sub(before)?;
        }
        Some(more)
    }
}

/// The counters of an earlier snapshot, by resource and member.
struct Before {
    counts: BTreeMap<(String, String), Counts>,
    seconds: f64,
}

impl Before {
    /// Leaves out members that were started anew in between, whose counters may have passed their old values.
    fn new(before: &Snapshot, now: &Snapshot) -> Option<Self> {
        let seconds = now.at.checked_sub(before.at)?.as_secs_f64();
        let uptimes = |snapshot: &Snapshot| -> BTreeMap<String, i64> {
            let uptime =
                |m: &v1::MemberStatus| Some((m.member.as_ref()?.name.clone(), m.uptime.as_ref()?.seconds));
            snapshot.status.members.iter().filter_map(uptime).collect()
        };
        let now_up = uptimes(now);
        let restarted: BTreeSet<String> = uptimes(before)
            .into_iter()
            .filter(|(name, up)| now_up.get(name).is_some_and(|now| now < up))
            .map(|(name, _)| name)
            .collect();
        let backends = before.health.backends.iter().flat_map(|b| {
            b.views.iter().map(|v| ((b.name.clone(), v.member.clone()), Counts::of_backend(v)))
        });
        let listeners = before.listeners.views.iter();
        let listeners = listeners.map(|v| ((v.listener.clone(), v.member.clone()), Counts::of_listener(v)));
        let counts = backends.chain(listeners).filter(|((_, m), _)| !restarted.contains(m)).collect();
        (seconds > 0.0).then_some(Self { counts, seconds })
    }

    fn more(&self, resource: &str, member: &str, now: Counts) -> Option<[u64; 4]> {
        now.since(*self.counts.get(&(resource.to_owned(), member.to_owned()))?)
    }
}

impl Traffic {
    /// Adds up what members count for a resource. Members whose counters cannot be compared count for nothing.
    fn sum<'a>(
        before: Option<&Before>,
        resource: &str,
        members: impl Iterator<Item = (&'a str, u64, Counts)>,
    ) -> Self {
        let (mut connections, mut total) = (0, None::<[u64; 4]>);
        for (member, active, now) in members {
            connections += active;
            if let Some(more) = before.and_then(|before| before.more(resource, member, now)) {
                let total = total.get_or_insert_default();
                total.iter_mut().zip(more).for_each(|(total, more)| *total += more);
            }
        }
        // No count of a second comes near the 2^53 that a float still tells apart.
        #[allow(clippy::cast_precision_loss)]
        let rates = before.zip(total).map(|(before, total)| total.map(|n| n as f64 / before.seconds));
        Self {
            connections,
            connections_per_second: rates.map(|r| r[0]),
            bytes_in_per_second: rates.map(|r| r[1]),
            bytes_out_per_second: rates.map(|r| r[2]),
            failures_per_second: rates.map(|r| r[3]),
        }
    }

    fn plus(self, other: Self) -> Self {
        let add = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(a + b.unwrap_or_default()));
        Self {
            connections: self.connections + other.connections,
            connections_per_second: add(self.connections_per_second, other.connections_per_second),
            bytes_in_per_second: add(self.bytes_in_per_second, other.bytes_in_per_second),
            bytes_out_per_second: add(self.bytes_out_per_second, other.bytes_out_per_second),
            failures_per_second: add(self.failures_per_second, other.failures_per_second),
        }
    }
}

impl Overview {
    /// What a snapshot says, with the rates since an earlier one.
    pub(crate) fn new(before: Option<&Snapshot>, now: &Snapshot) -> Self {
        let before = before.and_then(|before| Before::new(before, now));
        let members: Vec<MemberRow> = now.status.members.iter().map(member).collect();
        let voters: Vec<_> = now.status.members.iter().filter(|m| is_voter(m)).collect();
        let status = StatusView::from(now.status.clone());
        let down = status.pools_down();
        let mut problems = status.into_problems();
        problems.extend(now.missing.iter().map(|why| format!("backends are not shown: {why}")));
        Self {
            endpoint: now.endpoint.clone(),
            leader: (!now.status.leader.is_empty()).then(|| short_name(&now.status.leader)),
            revision: now.status.revision,
            voters: voters.len(),
            voters_answering: voters.iter().filter(|m| m.reachable).count(),
            problems,
            listeners: listener_rows(before.as_ref(), now, members.len()),
            pools: pool_rows(before.as_ref(), now, &members, down),
            vips: vip_rows(&now.vips),
            members,
        }
    }
}

impl Overview {
    /// The pools that are down.
    pub(crate) fn pools_down(&self) -> PoolsDown {
        let down = |pool: &PoolRow| {
            let down = PoolDown { on: pool.down_on.clone(), words: pool.down.clone()? };
            Some((pool.name.clone(), down))
        };
        self.pools.iter().filter_map(down).collect()
    }
}

fn is_voter(status: &v1::MemberStatus) -> bool {
    status.member.as_ref().is_some_and(|member| member.role() == v1::MemberRole::Voter)
}

fn member(status: &v1::MemberStatus) -> MemberRow {
    MemberRow {
        name: status.member.as_ref().map(|m| short_name(&m.name)).unwrap_or_default(),
        state: if status.reachable { raft_state_word(status.raft_state()) } else { "unreachable" }.to_owned(),
        connections: status.active_connections,
    }
}

fn vip_rows(views: &[v1::VipView]) -> Vec<VipRow> {
    let mut by_vip = BTreeMap::<String, Vec<String>>::new();
    for view in views {
        let holders = by_vip.entry(short_name(&view.vip)).or_default();
        holders.extend(view.holds.then(|| short_name(&view.member)));
    }
    by_vip.into_iter().map(|(name, holders)| VipRow { name, holders }).collect()
}

fn listener_rows(before: Option<&Before>, now: &Snapshot, members: usize) -> Vec<ListenerRow> {
    let mut by_listener = BTreeMap::<&str, Vec<&v1::ListenerView>>::new();
    for view in &now.listeners.views {
        by_listener.entry(&view.listener).or_default().push(view);
    }
    let silent: Vec<String> = now.listeners.unreachable_members.iter().map(|m| short_name(m)).collect();
    let row = |(resource, views): (&str, Vec<&v1::ListenerView>)| {
        let ready = |v: &&&v1::ListenerView| v.errors.is_empty() && !v.bound.is_empty();
        let reasons = |v: &v1::ListenerView| {
            let reasons: Vec<&str> = v.bind_failures.iter().map(|failure| failure.reason.as_str()).collect();
            if reasons.is_empty() { v.errors.join("; ") } else { reasons.join("; ") }
        };
        let failed = views.iter().filter(|v| !v.errors.is_empty());
        let failed = failed.map(|v| (short_name(&v.member), reasons(v)));
        let silent = silent.iter().map(|member| (member.clone(), "unreachable".to_owned()));
        ListenerRow {
            name: short_name(resource),
            ready: views.iter().filter(ready).count(),
            members: members.max(views.len()),
            traffic: Traffic::sum(
                before,
                resource,
                views.iter().map(|v| (v.member.as_str(), v.active_connections, Counts::of_listener(v))),
            ),
            problem: troubles(members.max(views.len()), failed.chain(silent)),
        }
    };
    by_listener.into_iter().map(row).collect()
}

fn pool_rows(
    before: Option<&Before>,
    now: &Snapshot,
    members: &[MemberRow],
    mut down: PoolsDown,
) -> Vec<PoolRow> {
    let unchecked: BTreeSet<String> =
        now.pools.iter().filter(|pool| is_unchecked(pool)).map(|pool| short_name(&pool.name)).collect();
    let names = now.pools.iter().map(|pool| short_name(&pool.name));
    let mut by_pool: BTreeMap<String, Vec<BackendRow>> = names.map(|name| (name, Vec::new())).collect();
    for backend in &now.health.backends {
        let mut row = backend_row(before, backend, members);
        if row.state == "draining" && now.health.unreachable_members.is_empty() && is_drained(backend) {
            row.state = "drained";
        }
        let pool = row.name.split_once('/').map(|(pool, _)| pool.to_owned()).unwrap_or_default();
        row.checked = !unchecked.contains(&pool);
        by_pool.entry(pool).or_default().push(row);
    }
    let row = |(name, backends): (String, Vec<BackendRow>)| {
        let (down_on, down) = down.remove(&name).map(|down| (down.on, down.words)).unzip();
        PoolRow {
            checked: !unchecked.contains(&name),
            name,
            traffic: backends.iter().map(|b| b.traffic).fold(Traffic::default(), Traffic::plus),
            down_on: down_on.unwrap_or_default(),
            down,
            backends,
        }
    };
    by_pool.into_iter().map(row).collect()
}

fn is_unchecked(pool: &v1::Pool) -> bool {
    let kind = pool.health_check.as_ref().and_then(|check| check.kind.as_ref());
    matches!(kind, Some(v1::health_check::Kind::None(_)))
}

/// Whether every member that was asked gives a backend no new connections, and has none open.
fn is_drained(backend: &v1::BackendHealth) -> bool {
    let done = |view: &v1::MemberView| view.draining && view.active_connections == 0;
    !backend.views.is_empty() && backend.views.iter().all(done)
}

fn backend_row(before: Option<&Before>, backend: &v1::BackendHealth, members: &[MemberRow]) -> BackendRow {
    let said: BTreeMap<String, &v1::MemberView> =
        backend.views.iter().map(|view| (short_name(&view.member), view)).collect();
    let verdict =
        |member: &MemberRow| said.get(&member.name).map_or("-", |view| verdict_word(view.verdict()));
    let unwell = backend.views.iter().filter(|view| view.verdict() != v1::Verdict::Healthy);
    let reasons = unwell.map(|view| (short_name(&view.member), view.reason.clone()));
    let of_one = |view: &v1::MemberView| {
        let counted = [(view.member.as_str(), view.active_connections, Counts::of_backend(view))];
        (short_name(&view.member), Traffic::sum(before, &backend.name, counted.into_iter()))
    };
    BackendRow {
        name: short_name(&backend.name),
        address: backend.address.clone(),
        state: match backend.admin_state() {
            v1::AdminState::Draining => "draining",
            v1::AdminState::Disabled => "disabled",
            v1::AdminState::Enabled | v1::AdminState::Unspecified => "enabled",
        },
        verdicts: members.iter().map(verdict).collect(),
        traffic: Traffic::sum(
            before,
            &backend.name,
            backend.views.iter().map(|v| (v.member.as_str(), v.active_connections, Counts::of_backend(v))),
        ),
        reason: troubles(backend.views.len(), reasons),
        checked: true,
        by_member: backend.views.iter().map(of_one).collect(),
    }
}
