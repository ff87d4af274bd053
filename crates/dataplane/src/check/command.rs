//! What the reconciler tells the prober, and what it is told.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use trestle_engine::{Candidates, Verdict};
use trestle_model::Port;

use super::plan::CheckPlan;
use crate::machine::shortage::Shortages;
use crate::observe::check_result::CheckResult;
use crate::table::Table;
use crate::upstream::backend_runtime::BackendRuntime;
use crate::upstream::source::Sources;

/// Identifies one run of checks. A check that is changed gets a new run.
pub(crate) type CheckId = u64;

/// What the reconciler tells the prober.
#[derive(Debug)]
pub(crate) enum ProbeCommand {
    /// Check a backend from now on.
    Watch(CheckId, CheckRequest),
    /// A backend's name stands for other addresses, among them the one in use.
    Renew(CheckId, Arc<[IpAddr]>),
    /// Stop checking a backend.
    Forget(CheckId),
}

/// What is checked, and how.
#[derive(Debug)]
pub(crate) struct CheckRequest {
    /// Where it is, with the address in use.
    pub(crate) candidates: Candidates,
    /// The backend's name, if it is configured by name.
    pub(crate) name: Option<Arc<str>>,
    /// The port that is checked; `None` without a check.
    pub(crate) port: Option<Port>,
    /// How it is checked. All backends of a pool share this.
    pub(crate) plan: Arc<CheckPlan>,
    /// What is known so far.
    pub(crate) verdict: Verdict,
    /// Where checks are counted.
    pub(crate) runtime: Arc<BackendRuntime>,
}

/// A verdict, another reason for the one that stands, or another address.
#[derive(Debug)]
pub(crate) struct CheckReport {
    pub(crate) id: CheckId,
    /// The address that is in use from now on.
    pub(crate) ip: IpAddr,
    pub(crate) verdict: Verdict,
    /// The check at that address on which the verdict rests; `None` when the reason for the verdict has not changed.
    pub(crate) result: Option<CheckResult>,
    /// Addresses that are no longer in use and were found dead.
    pub(crate) dead: Vec<IpAddr>,
    pub(crate) at: Instant,
}

/// What checks need beside their plans.
#[derive(Debug)]
pub(crate) struct World {
    /// The current table, which says where no check may connect.
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// The source address of checks.
    pub(crate) source: Sources,
    /// Records what this member lacks.
    pub(crate) shortages: Arc<Shortages>,
}
