//! Pools.

use serde::Serialize;
use trestle_api::v1;

use super::check::CheckView;
use super::{or_dash, short_name, typed_duration};
use crate::table;

/// A pool.
#[derive(Debug, Serialize)]
pub(crate) struct PoolView {
    name: String,
    algorithm: &'static str,
    health_check: CheckView,
    connect_timeout: Option<String>,
    connect_retries: Option<u32>,
    on_down: &'static str,
    all_down: &'static str,
    backends: u32,
    /// Revision that last changed it.
    pub(crate) revision: u64,
    etag: String,
}

impl From<v1::Pool> for PoolView {
    fn from(pool: v1::Pool) -> Self {
        let algorithm = match pool.algorithm() {
            v1::Algorithm::LeastConnections => "least-connections",
            v1::Algorithm::RandomTwo => "random-two",
            v1::Algorithm::SourceHash => "source-hash",
            v1::Algorithm::First => "first",
            v1::Algorithm::RoundRobin | v1::Algorithm::Unspecified => "round-robin",
        };
        let on_down = match pool.on_down() {
            v1::OnDown::Keep => "keep",
            v1::OnDown::Close | v1::OnDown::Unspecified => "close",
        };
        let all_down = match pool.all_down() {
            v1::AllDown::FailOpen => "fail-open",
            v1::AllDown::Refuse | v1::AllDown::Unspecified => "refuse",
        };
        Self {
            name: short_name(&pool.name),
            algorithm,
            health_check: pool.health_check.unwrap_or_default().into(),
            connect_timeout: typed_duration(pool.connect_timeout.as_ref()),
            connect_retries: pool.connect_retries,
            on_down,
            all_down,
            backends: pool.backend_count,
            revision: pool.revision,
            etag: pool.etag,
        }
    }
}

impl PoolView {
    /// One line for each pool.
    pub(crate) fn table(pools: &[Self]) -> String {
        let row = |p: &Self| {
            [
                p.name.clone(),
                p.algorithm.to_owned(),
                p.health_check.brief(),
                p.backends.to_string(),
                p.revision.to_string(),
            ]
        };
        table::table(["NAME", "ALGORITHM", "CHECK", "BACKENDS", "REVISION"], pools.iter().map(row))
    }

    /// All settings, one to a line.
    pub(crate) fn description(&self) -> String {
        table::fields([
            ("NAME", self.name.clone()),
            ("ALGORITHM", self.algorithm.to_owned()),
            ("CHECK", self.health_check.full()),
            ("CONNECT-TIMEOUT", or_dash(self.connect_timeout.as_ref())),
            ("CONNECT-RETRIES", self.connect_retries.map_or_else(|| "-".to_owned(), |n| n.to_string())),
            ("ON-DOWN", self.on_down.to_owned()),
            ("ALL-DOWN", self.all_down.to_owned()),
            ("BACKENDS", self.backends.to_string()),
            ("REVISION", self.revision.to_string()),
            ("ETAG", self.etag.clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::args::Format;
    use crate::output::render;
    use crate::tests::sample::sample_pool;

    #[test]
    fn a_list_has_one_line_for_each_pool() {
        let mut unchecked = sample_pool("a-longer-name");
        unchecked.algorithm = v1::Algorithm::LeastConnections.into();
        unchecked.health_check.as_mut().unwrap().kind = Some(v1::health_check::Kind::None(v1::NoCheck {}));
        let pools: Vec<PoolView> = vec![sample_pool("web").into(), unchecked.into()];
        assert_eq!(
            PoolView::table(&pools),
            "NAME            ALGORITHM           CHECK          BACKENDS   REVISION\n\
             web             round-robin         tcp every 2s   2          12\n\
             a-longer-name   least-connections   none           2          12\n"
        );
    }

    #[test]
    fn algorithms_and_policies_have_the_words_of_the_options() {
        for (algorithm, word) in [
            (v1::Algorithm::RandomTwo, "random-two"),
            (v1::Algorithm::SourceHash, "source-hash"),
            (v1::Algorithm::First, "first"),
        ] {
            let mut pool = sample_pool("web");
            pool.set_algorithm(algorithm);
            pool.set_on_down(v1::OnDown::Keep);
            pool.set_all_down(v1::AllDown::FailOpen);
            let view = PoolView::from(pool);
            assert_eq!((view.algorithm, view.on_down, view.all_down), (word, "keep", "fail-open"));
        }
    }

    #[test]
    fn a_description_has_every_setting() {
        assert_eq!(
            PoolView::from(sample_pool("web")).description(),
            "NAME              web\n\
             ALGORITHM         round-robin\n\
             CHECK             tcp every 2s (500ms while in doubt), timeout 1s, rise 2, fall 3, jitter 10 %, port the backend's own\n\
             CONNECT-TIMEOUT   2s\n\
             CONNECT-RETRIES   3\n\
             ON-DOWN           close\n\
             ALL-DOWN          refuse\n\
             BACKENDS          2\n\
             REVISION          12\n\
             ETAG              12\n"
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
  "health_check": {
    "kind": "tcp",
    "tls": null,
    "http": null,
    "interval": "2s",
    "fast_interval": "500ms",
    "timeout": "1s",
    "rise": 2,
    "fall": 3,
    "jitter_percent": 10,
    "port": null
  },
  "connect_timeout": "2s",
  "connect_retries": 3,
  "on_down": "close",
  "all_down": "refuse",
  "backends": 2,
  "revision": 12,
  "etag": "12"
}
"#
        );
        let yaml = render(Format::Yaml, &vec![view], String::new).unwrap();
        assert_eq!(
            yaml,
            "- name: web\n  \
               algorithm: round-robin\n  \
               health_check:\n    \
                 kind: tcp\n    \
                 tls: null\n    \
                 http: null\n    \
                 interval: 2s\n    \
                 fast_interval: 500ms\n    \
                 timeout: 1s\n    \
                 rise: 2\n    \
                 fall: 3\n    \
                 jitter_percent: 10\n    \
                 port: null\n  \
               connect_timeout: 2s\n  \
               connect_retries: 3\n  \
               on_down: close\n  \
               all_down: refuse\n  \
               backends: 2\n  \
               revision: 12\n  \
               etag: \"12\"\n"
        );
    }
}
