//! Listeners, with where they are bound.

use serde::Serialize;
use trestle_api::v1;
use trestle_model::defaults::FIRST_BYTES_TIMEOUT;
use trestle_model::{Choice as _, OnSilence};

use super::span::{self, Span};
use super::{MetadataView, grouped, or_dash, short_name, unbound, word};
use crate::commands::listener_settings::{ANYWHERE, route_text};
use crate::table;

/// A listener with where it is bound.
#[derive(Debug, Serialize)]
pub(crate) struct ListenerView {
    name: String,
    bind: Vec<String>,
    /// What each of them means; empty where they are addresses anyway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    pool: String,
    routes: Vec<RouteView>,
    accept_proxy_from: Vec<String>,
    /// Empty for all networks.
    allow: Vec<String>,
    deny: Vec<String>,
    /// `None` for no bound, as for the three below.
    max_connections: Option<u32>,
    max_connections_per_source: Option<u32>,
    accept_rate: Option<u32>,
    accept_rate_per_source: Option<u32>,
    #[serde(flatten, serialize_with = "span::first_bytes_timeout")]
    first_bytes_timeout: Option<Span>,
    on_silence: &'static str,
    /// Revision that last changed it.
    pub(crate) revision: u64,
    etag: String,
    #[serde(flatten)]
    metadata: MetadataView,
    /// Of a write: what may be meant otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// `None` when the members' views could not be had, or were not asked for.
    ready: Option<ReadyView>,
}

#[derive(Debug, Serialize)]
struct RouteView {
    server_names: Vec<String>,
    alpn: Vec<String>,
    pool: String,
}

#[derive(Debug, Serialize)]
struct ReadyView {
    ready: usize,
    members: usize,
    connections: u64,
    views: Vec<MemberView>,
    unreachable: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    member: String,
    bound: Vec<String>,
    errors: Vec<String>,
    #[serde(skip)]
    failures_by_reason: Vec<v1::BindFailure>,
    connections: u64,
    /// Counted since the member has had the listener or was started, as all below.
    connections_total: u64,
    bytes_in: u64,
    bytes_out: u64,
    failures: u64,
}

impl From<v1::Listener> for ListenerView {
    fn from(listener: v1::Listener) -> Self {
        let bound = |count: u32| (count > 0).then_some(count);
        let route = |route: v1::Route| RouteView {
            server_names: route.server_names,
            alpn: route.alpn,
            pool: short_name(&route.pool),
        };
        let on_silence = word::<OnSilence>(listener.on_silence);
        Self {
            name: short_name(&listener.name),
            addresses: if listener.addresses == listener.binds { Vec::new() } else { listener.addresses },
            bind: listener.binds,
            pool: short_name(&listener.pool),
            routes: listener.routes.into_iter().map(route).collect(),
            accept_proxy_from: listener.accept_proxy_from,
            allow: listener.allow,
            deny: listener.deny,
            max_connections: bound(listener.max_connections),
            max_connections_per_source: bound(listener.max_connections_per_source),
            accept_rate: bound(listener.accept_rate),
            accept_rate_per_source: bound(listener.accept_rate_per_source),
            first_bytes_timeout: Span::setting(listener.first_bytes_timeout.as_ref()),
            on_silence,
            revision: listener.revision,
            etag: listener.etag,
            metadata: MetadataView::new(listener.owner, listener.annotations),
            warnings: listener.warnings,
            ready: None,
        }
    }
}

impl MemberView {
    fn ready(&self) -> bool {
        self.errors.is_empty() && !self.bound.is_empty()
    }
}

impl ReadyView {
    fn count(&self) -> String {
        format!("{}/{}", self.ready, self.members)
    }

    /// What keeps it from being ready, one text for each reason.
    fn reasons(&self) -> Vec<String> {
        let failures = self
            .views
            .iter()
            .flat_map(|v| v.failures_by_reason.iter().map(|failure| (v.member.clone(), failure.clone())));
        let mut reasons: Vec<String> =
            unbound(failures).into_iter().map(|(places, why)| format!("{places}: {why}")).collect();
        // Members of earlier versions say it in words only.
        let words = self.views.iter().filter(|v| v.failures_by_reason.is_empty());
        let words = words.flat_map(|v| v.errors.iter().map(|error| (v.member.clone(), error.clone())));
        let waiting = self.views.iter().filter(|v| v.errors.is_empty() && v.bound.is_empty());
        let waiting = waiting.map(|v| (v.member.clone(), "not bound yet".to_owned()));
        let silent = self.unreachable.iter().map(|member| (member.clone(), "unreachable".to_owned()));
        let rest = grouped(words.chain(waiting).chain(silent)).into_iter();
        reasons.extend(rest.map(|(why, members)| format!("{}: {why}", members.join(", "))));
        reasons
    }
}

