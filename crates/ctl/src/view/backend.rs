//! Backends, with what the members see of them.

use std::collections::BTreeSet;

use serde::Serialize;
use trestle_api::v1;
use trestle_model::BackendAddress;

use super::span::{self, Span};
use super::{MetadataView, or_dash, short_name, troubles};
use crate::table;

/// A backend as it is configured.
#[derive(Debug, Serialize)]
pub(crate) struct BackendView {
    name: String,
    pool: String,
    address: String,
    weight: Option<u32>,
    backup: bool,
    /// `None` for no bound.
    max_connections: Option<u32>,
    state: &'static str,
    #[serde(flatten, serialize_with = "span::drain_deadline")]
    drain_deadline: Option<Span>,
    /// Revision that last changed it.
    pub(crate) revision: u64,
    etag: String,
    #[serde(flatten)]
    metadata: MetadataView,
}

impl From<v1::Backend> for BackendView {
    fn from(backend: v1::Backend) -> Self {
        let state = match backend.admin_state() {
            v1::AdminState::Draining => "draining",
            v1::AdminState::Disabled => "disabled",
            v1::AdminState::Enabled | v1::AdminState::Unspecified => "enabled",
        };
        let name = short_name(&backend.name);
        Self {
            pool: name.split_once('/').map(|(pool, _)| pool.to_owned()).unwrap_or_default(),
            name,
            address: backend.address,
            weight: backend.weight,
            backup: backend.backup,
            max_connections: (backend.max_connections > 0).then_some(backend.max_connections),
            state,
            drain_deadline: Span::setting(backend.drain_timeout.as_ref()),
            revision: backend.revision,
            etag: backend.etag,
            metadata: MetadataView::new(backend.owner, backend.annotations),
        }
    }
}

/// A backend with what the members see of it.
#[derive(Debug, Serialize)]
pub(crate) struct BackendState {
    #[serde(flatten)]
    backend: BackendView,
    /// `None` when the members' views could not be had.
    health: Option<HealthView>,
}

#[derive(Debug, Serialize)]
struct HealthView {
    healthy: usize,
    members: usize,
    connections: u64,
    /// Time until connections that are left are closed, because of a drain with a deadline.
    #[serde(flatten, serialize_with = "span::drain_left")]
    drain_left: Option<Span>,
    /// Whether it is drained: every member says that it gives it no new connections and has none open.
    drained: bool,
    views: Vec<MemberView>,
    unreachable: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    member: String,
    verdict: &'static str,
    reason: String,
    /// Since when it is so.
    since: Option<String>,
    /// How long it is so.
    #[serde(flatten, serialize_with = "span::age")]
    age: Option<Span>,
    connections: u64,
    /// Counted since the member has had the backend or was started, as all below.
    connections_total: u64,
    bytes_in: u64,
    bytes_out: u64,
    connect_failures: u64,
    /// Time until connections that are left there are closed, because of a drain with a deadline.
    #[serde(flatten, serialize_with = "span::drain_left")]
    drain_left: Option<Span>,
    /// Whether the member gives it no new connections because it is drained.
    draining: bool,
    /// Where the member dials it; `None` while its name has no address.
    address: Option<String>,
    /// What else its name stands for.
    other_addresses: Vec<String>,
    /// The last changes of the verdict, the oldest first.
    history: Vec<ChangeView>,
}

#[derive(Debug, Serialize)]
struct ChangeView {
    verdict: &'static str,
    reason: String,
    time: Option<String>,
    #[serde(flatten, serialize_with = "span::ago")]
    ago: Option<Span>,
}

/// The word for a verdict.
pub(crate) fn verdict_word(verdict: v1::Verdict) -> &'static str {
    match verdict {
        v1::Verdict::Healthy => "healthy",
        v1::Verdict::Unhealthy => "unhealthy",
        v1::Verdict::Unknown | v1::Verdict::Unspecified => "unknown",
    }
}

