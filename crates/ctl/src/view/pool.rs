//! Pools.

use serde::Serialize;
use trestle_api::v1;
use trestle_model::{Algorithm, AllDown, OnDown, OnPrimaryUp, Pool, PoolName, PoolSpec, SendProxy};

use super::check::CheckView;
use super::span::{self, Span};
use super::{MetadataView, PoolsDown, or_dash, short_name, word};
use crate::table;

/// A pool.
#[derive(Debug, Serialize)]
pub(crate) struct PoolView {
    name: String,
    algorithm: &'static str,
    health: CheckView,
    #[serde(flatten, serialize_with = "span::connect_timeout")]
    connect_timeout: Option<Span>,
    connect_retries: Option<u32>,
    on_down: &'static str,
    on_primary_up: &'static str,
    all_down: &'static str,
    minimum_healthy: Option<u32>,
    queue_length: Option<u32>,
    #[serde(flatten, serialize_with = "span::queue_timeout")]
    queue_timeout: Option<Span>,
    /// `None` when it is off, as for the three below.
    #[serde(flatten, serialize_with = "span::slow_start")]
    slow_start: Option<Span>,
    #[serde(flatten, serialize_with = "span::stickiness")]
    stickiness: Option<Span>,
    #[serde(flatten, serialize_with = "span::idle_timeout")]
    idle_timeout: Option<Span>,
    #[serde(flatten, serialize_with = "span::max_lifetime")]
    max_lifetime: Option<Span>,
    close_spread_percent: Option<u32>,
    #[serde(flatten, serialize_with = "span::dead_peer_timeout")]
    dead_peer_timeout: Option<Span>,
    send_proxy: &'static str,
    backend_count: u32,
    /// Backends that every member which answers finds healthy; `None` without a check, and where it is not known.
    healthy_backends: Option<usize>,
    /// Members on which it is down; `None` where that is not known.
    down_on: Option<Vec<String>>,
    /// That it is down, in words.
    #[serde(skip)]
    down: Option<String>,
    /// Revision that last changed it.
    pub(crate) revision: u64,
    etag: String,
    #[serde(flatten)]
    metadata: MetadataView,
}

impl From<v1::Pool> for PoolView {
    fn from(pool: v1::Pool) -> Self {
        let algorithm = word::<Algorithm>(pool.algorithm);
        let on_down = word::<OnDown>(pool.on_down);
        let on_primary_up = word::<OnPrimaryUp>(pool.on_primary_up);
        let all_down = word::<AllDown>(pool.all_down);
        let send_proxy = word::<SendProxy>(pool.send_proxy);
        Self {
            name: short_name(&pool.name),
            algorithm,
            health: pool.health_check.unwrap_or_default().into(),
            connect_timeout: Span::setting(pool.connect_timeout.as_ref()),
            connect_retries: pool.connect_retries,
            on_down,
            on_primary_up,
            all_down,
            minimum_healthy: pool.minimum_healthy,
            queue_length: pool.queue_length,
            queue_timeout: Span::setting(pool.queue_timeout.as_ref()),
            slow_start: Span::unless_off(pool.slow_start.as_ref()),
            stickiness: Span::unless_off(pool.stickiness.as_ref()),
            idle_timeout: Span::unless_off(pool.idle_timeout.as_ref()),
            max_lifetime: Span::unless_off(pool.max_lifetime.as_ref()),
            close_spread_percent: pool.close_spread_percent,
            dead_peer_timeout: Span::setting(pool.dead_peer_timeout.as_ref()),
            send_proxy,
            backend_count: pool.backend_count,
            healthy_backends: None,
            down_on: None,
            down: None,
            revision: pool.revision,
            etag: pool.etag,
            metadata: MetadataView::new(pool.owner, pool.annotations),
        }
    }
}

impl PoolView {
    /// A pool of which nothing was given.
    fn plain() -> Result<Self, String> {
        let pool = Pool { name: PoolName::parse("plain")?, spec: PoolSpec::default(), revision: 0 };
        Ok(trestle_api::convert::pool(&pool, 0).into())
    }

