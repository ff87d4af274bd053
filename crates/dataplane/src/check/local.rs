//! A check of a service on this machine, made when it is asked for: what a pool's checks do, without a pool.

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
    /// Made from the file of the CA.
    Verified(FromFiles<Arc<CheckPlan>>),
}

impl LocalCheck {
    /// A check at `address`, which may take `timeout`. `ca_file` is whom to trust where `kind` is an HTTP check over TLS, as PEM
    /// certificates, and is read anew when it changes; without one nothing is verified, as in a pool.
    pub fn new(kind: CheckKind, address: SocketAddr, ca_file: Option<&Path>, timeout: Duration) -> Self {
        let plan = move |kind: CheckKind| {
            let health = HealthCheck { kind, timeout, ..HealthCheck::default() };
            // No file is read but the CA's, whose path is this member's own.
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

/// Asks for one run of a check.
#[derive(Debug)]
pub(crate) struct LocalRun {
    pub(crate) check: Arc<LocalCheck>,
    pub(crate) answer: oneshot::Sender<CheckResult>,
}

impl LocalRun {
    /// Runs the check, unless who asked has given up. It waits for no other check, however many there are.
    pub(super) async fn run(mut self, sockets: &CheckSockets) {
        tokio::select! {
            result = self.check.run(sockets) => {
                // Fails only when nobody waits any more.
                let _ = self.answer.send(result);
            }
            () = self.answer.closed() => {}
        }
    }
}