impl ListenerView {
    /// Its addresses; of a virtual IP the name and what it means.
    fn binds(&self) -> String {
        let one = |(at, bind): (usize, &String)| match self.addresses.get(at) {
            Some(address) if address != bind => format!("{bind} ({address})"),
            _ => bind.clone(),
        };
        self.bind.iter().enumerate().map(one).collect::<Vec<_>>().join(",")
    }

    /// Joins listeners with the members' views, which may be missing or list other listeners.
    pub(crate) fn join(listeners: Vec<v1::Listener>, health: Option<v1::ListenerHealth>) -> Vec<Self> {
        let mut listeners: Vec<Self> = listeners.into_iter().map(Into::into).collect();
        let Some(health) = health else {
            return listeners;
        };
        let unreachable: Vec<String> = health.unreachable_members.iter().map(|m| short_name(m)).collect();
        let mut views = std::collections::BTreeMap::<String, Vec<MemberView>>::new();
        for view in health.views {
            views.entry(short_name(&view.listener)).or_default().push(MemberView {
                member: short_name(&view.member),
                bound: view.bound,
                errors: view.errors,
                failures_by_reason: view.bind_failures,
                connections: view.active_connections,
                connections_total: view.connections,
                bytes_in: view.bytes_in,
                bytes_out: view.bytes_out,
                failures: view.failures,
            });
        }
        for listener in &mut listeners {
            let seen = views.remove(&listener.name).unwrap_or_default();
            listener.ready = Some(ReadyView {
                ready: seen.iter().filter(|v| v.ready()).count(),
                members: seen.len() + unreachable.len(),
                connections: seen.iter().map(|v| v.connections).sum(),
                views: seen,
                unreachable: unreachable.clone(),
            });
        }
        listeners
    }

    fn ready(&self) -> String {
        self.ready.as_ref().map_or_else(|| "-".to_owned(), ReadyView::count)
    }

    fn connections(&self) -> String {
        self.ready.as_ref().map_or_else(|| "-".to_owned(), |r| r.connections.to_string())
    }

    fn proxies(&self) -> String {
        let anywhere = ANYWHERE.iter().all(|all| self.accept_proxy_from.iter().any(|one| one == all));
        match self.accept_proxy_from.as_slice() {
            [] => "no".to_owned(),
            _ if anywhere => "from anywhere".to_owned(),
            networks => format!("from {}", networks.join(",")),
        }
    }

    /// Names and bounds of the limits that there are.
    fn limits(&self) -> impl Iterator<Item = (&'static str, u32)> {
        [
            ("max-connections", self.max_connections),
            ("max-connections-per-source", self.max_connections_per_source),
            ("accept-rate", self.accept_rate),
            ("accept-rate-per-source", self.accept_rate_per_source),
        ]
        .into_iter()
        .filter_map(|(name, bound)| bound.map(|bound| (name, bound)))
    }

    /// What is not the default, in words: "2 routes, accept-proxy from anywhere".
    fn special(&self) -> String {
        let mut words = Vec::new();
        match self.routes.len() {
            0 => {}
            1 => words.push("1 route".to_owned()),
            count => words.push(format!("{count} routes")),
        }
        if !self.accept_proxy_from.is_empty() {
            words.push(format!("accept-proxy {}", self.proxies()));
        }
        for (name, networks) in [("allow", &self.allow), ("deny", &self.deny)] {
            match networks.as_slice() {
                [] => {}
                [one] => words.push(format!("{name} {one}")),
                more => words.push(format!("{name} {} networks", more.len())),
            }
        }
        words.extend(self.limits().map(|(name, bound)| format!("{name} {bound}")));
        let timeout = self.first_bytes_timeout.filter(|timeout| timeout.get() != FIRST_BYTES_TIMEOUT);
        words.extend(timeout.map(|timeout| format!("first-bytes-timeout {timeout}")));
        if self.on_silence != OnSilence::default().word() {
            words.push(format!("on-silence {}", self.on_silence));
        }
        words.join(", ")
    }

