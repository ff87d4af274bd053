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

/// Names one run of checks; a changed check is another run.
pub(crate) type CheckId = u64;

/// What the reconciler tells the prober.
#[derive(Debug)]
pub(crate) enum ProbeCommand {
    /// Check a backend from now on.
    Watch(CheckId, CheckRequest),
    /// A backend's name stands for other addresses, among them the one in use.
    Renew(CheckId, Arc<[IpAddr]>),
    /// No longer.
    Forget(CheckId),
}

/// What is checked, and how.
#[derive(Debug)]
pub(crate) struct CheckRequest {
    /// Where it is, with the address in use.
    pub(crate) candidates: Candidates,
    /// The backend's name, if it is known by one.
    pub(crate) name: Option<Arc<str>>,
    /// The port that is checked; `None` where none is.
    pub(crate) port: Option<Port>,
    /// How; one for all backends of a pool.
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
    /// What the verdict rests on, a check at that address; `None` when it rests on what it did before.
    pub(crate) result: Option<CheckResult>,
    /// Addresses that were left and have turned out to be dead.
    pub(crate) dead: Vec<IpAddr>,
    pub(crate) at: Instant,
}

/// What checks go by beside their plans.
#[derive(Debug)]
pub(crate) struct World {
    /// The table that holds, with where no check may go.
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// Where checks come from.
    pub(crate) source: Sources,
    /// Where it is noted what this member lacks.
    pub(crate) shortages: Arc<Shortages>,
}
