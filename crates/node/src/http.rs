//! HTTP for machines that watch: `/livez`, `/readyz`, `/metrics`.

mod metrics_access;
mod scrapes;

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trestle_consensus::RaftState;
use trestle_dataplane::DataPlane;

use crate::accept::{self, ConnectionOrigin, Http1, ServicePort};
use crate::health::ProcessHealth;
use crate::metrics::{self, MetricSources};
use crate::revision_waits::RevisionWaits;
use crate::this_member::ThisMember;
use metrics_access::MetricsAccess;
use scrapes::Scrapes;

/// How long a change may take to come into force before `/readyz` calls the member behind. Each change takes a moment, and
/// one that asks in this moment must not take the member out of service. Kubernetes gives up a probe after 1 s.
const CATCHING_UP: Duration = Duration::from_millis(500);

/// What the HTTP server needs.
#[derive(Clone)]
pub(crate) struct HttpPages {
    local: ThisMember,
    plane: Arc<DataPlane>,
    health: Arc<ProcessHealth>,
    waits: RevisionWaits,
    leaving: CancellationToken,
    scrapes: Arc<Scrapes>,
    metrics_access: MetricsAccess,
}

impl HttpPages {
    pub(crate) fn new(
        metrics: MetricSources,
        health: Arc<ProcessHealth>,
        waits: RevisionWaits,
        leaving: CancellationToken,
    ) -> Self {
        let (local, plane) = (metrics.local.clone(), metrics.plane.clone());
        let metrics_access = MetricsAccess { token_file: local.config.metrics_token_file.clone() };
        let render = move || metrics::encode(&metrics);
        let scrapes = Arc::new(Scrapes::new(render));
        Self { local, plane, health, waits, leaving, scrapes, metrics_access }
    }
}

/// Serves until the process ends: while connections finish, `/readyz` must say that this member is going away.
pub(crate) async fn serve(listener: TcpListener, port: Arc<ServicePort>, http: HttpPages) {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .fallback(async || (StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"))
        .with_state(http);
    accept::run(listener, port, Http1(router), CancellationToken::new()).await;
}

/// Ready: belongs to a cluster, is not drained, knows a leader, and its data plane reflects what it knows.
async fn readyz(State(http): State<HttpPages>) -> Response {
    let why_not = http.not_ready().await;
    if why_not.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, why_not.join("\n") + "\n").into_response()
}

async fn metrics_text(
    State(http): State<HttpPages>,
    Extension(origin): Extension<ConnectionOrigin>,
    headers: HeaderMap,
) -> Response {
    let from = match origin {
        ConnectionOrigin::Tcp(from) => Some(from),
        ConnectionOrigin::Unix(_) => None,
    };
    let transport = http.local.consensus.view().borrow().state.transport;
    if let Err(refusal) = http.metrics_access.check(from, &headers, transport) {
        return refusal.into_response();
    }
    http.scrapes.answer(metrics::CONTENT_TYPE).await
}

impl HttpPages {
    async fn not_ready(&self) -> Vec<String> {
        let mut why = Vec::new();
        if self.leaving.is_cancelled() {
            why.push("shutting down".to_owned());
        }
        why.extend(self.health.missing_parts());
        why.extend(self.health.log_silence());
        let view = self.local.consensus.view().borrow().clone();
        let own = self.local.id().and_then(|id| view.state.members.get(&id));
        if own.is_some_and(|own| own.draining) {
            why.push("draining".to_owned());
        }
        let raft = self.local.consensus.status();
        match raft.state {
            RaftState::Empty => {
                why.push("belongs to no cluster yet".to_owned());
                why.extend(self.local.founding.waits());
            }
            RaftState::Removed => why.push("was removed from its cluster".to_owned()),
            _ if raft.leader.is_none() => why.push("knows no leader".to_owned()),
            _ => {}
        }
        if self.local.consensus.was_removed() {
            // It puts nothing into force any more, and waits for nothing.
            return why;
        }
        why.extend(self.local.consensus.abstains());
        let known = self.local.revision();
        self.waits.await_here(known, CATCHING_UP).await;
        let in_force = *self.plane.in_force().borrow();
        // A new listener that waits for its backends' first checks takes no member out of service that serves the others.
        let serves = in_force > 0 && self.plane.table().revision >= known;
        if in_force < known && !serves {
            why.push(format!("data plane is at revision {in_force} of {known}"));
        }
        why
    }
}