    /// One line for each listener, then one for each reason that keeps one from being ready, broken to a width if there is
    /// one.
    pub(crate) fn table(listeners: &[Self], width: Option<usize>) -> String {
        let row = |l: &Self| {
            let pool = l.pool.clone();
            [l.name.clone(), l.binds(), pool, l.ready(), l.connections(), l.special()]
        };
        let headings = ["NAME", "BIND", "POOL", "READY", "CONNECTIONS", "SETTINGS"];
        let mut text = table::table(headings, listeners.iter().map(row));
        let reasons = listeners.iter().flat_map(|l| {
            let reasons = l.ready.iter().flat_map(ReadyView::reasons);
            reasons.map(|why| format!("{}: {}", l.name, table::escaped(&why)))
        });
        for (number, reason) in reasons.enumerate() {
            text.push_str(if number == 0 { "\n" } else { "" });
            for line in table::wrapped(&reason, width.unwrap_or(usize::MAX), 2) {
                text.push_str(&format!("{line}\n"));
            }
        }
        text
    }

    /// The settings, one to a line.
    pub(crate) fn settings(&self) -> String {
        let some = |list: &[String], none: &str| {
            if list.is_empty() { none.to_owned() } else { list.join(",") }
        };
        let bound = |bound: Option<u32>| bound.map_or_else(|| "no bound".to_owned(), |n| n.to_string());
        let head = [("NAME", self.name.clone()), ("BIND", self.binds()), ("POOL", self.pool.clone())];
        let route = |r: &RouteView| ("ROUTE", route_text(&r.server_names, &r.alpn, &r.pool));
        let rest = [
            ("ACCEPT-PROXY", self.proxies()),
            ("ALLOW", some(&self.allow, "all")),
            ("DENY", some(&self.deny, "none")),
            ("MAX-CONNECTIONS", bound(self.max_connections)),
            ("MAX-CONNECTIONS-PER-SOURCE", bound(self.max_connections_per_source)),
            ("ACCEPT-RATE", bound(self.accept_rate)),
            ("ACCEPT-RATE-PER-SOURCE", bound(self.accept_rate_per_source)),
            ("FIRST-BYTES-TIMEOUT", or_dash(self.first_bytes_timeout.as_ref())),
            ("ON-SILENCE", self.on_silence.to_owned()),
            ("READY", self.ready.as_ref().map_or_else(|| "-".to_owned(), ReadyView::count)),
            ("CONNECTIONS", self.connections()),
            ("REVISION", self.revision.to_string()),
            ("ETAG", self.etag.clone()),
        ];
        let settings = head.into_iter().chain(self.routes.iter().map(route)).chain(rest);
        table::fields(settings.chain(self.metadata.fields()))
    }

    /// Where each member has it bound, and what keeps others from that.
    pub(crate) fn places(&self) -> String {
        let Some(ready) = &self.ready else { return String::new() };
        let rows =
            ready.views.iter().map(|v| [v.member.clone(), v.bound.join(","), v.connections.to_string()]);
        let mut text = table::table(["MEMBER", "BOUND", "CONNECTIONS"], rows);
        for reason in ready.reasons() {
            text.push_str(&format!("\n{}\n", table::escaped(&reason)));
        }
        text
    }

