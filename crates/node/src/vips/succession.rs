//! Which members could lead after this one, and hold the virtual IPs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use trestle_api::peer;
use trestle_consensus::CAUGHT_UP_WITHIN;
use trestle_engine::ownership::{FaultKey, FitnessReport, OwnFaults};
use trestle_model::MemberId;

use super::faults::{self, OwnFitness};
use super::handle::Vips;
use crate::peers::Peers;
use crate::this_member::ThisMember;

/// Least time that another member has to answer.
const PATIENCE_MIN: Duration = Duration::from_millis(250);

/// Another voter's answer.
pub(super) struct Other {
    pub(super) id: MemberId,
    pub(super) status: peer::MemberReport,
    pub(super) report: FitnessReport,
}

/// Finds the members that could lead after this one, by what they say. Clones share it.
#[derive(Clone)]
pub(crate) struct Succession {
    pub(super) local: ThisMember,
    pub(super) peers: Peers,
    pub(super) vips: Arc<Vips>,
    pub(super) fitness: OwnFitness,
}

impl Succession {
    pub(crate) fn new(local: ThisMember, peers: Peers, vips: Arc<Vips>, fitness: OwnFitness) -> Self {
        Self { local, peers, vips, fitness }
    }

    /// Asks the other voters for their state.
    pub(super) async fn ask(&self) -> Vec<Other> {
        let view = self.local.consensus.view().borrow().clone();
        let me = self.local.id();
        let others = view.state.members.values();
        let others = others.filter(|other| Some(other.id) != me && view.voters.contains(&other.id)).cloned();
        let patience = self.local.consensus.timing().election_max.max(PATIENCE_MIN);
        let here: BTreeSet<FaultKey> = faults::dead(&self.fitness.dead_pools());
        let answers = others.map(|other| {
            let here = &here;
            async move {
                let ask = peer::ReportRequest { no_digest: true, ..Default::default() };
                // A member that does not answer in time is no successor, and this member's own faults must not wait for it.
                let answer = tokio::time::timeout(patience, self.peers.report(&other, &ask)).await;
                let status = answer.ok()?.ok()?.status?;
                let mut report = faults::report(&status);
                // Where both see every backend of a pool dead, this member is not isolated.
                report.faults.extend(faults::dead(&status.dead_pools).intersection(here).cloned());
                Some(Other { id: other.id, status, report })
            }
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    /// What is wrong with this member now.
    fn own_faults(&self) -> OwnFaults {
        let (revision, faults) = self.fitness.faults();
        let mut own = OwnFaults::default();
        own.observe(revision, &faults.into_keys().collect());
        own
    }

    /// The members to which leadership can go, best first, by what they say now.
    pub(super) async fn targets(&self) -> Vec<MemberId> {
        let others = self.ask().await;
        self.successors(&others, &self.own_faults())
    }

    /// The members to which leadership can go from a leader whose log is not written, best first. Such a leader cannot vote, so there
    /// are none unless the others whose logs are written are a quorum.
    pub(super) async fn targets_without_own_vote(&self) -> Vec<MemberId> {
        let mut others = self.ask().await;
        others
            .retain(|other| !other.status.abstains && !other.report.unknown && !other.report.writes_no_log());
        let voters = self.local.consensus.view().borrow().voters.len();
        if others.len() <= voters / 2 {
            return Vec::new();
        }
        self.successors(&others, &self.own_faults())
    }

    /// The voters that are no worse than this member. A fault that all of them have prevents no move. Voters that gave the virtual IPs
    /// up not long ago are left out, unless an operator asks for a hand-over.
    pub(super) fn successors(&self, others: &[Other], own: &OwnFaults) -> Vec<MemberId> {
        let raft = self.local.consensus.status();
        // Another member's own report says what it has of the log. What this member remembers of it may have been lost since.
        let able = |id: &MemberId| {
            others.iter().any(|other| {
                let lag = raft.committed.saturating_sub(other.status.applied_index);
                other.id == *id && !other.status.abstains && lag <= CAUGHT_UP_WITHIN
            })
        };
        let voters: Vec<MemberId> = self.local.consensus.targets().into_iter().filter(able).collect();
        let those = |suits: &dyn Fn(&FitnessReport) -> bool| -> Vec<MemberId> {
            let suits = |id: &&MemberId| others.iter().any(|other| other.id == **id && suits(&other.report));
            voters.iter().filter(suits).copied().collect()
        };
        let leaving = self.vips.is_leaving();
        let asked = self.vips.moves.load(Ordering::Relaxed) > 0 || leaving;
        let fit = those(&|report| own.matched_by(report) && (asked || report.recovering.is_empty()));
        // A virtual IP that was released cannot be taken back in this term, so an unfit member that can serve is better than none.
        // All members may have become unfit at once, by a check of something that they share.
        if fit.is_empty() && leaving { those(&|report| !report.is_unable()) } else { fit }
    }

    /// The pools of which this member alone sees every backend dead.
    pub(super) fn isolated(&self, others: &[Other]) -> Vec<String> {
        let sees = |pool: &String| others.iter().any(|other| !other.status.dead_pools.contains(pool));
        self.fitness.dead_pools().into_iter().filter(sees).collect()
    }
}