    /// Adds what the members see of its backends, of which there may be others in it.
    pub(crate) fn join(&mut self, health: Option<&v1::PoolHealth>) {
        let Some(health) = health.filter(|_| self.health.is_made()) else { return };
        let prefix = format!("{}/", self.name);
        let own = health.backends.iter().filter(|backend| short_name(&backend.name).starts_with(&prefix));
        let healthy = |backend: &&v1::BackendHealth| {
            !backend.views.is_empty() && backend.views.iter().all(|v| v.verdict() == v1::Verdict::Healthy)
        };
        self.healthy_backends = Some(own.filter(healthy).count());
    }

    /// Adds whether it is down, by what the members say in the cluster's status.
    pub(crate) fn note_down(&mut self, down: Option<&PoolsDown>) {
        let Some(down) = down else { return };
        let own = down.get(&self.name);
        self.down_on = Some(own.map(|down| down.on.clone()).unwrap_or_default());
        self.down = own.map(|down| down.words.clone());
    }

    /// "2/3", "down (none of 2 in use)", "no check", or "-" where it is not known.
    fn health_brief(&self) -> String {
        match (&self.down, self.healthy_backends) {
            (Some(down), _) => down.clone(),
            _ if self.backend_count == 0 => "no backends".to_owned(),
            _ if !self.health.is_made() => "no check".to_owned(),
            (None, Some(healthy)) => format!("{healthy}/{}", self.backend_count),
            (None, None) => "-".to_owned(),
        }
    }

    /// One line for each pool.
    pub(crate) fn table(pools: &[Self]) -> String {
        let defaults = Self::plain().map(|plain| plain.settings()).ok();
        let row = |p: &Self| {
            [
                p.name.clone(),
                p.algorithm.to_owned(),
                p.health.brief(),
                p.backend_count.to_string(),
                p.health_brief(),
                p.revision.to_string(),
                p.special(defaults.as_ref()),
            ]
        };
        table::table(
            ["NAME", "ALGORITHM", "CHECK", "BACKENDS", "HEALTH", "REVISION", "SETTINGS"],
            pools.iter().map(row),
        )
    }