    /// All settings, then where each member has it bound.
    pub(crate) fn description(&self) -> String {
        let settings = self.settings();
        let Some(ready) = self.ready.as_ref().filter(|r| r.members > 0) else {
            return settings;
        };
        let seen =
            ready.views.iter().map(|v| [v.member.clone(), v.bound.join(","), v.connections.to_string()]);
        let silent =
            ready.unreachable.iter().map(|member| [member.clone(), "unreachable".to_owned(), "-".to_owned()]);
        let mut views = table::table(["MEMBER", "BOUND", "CONNECTIONS"], seen.chain(silent));
        for (number, reason) in ready.reasons().iter().enumerate() {
            views.push_str(if number == 0 { "\n" } else { "" });
            views.push_str(&format!("problem: {}\n", table::escaped(reason)));
        }
        format!("{settings}\n{views}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::{duration, sample_listener};

    fn view(member: &str, bound: &[&str], errors: &[&str]) -> v1::ListenerView {
        v1::ListenerView {
            listener: "listeners/front".to_owned(),
            member: format!("members/{member}"),
            bound: bound.iter().map(|&b| b.to_owned()).collect(),
            errors: errors.iter().map(|&e| e.to_owned()).collect(),
            active_connections: 4,
            ..v1::ListenerView::default()
        }
    }

    #[test]
    fn a_list_says_where_a_listener_is_not_bound() {
        let health = v1::ListenerHealth {
            views: vec![
                view("m1", &["0.0.0.0:6443"], &[]),
                view("m2", &[], &["cannot assign requested address"]),
                view("m3", &[], &[]),
            ],
            unreachable_members: vec!["members/m4".to_owned()],
            ..Default::default()
        };
        let listeners = ListenerView::join(vec![sample_listener("front")], Some(health));
        assert_eq!(
            ListenerView::table(&listeners, None),
            "NAME    BIND           POOL   READY   CONNECTIONS   SETTINGS\n\
             front   0.0.0.0:6443   web    1/4     12            -\n\
             \n\
             front: m2: cannot assign requested address\n\
             front: m3: not bound yet\n\
             front: m4: unreachable\n"
        );
        assert_eq!(
            listeners[0].description(),
            format!(
                "NAME                         front\n\
                 BIND                         0.0.0.0:6443\n\
                 POOL                         web\n\
                 ACCEPT-PROXY                 no\n\
                 ALLOW                        all\n\
                 DENY                         none\n\
                 MAX-CONNECTIONS              no bound\n\
                 MAX-CONNECTIONS-PER-SOURCE   no bound\n\
                 ACCEPT-RATE                  no bound\n\
                 ACCEPT-RATE-PER-SOURCE       no bound\n\
                 FIRST-BYTES-TIMEOUT          5s\n\
                 ON-SILENCE                   reset\n\
                 READY                        1/4\n\
                 CONNECTIONS                  12\n\
                 REVISION                     14\n\
                 ETAG                         14\n\
                 \n\
                 MEMBER   BOUND          CONNECTIONS\n\
                 m1       0.0.0.0:6443   4\n\
                 m2       -              4\n\
                 m3       -              4\n\
                 m4       unreachable    -\n\
                 \n\
                 problem: m2: cannot assign requested address\n\
                 problem: m3: not bound yet\n\
                 problem: m4: unreachable\n"
            )
        );
    }

    #[test]
    fn a_reason_of_several_members_stands_once_within_the_width() {
        let taken =
            "address already in use by another process; stop that process or choose another address or port";
        let views = ["m1", "m2", "m3"].iter().enumerate().map(|(number, member)| {
            let address = format!("127.0.0.{}:6443", number + 1);
            let failure = v1::BindFailure { addresses: vec![address], more: 0, reason: taken.to_owned() };
            v1::ListenerView { bind_failures: vec![failure], ..view(member, &[], &[taken]) }
        });
        let health = v1::ListenerHealth { views: views.collect(), ..Default::default() };
        let listeners = ListenerView::join(vec![sample_listener("front")], Some(health));
        let text = ListenerView::table(&listeners, Some(80));
        assert_eq!(
            text,
            "NAME    BIND           POOL   READY   CONNECTIONS   SETTINGS\n\
             front   0.0.0.0:6443   web    0/3     12            -\n\
             \n\
             front: 127.0.0.1:6443 on m1, 127.0.0.2:6443 on m2, 127.0.0.3:6443 on m3: address\n  \
               already in use by another process; stop that process or choose another address\n  \
               or port\n"
        );
        assert!(text.lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn all_is_well_in_three_characters() {
        let health = v1::ListenerHealth {
            views: vec![view("m1", &["0.0.0.0:6443"], &[]), view("m2", &["0.0.0.0:6443"], &[])],
            ..Default::default()
        };
        let listeners = ListenerView::join(vec![sample_listener("front")], Some(health));
        assert_eq!(listeners[0].ready(), "2/2");
    }

    #[test]
    fn what_is_set_is_told_shortly_in_a_list_and_fully_alone() {
        let list = |texts: &[&str]| -> Vec<String> { texts.iter().map(|&t| t.to_owned()).collect() };
        let listener = v1::Listener {
            routes: vec![v1::Route {
                server_names: list(&["*.example.com"]),
                alpn: list(&["h2"]),
                pool: "pools/api".to_owned(),
            }],
            accept_proxy_from: list(&ANYWHERE),
            allow: list(&["10.0.0.0/8"]),
            deny: list(&["10.9.0.0/16", "10.8.0.0/16"]),
            accept_rate: 500,
            first_bytes_timeout: Some(duration(300)),
            on_silence: v1::OnSilence::Pool.into(),
            ..sample_listener("front")
        };
        let view = ListenerView::from(listener);
        assert_eq!(
            view.special(),
            "1 route, accept-proxy from anywhere, allow 10.0.0.0/8, deny 2 networks, accept-rate 500, \
             first-bytes-timeout 300ms, on-silence pool"
        );
        let text = view.description();
        for line in [
            "ROUTE                        *.example.com,alpn:h2=api\n",
            "ACCEPT-PROXY                 from anywhere\n",
            "DENY                         10.9.0.0/16,10.8.0.0/16\n",
            "ACCEPT-RATE                  500\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["routes"][0]["pool"], "api");
        assert_eq!((&json["accept_rate"], &json["max_connections"]), (&500.into(), &serde_json::Value::Null));
    }
}