impl From<v1::VerdictChange> for ChangeView {
    fn from(change: v1::VerdictChange) -> Self {
        let ago = Span::seconds(change.ago.as_ref());
        Self {
            verdict: verdict_word(change.verdict()),
            reason: change.reason,
            time: ago.and_then(Span::ago),
            ago,
        }
    }
}

impl From<v1::MemberView> for MemberView {
    fn from(view: v1::MemberView) -> Self {
        let age = Span::seconds(view.since.as_ref());
        Self {
            member: short_name(&view.member),
            verdict: verdict_word(view.verdict()),
            reason: view.reason,
            since: age.and_then(Span::ago),
            age,
            connections: view.active_connections,
            connections_total: view.connections,
            bytes_in: view.bytes_in,
            bytes_out: view.bytes_out,
            connect_failures: view.connect_failures,
            drain_left: Span::seconds(view.drain_left.as_ref()),
            draining: view.draining,
            address: Some(view.address).filter(|address| !address.is_empty()),
            other_addresses: view.other_addresses,
            history: view.history.into_iter().map(Into::into).collect(),
        }
    }
}

impl MemberView {
    fn trouble(&self) -> String {
        if self.reason.is_empty() { self.verdict.to_owned() } else { self.reason.clone() }
    }
}

impl HealthView {
    fn count(&self) -> String {
        format!("healthy on {}/{} members", self.healthy, self.members)
    }

    /// "healthy on 3/3 members", or with what differs: "healthy on 2/3 members (m2: connection refused)".
    fn brief(&self) -> String {
        if self.members == 0 {
            return "no member has checked it yet".to_owned();
        }
        if self.healthy == self.members {
            return self.count();
        }
        let not_healthy = self.views.iter().filter(|v| v.verdict != "healthy");
        let seen = not_healthy.map(|v| (v.member.clone(), v.trouble()));
        let silent = self.unreachable.iter().map(|member| (member.clone(), "unreachable".to_owned()));
        let troubles = troubles(self.members, seen.chain(silent));
        // A verdict that nobody has yet, or that nobody will have because there is no check, is no bad news.
        let undecided = self.unreachable.is_empty() && self.views.iter().all(|v| v.verdict == "unknown");
        if undecided { format!("unknown ({troubles})") } else { format!("{} ({troubles})", self.count()) }
    }
}

/// How far a drain is: "draining, 12 open, 2m14s left"; "drained" once nothing is open, and nothing new comes.
pub(super) fn draining(drained: bool, open: u64, left: Option<Span>, deadline: Option<Span>) -> String {
    match (left, deadline) {
        _ if drained => "drained".to_owned(),
        (Some(left), _) => format!("draining, {open} open, {left} left"),
        // Not known yet, or to a member of an older version only.
        (None, Some(deadline)) => format!("draining, {open} open (deadline {deadline})"),
        (None, None) => format!("draining, {open} open"),
    }
}

impl BackendState {
    /// Joins backends with the members' views of their pool, which may be missing or list other backends.
    pub(crate) fn join(backends: Vec<v1::Backend>, health: Option<v1::PoolHealth>) -> Vec<Self> {
        let Some(health) = health else {
            return backends.into_iter().map(|b| Self { backend: b.into(), health: None }).collect();
        };
        let unreachable: Vec<String> = health.unreachable_members.iter().map(|m| short_name(m)).collect();
        let mut views: std::collections::BTreeMap<String, Vec<v1::MemberView>> =
            health.backends.into_iter().map(|b| (b.name, b.views)).collect();
        let with_views = |backend: v1::Backend| {
            let seen = views.remove(&backend.name).unwrap_or_default();
            let seen: Vec<MemberView> = seen.into_iter().map(Into::into).collect();
            let health = HealthView {
                healthy: seen.iter().filter(|v| v.verdict == "healthy").count(),
                members: seen.len() + unreachable.len(),
                connections: seen.iter().map(|v| v.connections).sum(),
                drain_left: seen.iter().filter_map(|v| v.drain_left).max(),
                drained: unreachable.is_empty()
                    && !seen.is_empty()
                    && seen.iter().all(|v| v.draining && v.connections == 0),
                views: seen,
                unreachable: unreachable.clone(),
            };
            Self { backend: backend.into(), health: Some(health) }
        };
        backends.into_iter().map(with_views).collect()
    }

