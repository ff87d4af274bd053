//! A check of a service on this machine, made on request. It does what a pool's checks do, without a pool.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use trestle_model::{CheckKind, HealthCheck, PoolSpec, TlsCheck};

use super::check_error::CheckError;
use super::files::FromFiles;
use super::plan::CheckPlan;
use super::sockets::CheckSockets;
use super::target::CheckTarget;
use crate::observe::check_result::CheckResult;

const CA: &str = "TLS: CA";

/// A check of a service on this machine.
#[derive(Debug)]
pub struct LocalCheck {
    target: CheckTarget,
    plan: LocalPlan,
}

#[derive(Debug)]
enum LocalPlan {
    Fixed(CheckPlan),
    /// The plan, made from the CA's file.
    Verified(FromFiles<Arc<CheckPlan>>),
}

impl LocalCheck {
    /// A check at `address`, which may take `timeout`. `ca_file` has the CAs, as PEM certificates, that an HTTP check over TLS
    /// trusts. It is read again when it changes. Without it nothing is verified, as in a pool.
    pub fn new(kind: CheckKind, address: SocketAddr, ca_file: Option<&Path>, timeout: Duration) -> Self {
        let plan = move |kind: CheckKind| {
            let health = HealthCheck { kind, timeout, ..HealthCheck::default() };
            // Only the CA's file is read, and its path comes from this member's own configuration.
            CheckPlan::new(&PoolSpec { health, ..PoolSpec::default() }, &root())
        };
        let plan = match ca_file {
            None => LocalPlan::Fixed(plan(kind)),
            Some(file) => {
                let named = [(CA, file.to_string_lossy().into())];
                LocalPlan::Verified(FromFiles::new(named, root(), move |contents| {
                    let pem = contents.first().map(|pem| String::from_utf8_lossy(pem.expose()));
                    let mut kind = kind.clone();
                    if let CheckKind::Http(check) = &mut kind {
                        check.tls = Some(TlsCheck { ca: pem.map(Into::into), ..TlsCheck::default() });
                    }
                    Ok(Arc::new(plan(kind)))
                }))
            }
        };
        Self { target: CheckTarget { address, name: None }, plan }
    }

    async fn run(&self, sockets: &CheckSockets) -> CheckResult {
        match &self.plan {
            LocalPlan::Fixed(plan) => plan.check(&self.target, sockets).await,
            LocalPlan::Verified(plan) => match plan.get().await {
                Ok(plan) => plan.check(&self.target, sockets).await,
                Err(error) => CheckError::into(error),
            },
        }
    }
}

fn root() -> Arc<Path> {
    Path::new("/").into()
}

/// A request for one run of a check.
#[derive(Debug)]
pub(crate) struct LocalRun {
    pub(crate) check: Arc<LocalCheck>,
    pub(crate) answer: oneshot::Sender<CheckResult>,
}

impl LocalRun {
    /// Runs the check, unless the caller has given up. It does not wait for other checks, however many there are.
    pub(super) async fn run(mut self, sockets: &CheckSockets) {
        tokio::select! {
            result = self.check.run(sockets) => {
                // This fails only when nobody waits any more.
                let _ = self.answer.send(result);
            }
            () = self.answer.closed() => {}
        }
    }
}
