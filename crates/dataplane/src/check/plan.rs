//! What a pool's check does, prepared once for all its backends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use trestle_engine::proxy::{OWN_V2, format_v1};
use trestle_model::{CheckKind, HealthCheck, PoolSpec, Port, SendProxy};

use super::exchange::ExchangePlan;
use super::grpc::GrpcPlan;
use super::http::HttpPlan;
use super::limit::CheckDeadline;
use super::sockets::CheckSockets;
use super::stream::CheckStream;
use super::target::CheckTarget;
use super::tcp;
use super::tls::{self, TlsPlan};
use crate::observe::check_result::CheckResult;

/// How the backends of one pool are checked.
#[derive(Debug)]
pub(crate) struct CheckPlan {
    /// The settings that this was made from.
    pub(crate) health: HealthCheck,
    kind: Kind,
    /// The PROXY header that the backend is sent first, if any.
    header: SendProxy,
}

#[derive(Debug)]
enum Kind {
    None,
    Tcp,
    Tls(Box<TlsPlan>),
    Http(Box<HttpPlan>),
    Grpc(Box<GrpcPlan>),
    Exchange(Box<ExchangePlan>),
    /// No check can succeed, and this is the reason.
    Impossible(Arc<str>),
}

impl CheckPlan {
    /// Prepares checks as a pool configures them. They read files below `directory`. Where no check can be made with the settings,
    /// every check fails with the reason.
    pub(crate) fn new(spec: &PoolSpec, directory: &Arc<Path>) -> Self {
        let health = &spec.health;
        // A port other than that of clients is most likely another server, which gets no header. HAProxy does the same.
        let header = if health.port.is_none() { spec.send_proxy } else { SendProxy::Off };
        let kind = match &health.kind {
            CheckKind::None => Ok(Kind::None),
            CheckKind::Tcp => Ok(Kind::Tcp),
            CheckKind::Tls(check) => {
                TlsPlan::new(check, None, &[], directory).map(|plan| Kind::Tls(Box::new(plan)))
            }
            CheckKind::Http(check) => HttpPlan::new(check, directory).map(|plan| Kind::Http(Box::new(plan))),
            CheckKind::Grpc(check) => GrpcPlan::new(check, directory).map(|plan| Kind::Grpc(Box::new(plan))),
            CheckKind::Exchange(check) => {
                ExchangePlan::new(check, directory).map(|plan| Kind::Exchange(Box::new(plan)))
            }
        };
        let kind = kind.unwrap_or_else(|words| Kind::Impossible(words.into()));
        Self { health: health.clone(), kind, header }
    }

    /// The port that is checked of a backend with port `own`; `None` without a check.
    pub(crate) fn port(&self, own: Option<Port>) -> Option<Port> {
        match self.kind {
            Kind::None => None,
            _ => self.health.port.or(own),
        }
    }

    /// Checks once; ends within the check's timeout.
    pub(super) async fn check(&self, target: &CheckTarget, sockets: &CheckSockets) -> CheckResult {
        let timeout = self.health.timeout;
        match &self.kind {
            Kind::Impossible(words) => CheckResult::Wrong(words.clone()),
            Kind::None | Kind::Tcp => tcp::check(target.address, timeout, sockets).await,
            _ => self.talk(target, timeout, sockets).await,
        }
    }

    /// Checks by what the backend answers.
    async fn talk(&self, target: &CheckTarget, timeout: Duration, sockets: &CheckSockets) -> CheckResult {
        let limit = CheckDeadline::new(timeout);
        let mut stream = match tcp::connect(target.address, timeout, sockets).await {
            Ok(stream) => CheckStream::new(stream),
            Err(result) => return result,
        };
        // A new connection has room for it. If the connection breaks, reading says so.
        let header = self.header(&stream);
        if !header.is_empty() {
            let _ = limit.reach(stream.write_all(&header)).await;
        }
        // Boxed, because the tasks of backends that wait for their next check would reserve room for them.
        let result = match &self.kind {
            Kind::Tls(plan) => Box::pin(tls::check(plan, &mut stream, target, limit)).await,
            Kind::Http(plan) => Box::pin(plan.check(&mut stream, target, limit)).await,
            Kind::Grpc(plan) => Box::pin(plan.check(&mut stream, target, limit)).await,
            Kind::Exchange(plan) => Box::pin(plan.check(&mut stream, target, limit)).await,
            Kind::None | Kind::Tcp | Kind::Impossible(_) => Ok(CheckResult::Connected),
        };
        // Also after a wrong answer: a replica that a role check calls down works well otherwise.
        let lacks = stream.lacks();
        Box::pin(stream.say_goodbye()).await;
        match (result, lacks) {
            (Ok(result), _) => result,
            // Whatever error the protocols above reported.
            (Err(_), Some(shortage)) => CheckResult::NotMade(shortage),
            (Err(error), None) => error.into(),
        }
    }

    /// The header of a connection that this member makes by itself. Version 1 names the check's own addresses, as
    /// HAProxy's checks do: Postfix refuses UNKNOWN.
    fn header(&self, stream: &CheckStream) -> Vec<u8> {
        match self.header {
            SendProxy::Off => Vec::new(),
            SendProxy::V1 => {
                stream.ends().map(|(here, backend)| format_v1(here, backend)).unwrap_or_default()
            }
            SendProxy::V2 => OWN_V2.to_vec(),
        }
    }
}