    fn state(&self) -> String {
        let state = self.backend.state;
        let state = match (&self.health, &self.backend.drain_deadline) {
            (Some(health), deadline) if state == "draining" => {
                draining(health.drained, health.connections, health.drain_left, *deadline)
            }
            (None, Some(deadline)) => format!("{state} (deadline {deadline})"),
            _ => state.to_owned(),
        };
        let backup = if self.backend.backup { ", backup" } else { "" };
        let max = self.backend.max_connections.map(|max| format!(", at most {max} connections"));
        format!("{state}{backup}{}", max.unwrap_or_default())
    }

    fn weight(&self) -> String {
        self.backend.weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string())
    }

    fn health(&self) -> String {
        self.health.as_ref().map_or_else(|| "-".to_owned(), HealthView::brief)
    }

    fn connections(&self) -> String {
        self.health.as_ref().map_or_else(|| "-".to_owned(), |h| h.connections.to_string())
    }

    /// Whether the members look its address up.
    fn is_named(&self) -> bool {
        BackendAddress::parse(&self.backend.address).is_ok_and(|address| address.ip().is_none())
    }

    /// The address as configured; of a name with what it stands for, "web.example:80 (10.0.0.1)".
    fn address(&self) -> String {
        let views = self.health.iter().flat_map(|health| &health.views);
        let found: BTreeSet<_> = views.filter_map(|view| view.address.as_deref()).collect();
        let configured = &self.backend.address;
        if found.is_empty() || !self.is_named() {
            return configured.clone();
        }
        format!("{configured} ({})", found.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// What each member sees.
    fn views(&self, health: &HealthView) -> String {
        let seen = health.views.iter().map(|v| {
            let (member, verdict) = (v.member.clone(), v.verdict.to_owned());
            let (since, address) = (or_dash(v.age.as_ref()), or_dash(v.address.as_ref()));
            let (reason, others) = (v.reason.clone(), v.other_addresses.join(", "));
            [member, verdict, reason, since, v.connections.to_string(), address, others]
        });
        let silent = health.unreachable.iter().map(|member| {
            let mut row = std::array::from_fn(|_| "-".to_owned());
            [row[0], row[1]] = [member.clone(), "unreachable".to_owned()];
            row
        });
        let rows = seen.chain(silent);
        if self.is_named() {
            let headings =
                ["MEMBER", "VERDICT", "REASON", "SINCE", "CONNECTIONS", "ADDRESS", "OTHER ADDRESSES"];
            return table::table(headings, rows);
        }
        let shorter = rows.map(|[member, verdict, reason, since, connections, ..]| {
            [member, verdict, reason, since, connections]
        });
        table::table(["MEMBER", "VERDICT", "REASON", "SINCE", "CONNECTIONS"], shorter)
    }

    /// One line for each backend.
    pub(crate) fn table(backends: &[Self]) -> String {
        let row = |b: &Self| {
            [b.backend.name.clone(), b.address(), b.weight(), b.state(), b.health(), b.connections()]
        };
        table::table(
            ["NAME", "ADDRESS", "WEIGHT", "STATE", "HEALTH", "CONNECTIONS"],
            backends.iter().map(row),
        )
    }

    /// All settings, one to a line, then what each member sees.
    pub(crate) fn description(&self) -> String {
        let settings = [
            ("NAME", self.backend.name.clone()),
            ("ADDRESS", self.backend.address.clone()),
            ("WEIGHT", self.weight()),
            ("STATE", self.state()),
            ("HEALTH", self.health.as_ref().map_or_else(|| "-".to_owned(), HealthView::brief)),
            ("CONNECTIONS", self.connections()),
            ("REVISION", self.backend.revision.to_string()),
            ("ETAG", self.backend.etag.clone()),
        ];
        let settings = table::fields(settings.into_iter().chain(self.backend.metadata.fields()));
        let Some(health) = self.health.as_ref().filter(|h| h.members > 0) else {
            return settings;
        };
        let views = self.views(health);
        let changes = health.views.iter().flat_map(|v| {
            let row = |c: &ChangeView| {
                let ago = c.ago.map_or_else(|| "-".to_owned(), |ago| format!("{ago} ago"));
                [v.member.clone(), ago, c.verdict.to_owned(), c.reason.clone()]
            };
            v.history.iter().rev().map(row)
        });
        // The one change to what is so now stands above.
        if health.views.iter().all(|v| v.history.len() < 2) {
            return format!("{settings}\n{views}");
        }
        let history = table::table(["MEMBER", "CHANGED", "TO", "REASON"], changes);
        format!("{settings}\n{views}\n{history}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::{sample_backend, sample_view};
    use v1::Verdict::{Healthy, Unhealthy, Unknown};

    fn health(backend: &str, views: Vec<v1::MemberView>) -> v1::BackendHealth {
        v1::BackendHealth {
            name: format!("pools/web/backends/{backend}"),
            views,
            ..v1::BackendHealth::default()
        }
    }

    #[test]
    fn a_list_says_who_sees_what() {
        let mut draining = sample_backend("b", 2);
        draining.set_admin_state(v1::AdminState::Draining);
        draining.drain_timeout = Some(prost_types::Duration { seconds: 300, nanos: 0 });
        draining.backup = true;
        draining.max_connections = 100;
        let left = prost_types::Duration { seconds: 134, nanos: 900_000_000 };
        let ending = |view: v1::MemberView| v1::MemberView { drain_left: Some(left), ..view };
        let backends = vec![sample_backend("a", 1), draining, sample_backend("c", 3), sample_backend("d", 4)];
        let health = v1::PoolHealth {
            backends: vec![
                health("a", vec![sample_view("m1", Healthy, ""), sample_view("m2", Healthy, "")]),
                health(
                    "b",
                    vec![ending(sample_view("m1", Healthy, "")), sample_view("m2", Unhealthy, "timed out")],
                ),
                health(
                    "c",
                    vec![sample_view("m1", Unhealthy, "no route"), sample_view("m2", Unhealthy, "no route")],
                ),
                health(
                    "d",
                    vec![sample_view("m1", Unknown, "no check"), sample_view("m2", Unknown, "no check")],
                ),
            ],
            ..Default::default()
        };
        assert_eq!(
            BackendState::table(&BackendState::join(backends, Some(health))),
            "NAME    ADDRESS         WEIGHT   STATE                                                           HEALTH                                   CONNECTIONS\n\
             web/a   10.0.0.1:8080   1        enabled                                                         healthy on 2/2 members                   6\n\
             web/b   10.0.0.2:8080   1        draining, 6 open, 2m14s left, backup, at most 100 connections   healthy on 1/2 members (m2: timed out)   6\n\
             web/c   10.0.0.3:8080   1        enabled                                                         healthy on 0/2 members (no route)        6\n\
             web/d   10.0.0.4:8080   1        enabled                                                         unknown (no check)                       6\n"
        );
    }

    #[test]
    fn silent_members_are_named() {
        let pool = v1::PoolHealth {
            backends: vec![health(
                "a",
                vec![sample_view("m1", Healthy, ""), sample_view("m2", Unhealthy, "")],
            )],
            unreachable_members: vec!["members/m3".to_owned()],
            ..Default::default()
        };
        let joined = BackendState::join(vec![sample_backend("a", 1)], Some(pool));
        assert_eq!(joined[0].health(), "healthy on 1/3 members (m2: unhealthy; m3: unreachable)");
        assert_eq!(
            joined[0].description(),
            "NAME          web/a\n\
             ADDRESS       10.0.0.1:8080\n\
             WEIGHT        1\n\
             STATE         enabled\n\
             HEALTH        healthy on 1/3 members (m2: unhealthy; m3: unreachable)\n\
             CONNECTIONS   6\n\
             REVISION      13\n\
             ETAG          13\n\
             \n\
             MEMBER   VERDICT       REASON   SINCE   CONNECTIONS\n\
             m1       healthy       -        1m5s    3\n\
             m2       unhealthy     -        1m5s    3\n\
             m3       unreachable   -        -       -\n"
        );
    }

    #[test]
    fn a_description_ends_with_how_verdicts_changed() {
        let change = |verdict: v1::Verdict, reason: &str, seconds| v1::VerdictChange {
            verdict: verdict.into(),
            reason: reason.to_owned(),
            ago: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let history = vec![change(Unhealthy, "connection refused", 90), change(Healthy, "", 65)];
        let seen = v1::MemberView { history, ..sample_view("m1", Healthy, "") };
        let pool = v1::PoolHealth {
            backends: vec![health("a", vec![seen, sample_view("m2", Healthy, "")])],
            ..Default::default()
        };
        let joined = BackendState::join(vec![sample_backend("a", 1)], Some(pool));
        let text = joined[0].description();
        let (_, table) = text.rsplit_once("\n\n").unwrap();
        assert_eq!(
            table,
            "MEMBER   CHANGED     TO          REASON\n\
             m1       1m5s ago    healthy     -\n\
             m1       1m30s ago   unhealthy   connection refused\n"
        );
        let new = BackendState::join(vec![sample_backend("a", 1)], Some(v1::PoolHealth::default()));
        assert_eq!(new[0].health(), "no member has checked it yet");
        let json = serde_json::to_value(&joined).unwrap();
        assert_eq!(json[0]["health"]["views"][0]["history"][0]["reason"], "connection refused");
    }

    #[test]
    fn of_a_name_the_addresses_in_use_are_shown() {
        let named = v1::Backend { address: "web.example:8080".to_owned(), ..sample_backend("a", 1) };
        let first = v1::MemberView {
            address: "10.0.0.5".to_owned(),
            other_addresses: vec!["10.0.0.6".to_owned(), "2001:db8::1".to_owned()],
            ..sample_view("m1", Healthy, "10.0.0.5: connected")
        };
        let second = v1::MemberView { address: "10.0.0.6".to_owned(), ..sample_view("m2", Healthy, "") };
        let pool = |views| v1::PoolHealth {
            backends: vec![health("a", views)],
            unreachable_members: vec!["members/m3".to_owned()],
            ..Default::default()
        };
        let joined =
            BackendState::join(vec![named.clone()], Some(pool(vec![first.clone(), second, first.clone()])));
        assert_eq!(joined[0].address(), "web.example:8080 (10.0.0.5, 10.0.0.6)");
        let joined = BackendState::join(vec![named.clone()], Some(pool(vec![first])));
        let text = joined[0].description();
        let (_, table) = text.rsplit_once("\n\n").unwrap();
        assert_eq!(
            table,
            "MEMBER   VERDICT       REASON                SINCE   CONNECTIONS   ADDRESS    OTHER ADDRESSES\n\
             m1       healthy       10.0.0.5: connected   1m5s    3             10.0.0.5   10.0.0.6, 2001:db8::1\n\
             m3       unreachable   -                     -       -             -          -\n"
        );
        let json = serde_json::to_value(&joined).unwrap();
        assert_eq!(json[0]["health"]["views"][0]["address"], "10.0.0.5");
        let unknown = BackendState::join(vec![named], Some(pool(vec![sample_view("m1", Unknown, "")])));
        assert_eq!(unknown[0].address(), "web.example:8080");
    }

    #[test]
    fn backends_show_without_the_members_views() {
        let joined = BackendState::join(vec![sample_backend("a", 1)], None);
        assert_eq!(
            BackendState::table(&joined),
            "NAME    ADDRESS         WEIGHT   STATE     HEALTH   CONNECTIONS\n\
             web/a   10.0.0.1:8080   1        enabled   -        -\n"
        );
        let json = serde_json::to_value(&joined).unwrap();
        assert_eq!(json[0]["name"], "web/a");
        assert_eq!(json[0]["pool"], "web");
        assert_eq!(json[0]["health"], serde_json::Value::Null);
    }
}