    /// Settings beside algorithm and check, one pair for each.
    fn settings(&self) -> [(&'static str, String); 14] {
        let count = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let or_off = |span: &Option<Span>| span.map_or_else(|| "off".to_owned(), |span| span.to_string());
        [
            ("CONNECT-TIMEOUT", or_dash(self.connect_timeout.as_ref())),
            ("CONNECT-RETRIES", count(self.connect_retries)),
            ("ON-DOWN", self.on_down.to_owned()),
            ("ON-PRIMARY-UP", self.on_primary_up.to_owned()),
            ("ALL-DOWN", self.all_down.to_owned()),
            ("MINIMUM-HEALTHY", count(self.minimum_healthy)),
            ("QUEUE", format!("{} for {}", count(self.queue_length), or_dash(self.queue_timeout.as_ref()))),
            ("SLOW-START", or_off(&self.slow_start)),
            ("STICKINESS", or_off(&self.stickiness)),
            ("IDLE-TIMEOUT", or_off(&self.idle_timeout)),
            ("MAX-LIFETIME", or_off(&self.max_lifetime)),
            ("CLOSE-SPREAD", format!("{} %", count(self.close_spread_percent))),
            ("DEAD-PEER-TIMEOUT", or_dash(self.dead_peer_timeout.as_ref())),
            ("SEND-PROXY", self.send_proxy.to_owned()),
        ]
    }

    /// Those settings that are not the default, in words: "on-down keep, slow-start 10s".
    fn special(&self, defaults: Option<&[(&'static str, String); 14]>) -> String {
        let is_special = |pair: &(&'static str, String)| defaults.is_none_or(|all| !all.contains(pair));
        let words = |(name, value): (&str, String)| format!("{} {value}", name.to_lowercase());
        let special = self.settings().into_iter().filter(is_special);
        special.map(words).collect::<Vec<_>>().join(", ")
    }

    /// All settings, one to a line.
    pub(crate) fn description(&self) -> String {
        let first = [
            ("NAME", self.name.clone()),
            ("ALGORITHM", self.algorithm.to_owned()),
            ("CHECK", self.health.full()),
        ];
        let last = [
            ("BACKENDS", self.backend_count.to_string()),
            ("HEALTH", self.health_brief()),
            ("REVISION", self.revision.to_string()),
            ("ETAG", self.etag.clone()),
        ];
        table::fields(first.into_iter().chain(self.settings()).chain(last).chain(self.metadata.fields()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::args::Format;
    use crate::output::render;
    use crate::tests::sample::{sample_pool, sample_view};

    #[test]
    fn a_list_has_one_line_for_each_pool() {
        let mut unchecked = sample_pool("a-longer-name");
        unchecked.algorithm = v1::Algorithm::LeastConnections.into();
        unchecked.set_on_down(v1::OnDown::Keep);
        unchecked.slow_start = Some(prost_types::Duration { seconds: 10, nanos: 0 });
        unchecked.health_check.as_mut().unwrap().kind = Some(v1::health_check::Kind::None(v1::NoCheck {}));
        let mut pools: Vec<PoolView> = vec![sample_pool("web").into(), unchecked.into()];
        let seen = |pool: &str, name: &str, verdicts: [v1::Verdict; 2]| v1::BackendHealth {
            name: format!("pools/{pool}/backends/{name}"),
            views: verdicts.map(|verdict| sample_view("m1", verdict, "")).to_vec(),
            ..v1::BackendHealth::default()
        };
        use v1::Verdict::{Healthy, Unhealthy, Unknown};
        let backends = vec![
            seen("web", "a", [Healthy, Healthy]),
            // What one member cannot reach is not healthy.
            seen("web", "b", [Healthy, Unhealthy]),
            seen("web-2", "a", [Healthy, Healthy]),
            seen("a-longer-name", "a", [Unknown, Unknown]),
        ];
        let health = v1::PoolHealth { backends, ..v1::PoolHealth::default() };
        assert!(PoolView::table(&pools).contains("   2          -          12         -\n"), "not known yet");
        pools.iter_mut().for_each(|pool| pool.join(Some(&health)));
        assert_eq!(
            PoolView::table(&pools),
            "NAME            ALGORITHM           CHECK          BACKENDS   HEALTH     REVISION   SETTINGS\n\
             web             round-robin         tcp every 2s   2          1/2        12         -\n\
             a-longer-name   least-connections   none           2          no check   12         on-down keep, slow-start 10s\n"
        );
    }

    #[test]
    fn algorithms_and_policies_have_the_words_of_the_options() {
        for (algorithm, word) in [
            (v1::Algorithm::RandomTwo, "random-two"),
            (v1::Algorithm::SourceHash, "source-hash"),
            (v1::Algorithm::SourcePortHash, "source-port-hash"),
            (v1::Algorithm::First, "first"),
        ] {
            let mut pool = sample_pool("web");
            pool.set_algorithm(algorithm);
            pool.set_on_down(v1::OnDown::Keep);
            pool.set_on_primary_up(v1::OnPrimaryUp::Close);
            pool.set_all_down(v1::AllDown::FailOpen);
            pool.set_send_proxy(v1::SendProxy::V2);
            let view = PoolView::from(pool);
            assert_eq!((view.send_proxy, view.on_primary_up), ("v2", "close"));
            assert_eq!((view.algorithm, view.on_down, view.all_down), (word, "keep", "fail-open"));
        }
    }

    #[test]
    fn a_description_has_every_setting() {
        assert_eq!(
            PoolView::from(sample_pool("web")).description(),
            "NAME                web\n\
             ALGORITHM           round-robin\n\
             CHECK               tcp every 2s (500ms while in doubt), timeout 1s, rise 2, fall 3, jitter 10 %, port the backend's own, at first unknown\n\
             CONNECT-TIMEOUT     2s\n\
             CONNECT-RETRIES     3\n\
             ON-DOWN             close\n\
             ON-PRIMARY-UP       keep\n\
             ALL-DOWN            refuse\n\
             MINIMUM-HEALTHY     1\n\
             QUEUE               1000 for 5s\n\
             SLOW-START          off\n\
             STICKINESS          off\n\
             IDLE-TIMEOUT        off\n\
             MAX-LIFETIME        off\n\
             CLOSE-SPREAD        10 %\n\
             DEAD-PEER-TIMEOUT   2m\n\
             SEND-PROXY          off\n\
             BACKENDS            2\n\
             HEALTH              -\n\
             REVISION            12\n\
             ETAG                12\n"
        );
    }

    #[test]
    fn documents_have_every_key() {
        let view = PoolView::from(sample_pool("web"));
        let json = render(Format::Json, &view, String::new).unwrap();
        assert_eq!(
            json,
            r#"{
  "name": "web",
  "algorithm": "round-robin",
  "health": {
    "kind": "tcp",
    "tls": null,
    "http": null,
    "grpc": null,
    "exchange": null,
    "interval": "2s",
    "interval_seconds": 2.0,
    "fast_interval": "500ms",
    "fast_interval_seconds": 0.5,
    "timeout": "1s",
    "timeout_seconds": 1.0,
    "rise": 2,
    "fall": 3,
    "jitter_percent": 10,
    "port": null,
    "initial": "unknown"
  },
  "connect_timeout": "2s",
  "connect_timeout_seconds": 2.0,
  "connect_retries": 3,
  "on_down": "close",
  "on_primary_up": "keep",
  "all_down": "refuse",
  "minimum_healthy": 1,
  "queue_length": 1000,
  "queue_timeout": "5s",
  "queue_timeout_seconds": 5.0,
  "slow_start": null,
  "slow_start_seconds": null,
  "stickiness": null,
  "stickiness_seconds": null,
  "idle_timeout": null,
  "idle_timeout_seconds": null,
  "max_lifetime": null,
  "max_lifetime_seconds": null,
  "close_spread_percent": 10,
  "dead_peer_timeout": "2m",
  "dead_peer_timeout_seconds": 120.0,
  "send_proxy": "off",
  "backend_count": 2,
  "healthy_backends": null,
  "down_on": null,
  "revision": 12,
  "etag": "12"
}
"#
        );
    }

    #[test]
    fn lists_are_yaml_too() {
        let view = PoolView::from(sample_pool("web"));
        let yaml = render(Format::Yaml, &vec![view], String::new).unwrap();
        assert_eq!(
            yaml,
            "- name: web\n  \
               algorithm: round-robin\n  \
               health:\n    \
                 kind: tcp\n    \
                 tls: null\n    \
                 http: null\n    \
                 grpc: null\n    \
                 exchange: null\n    \
                 interval: 2s\n    \
                 interval_seconds: 2.0\n    \
                 fast_interval: 500ms\n    \
                 fast_interval_seconds: 0.5\n    \
                 timeout: 1s\n    \
                 timeout_seconds: 1.0\n    \
                 rise: 2\n    \
                 fall: 3\n    \
                 jitter_percent: 10\n    \
                 port: null\n    \
                 initial: unknown\n  \
               connect_timeout: 2s\n  \
               connect_timeout_seconds: 2.0\n  \
               connect_retries: 3\n  \
               on_down: close\n  \
               on_primary_up: keep\n  \
               all_down: refuse\n  \
               minimum_healthy: 1\n  \
               queue_length: 1000\n  \
               queue_timeout: 5s\n  \
               queue_timeout_seconds: 5.0\n  \
               slow_start: null\n  \
               slow_start_seconds: null\n  \
               stickiness: null\n  \
               stickiness_seconds: null\n  \
               idle_timeout: null\n  \
               idle_timeout_seconds: null\n  \
               max_lifetime: null\n  \
               max_lifetime_seconds: null\n  \
               close_spread_percent: 10\n  \
               dead_peer_timeout: 2m\n  \
               dead_peer_timeout_seconds: 120.0\n  \
               send_proxy: \"off\"\n  \
               backend_count: 2\n  \
               healthy_backends: null\n  \
               down_on: null\n  \
               revision: 12\n  \
               etag: \"12\"\n"
        );
    }
}
