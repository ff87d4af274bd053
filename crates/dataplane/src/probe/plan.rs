//! What a pool's check does, worked out once for all its backends.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use trestle_model::{CheckKind, HealthCheck, Port};

use super::http::HttpPlan;
use super::tcp;
use super::tls::{self, TlsPlan};
use crate::table::CheckResult;

/// How the backends of one pool are checked.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The settings that this was made from.
    pub(crate) health: HealthCheck,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    None,
    Tcp,
    Tls(Box<TlsPlan>),
    Http(Box<HttpPlan>),
    /// No check can succeed, for this reason.
    Impossible(Arc<str>),
}

/// The end of one check, and how long that was from its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    end: Instant,
    timeout: Duration,
}

impl Limit {
    /// Awaits a step of a check; `protocol` names in the error what took too long.
    pub(super) async fn bound<T>(
        self,
        protocol: &str,
        step: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let ended = timeout_at(self.end, step).await;
        ended.unwrap_or_else(|_| Err(format!("{protocol}: timed out after {:?}", self.timeout)))
    }
}

impl Plan {
    /// Prepares checks as configured. Settings that no check can be made from give every check the reason why.
    pub(crate) fn new(health: &HealthCheck) -> Self {
        let kind = match &health.kind {
            CheckKind::None => Ok(Kind::None),
            CheckKind::Tcp => Ok(Kind::Tcp),
            CheckKind::Tls(check) => TlsPlan::new(check, &[]).map(|plan| Kind::Tls(Box::new(plan))),
            CheckKind::Http(check) => HttpPlan::new(check).map(|plan| Kind::Http(Box::new(plan))),
            CheckKind::Grpc(_) | CheckKind::Exchange(_) => {
                Err("this kind of check is not there yet".to_owned())
            }
        };
        let kind = kind.unwrap_or_else(|words| Kind::Impossible(words.into()));
        Self { health: health.clone(), kind }
    }

    /// The port that is checked at a backend with port `own`; `None` when there is no check.
    pub(crate) fn port(&self, own: Option<Port>) -> Option<Port> {
        match self.kind {
            Kind::None => None,
            _ => self.health.port.or(own),
        }
    }

    /// Checks once; ends within the check's timeout.
    pub(super) async fn check(&self, address: SocketAddr) -> CheckResult {
        let timeout = self.health.timeout;
        let limit = Limit { end: Instant::now() + timeout, timeout };
        if let Kind::Impossible(words) = &self.kind {
            return CheckResult::Wrong(words.clone());
        }
        let stream = match tcp::connect(address, timeout).await {
            Ok(stream) => stream,
            Err(result) => return result,
        };
        // In boxes, because the tasks of backends that wait for their next check would keep room for them.
        let result = match &self.kind {
            Kind::Tls(plan) => Box::pin(tls::check(plan, stream, address, limit)).await,
            Kind::Http(plan) => Box::pin(plan.check(stream, address, limit)).await,
            Kind::None | Kind::Tcp | Kind::Impossible(_) => Ok(CheckResult::Connected),
        };
        result.unwrap_or_else(|words| CheckResult::Wrong(words.into()))
    }
}
