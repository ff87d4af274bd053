//! What happened on the cluster and its members.

use std::fmt;

use serde::Serialize;
use trestle_api::v1;
use trestle_api::v1::cluster_event::Detail;

use super::span::rfc3339;
use super::{or_dash, short_name};
use crate::table::plain;

/// One event.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterEventView {
    /// RFC 3339 in UTC, by the clock of the member; `None` when it is not known.
    time: Option<String>,
    /// Who saw it, holds the virtual IPs or took the request.
    member: Option<String>,
    severity: &'static str,
    event: String,
    text: String,
    /// Names the event: no two have the same.
    id: String,
    detail: Option<DetailView>,
}

/// What happened, for programs; which keys there are depends on the event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum DetailView {
    Verdict {
        backend: String,
        verdict: &'static str,
        reason: String,
    },
    Pool {
        pool: String,
        down: bool,
    },
    Listener {
        listener: String,
        bound: bool,
    },
    Leader {
        leader: Option<String>,
        term: u64,
    },
    Peer {
        peer: String,
    },
    Vip {
        vips: Vec<String>,
        term: u64,
        reason: String,
    },
    Configuration {
        revision: u64,
        changes: Vec<ChangeView>,
        change_count: u32,
        actor: Option<String>,
        client: Option<String>,
        request_id: Option<String>,
    },
}

/// What becomes of a resource.
#[derive(Debug, Serialize)]
pub(crate) struct ChangeView {
    change: &'static str,
    name: String,
    /// Of an update: the settings that have another value than before.
    fields: Vec<String>,
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<v1::ResourceChange> for ChangeView {
    fn from(change: v1::ResourceChange) -> Self {
        let word = match change.r#type() {
            v1::EventType::Created => "created",
            v1::EventType::Updated => "updated",
            v1::EventType::Deleted => "deleted",
            v1::EventType::Current | v1::EventType::Unspecified => "unknown",
        };
        // "web" may be a pool and a listener: the kind stays with the name.
        Self { change: word, name: change.name, fields: change.fields }
    }
}

impl fmt::Display for ChangeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.change)?;
        match self.fields.as_slice() {
            [] => Ok(()),
            fields => write!(f, " ({})", fields.join(", ")),
        }
    }
}

fn detail(detail: Detail) -> DetailView {
    match detail {
        Detail::Verdict(event) => DetailView::Verdict {
            backend: short_name(&event.backend),
            verdict: match event.verdict() {
                v1::Verdict::Healthy => "healthy",
                v1::Verdict::Unhealthy => "unhealthy",
                v1::Verdict::Unknown | v1::Verdict::Unspecified => "unknown",
            },
            reason: event.reason,
        },
        Detail::Pool(event) => DetailView::Pool { pool: short_name(&event.pool), down: event.down },
        Detail::Listener(event) => {
            DetailView::Listener { listener: short_name(&event.listener), bound: event.bound }
        }
        Detail::Leader(event) => {
            DetailView::Leader { leader: given(short_name(&event.leader)), term: event.term }
        }
        Detail::Peer(event) => DetailView::Peer { peer: short_name(&event.peer) },
        Detail::Vip(event) => DetailView::Vip {
            vips: event.vips.iter().map(|name| short_name(name)).collect(),
            term: event.term,
            reason: event.reason,
        },
        Detail::Configuration(event) => DetailView::Configuration {
            revision: event.revision,
            changes: event.changes.into_iter().map(Into::into).collect(),
            change_count: event.change_count,
            actor: given(event.actor),
            client: given(event.client),
            request_id: given(event.request_id),
        },
    }
}

impl From<v1::ClusterEvent> for ClusterEventView {
    fn from(event: v1::ClusterEvent) -> Self {
        let id = event.id.clone().unwrap_or_default();
        let source = given(short_name(&id.member)).unwrap_or_else(|| "log".to_owned());
        Self {
            time: event.time.and_then(rfc3339),
            member: given(short_name(&event.member)),
            severity: match event.severity() {
                v1::EventSeverity::Info => "info",
                v1::EventSeverity::Warning => "warning",
                v1::EventSeverity::Error => "error",
                v1::EventSeverity::Unspecified => "unknown",
            },
            event: event.kind,
            text: event.text,
            id: format!("{source}/{:016x}/{}", id.start, id.number),
            detail: event.detail.map(detail),
        }
    }
}

impl ClusterEventView {
    /// Headings above [`ClusterEventView::line`]. The columns are fixed, because lines come one at a time.
    pub(crate) const HEADINGS: &'static str = "TIME                       MEMBER     LEVEL     WHAT\n";

    /// One line.
    pub(crate) fn line(&self) -> String {
        let (time, member) = (or_dash(self.time.as_ref()), or_dash(self.member.as_ref()));
        format!("{time:<26} {:<10} {:<9} {}\n", plain(&member), self.severity, plain(&self.text))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::tests::sample::sample_event;

    #[test]
    fn a_line_stands_below_its_headings() {
        let view = ClusterEventView::from(sample_event("m2", 3));
        let text = ClusterEventView::HEADINGS.to_owned() + &view.line();
        assert_eq!(
            text,
            "TIME                       MEMBER     LEVEL     WHAT\n\
             2023-11-14T22:13:20.250Z   m2         warning   backend web/a is unhealthy: connection refused\n"
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["id"], "m2/0000000000000007/3");
        assert_eq!(json["detail"]["backend"], "web/a");
    }
}
