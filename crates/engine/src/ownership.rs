//! Which VIPs this member serves, and until when.
//!
//! One [`Ownership`] stands for one member and all VIPs of the cluster. It serves a VIP only while this member leads, its
//! tenure is agreed, and the last heartbeat that a quorum answered was sent less than the lease ago. README.md in the
//! folder of this module has the reasons and the arithmetic; the tests beside it include an exhaustive model.

mod action;
mod announcement;
mod comparison;
mod event;
mod fitness;
mod held_vip;
mod lease;
mod leave;
mod state;
mod vip;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::{MemberId, Tenure};

pub use action::{Cause, OwnershipAction};
pub use comparison::{BackOff, FaultKey, FitnessReport, OwnFaults};
pub use event::OwnershipEvent;
pub use fitness::{Fault, OperatorCheck};
use held_vip::HeldVip;
pub use lease::{DEGRADED_FENCE_ERROR, Elected, FENCE_ERROR, LeaseTiming};
use leave::{Leaving, Request};
pub use state::{HeldVipFacts, MoveRefusal, OwnershipState};
pub use vip::ServedVip;

/// Time after which an action that has had no effect is repeated.
const RETRY: Duration = Duration::from_millis(100);

/// How long a member that did not take leadership over is not asked again: what kept it from doing so lasts longer than the
/// interruption that each attempt costs.
const SKIP_TIME: Duration = Duration::from_secs(30);
/// A member that leads again within this time after it offered leadership has offered it in vain. Standing again takes a
/// small part of it.
const OFFER_MAX: Duration = Duration::from_secs(5);

/// When an action was last asked for.
#[derive(Debug, Clone, Copy, Default)]
struct RetryTimer(Option<Duration>);

impl RetryTimer {
    /// Whether it is time to ask (again); if it is, `now` counts as the last time.
    fn due(&mut self, now: Duration, every: Duration) -> bool {
        let due = self.0.is_none_or(|last| now >= last.saturating_add(every));
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// The time in which this member leads in one term.
#[derive(Debug, Clone)]
struct LeaderTerm {
    term: u64,
    elected: Elected,
    /// When this machine was told; not before the election.
    since: Duration,
    /// When the last heartbeat that a quorum answered was sent.
    acked: Option<Duration>,
    take_timer: RetryTimer,
    /// Since when no new connections are taken, because this member is about to hand over.
    quiesced_since: Option<Duration>,
    leaving: Option<Leaving>,
}

/// One member's part in serving the VIPs. Durations are moments on one monotonic clock of this machine; moments of other
/// clocks must not be passed in.
#[derive(Debug, Clone)]
pub struct Ownership {
    me: MemberId,
    lease: LeaseTiming,
    vips: BTreeMap<IpAddr, Arc<ServedVip>>,
    held: BTreeMap<IpAddr, HeldVip>,
    leader_term: Option<LeaderTerm>,
    /// Nothing is served in this term or an earlier one: this member voted in it, or heard of a later claim.
    barred_term: u64,
    /// Terms for which Raft was allowed to vote and has not yet said whether it did.
    pending_votes: Vec<u64>,
    /// Term of the last entry applied, and the tenure then.
    applied: u64,
    tenure: Option<Tenure>,
    targets: Vec<MemberId>,
    /// The member to which leadership was last offered, and when.
    last_offer: Option<(MemberId, Duration)>,
    /// Members that did not take over. Until the time given they are asked last, and never for a fault or a preference.
    skipped_targets: BTreeMap<MemberId, Duration>,
    faults: BTreeSet<Fault>,
    request: Option<Request>,
    /// Since when a member has been there that is preferred to this one.
    better_since: Option<Duration>,
}

impl Ownership {
    /// A member that has just started and knows of nothing. What an earlier run left in the kernel must be removed before
    /// anything is claimed, and must have shut by itself before this member may vote; README.md says why it has.
    pub fn new(me: MemberId, lease: LeaseTiming) -> Self {
        Self {
            me,
            lease,
            vips: BTreeMap::new(),
            held: BTreeMap::new(),
            leader_term: None,
            barred_term: 0,
            pending_votes: Vec::new(),
            applied: 0,
            tenure: None,
            targets: Vec::new(),
            last_offer: None,
            skipped_targets: BTreeMap::new(),
            faults: BTreeSet::new(),
            request: None,
            better_since: None,
        }
    }

    /// Uses another lease from now on, as when the kernel turns out to have no nftables. To be called while nothing is
    /// held: what was claimed before keeps its deadline, but not the fence error that it was reckoned with.
    pub fn set_lease(&mut self, lease: LeaseTiming) {
        self.lease = lease;
    }

    /// Takes an event and answers what to do at `now`. The last action says when the next event must come at the latest; a
    /// [`OwnershipEvent::Tick`] will do.
    ///
    /// `now` must be read after the event was received. A later `now` never makes this member serve more.
    #[must_use]
    pub fn handle(&mut self, event: OwnershipEvent, now: Duration) -> Vec<OwnershipAction> {
        self.apply(event, now);
        let mut actions = Vec::new();
        self.consider_leaving(now, &mut actions);
        let until = self.serve_until(now);
        self.release_lapsed(until, now, &mut actions);
        self.claim_and_renew(until, now, &mut actions);
        self.take(now, &mut actions);
        self.leave(now, &mut actions);
        if let Some(at) = self.next_wake(now) {
            actions.push(OwnershipAction::WakeAt(at));
        }
        actions
    }

    /// Whether this member may give its vote to a candidate for `term` now. To be asked before each call for a vote goes to
    /// Raft, and obeyed; after a yes, nothing is served in any term up to `term` until [`Ownership::voted`] is told.
    ///
    /// Raft refuses votes while a leader's own lease runs. But a leader that a stale candidate's higher term has deposed
    /// remembers no lease, while the fence that it armed may still be open.
    pub fn may_vote(&mut self, term: u64, now: Duration) -> bool {
        let may = self.all_shut(now);
        if may {
            self.pending_votes.push(term);
        }
        may
    }

    /// Says what Raft made of a call that [`Ownership::may_vote`] let through: a vote that was given ends for good this
    /// member's right to serve in any term up to that one, even while it still believes to lead. When it is not known
    /// whether it was given, it was.
    pub fn voted(&mut self, term: u64, granted: bool) {
        if let Some(place) = self.pending_votes.iter().position(|asked| *asked == term) {
            self.pending_votes.swap_remove(place);
        }
        if granted {
            self.barred_term = self.barred_term.max(term);
        }
    }

    /// Whether [`OwnershipEvent::Move`] to this target can be followed.
    ///
    /// # Errors
    /// When this member does not lead, or the target, or every target, cannot take over.
    pub fn can_move(&self, to: Option<MemberId>) -> Result<(), MoveRefusal> {
        match to {
            _ if self.leader_term.is_none() => Err(MoveRefusal::NotLeading),
            Some(to) if to != self.me && !self.targets.contains(&to) => Err(MoveRefusal::Unfit(to)),
            None if self.targets.is_empty() => Err(MoveRefusal::NoTarget),
            _ => Ok(()),
        }
    }

    /// How far this member is with serving.
    pub fn state(&self, now: Duration) -> OwnershipState {
        let idle = self.vips.is_empty() && self.held.is_empty();
        let Some(leader_term) = &self.leader_term else {
            return if idle { OwnershipState::Idle } else { OwnershipState::Following };
        };
        if let Some(leaving) = &leader_term.leaving {
            OwnershipState::Leaving { cause: leaving.cause }
        } else if idle {
            OwnershipState::Idle
        } else if self.is_barred(leader_term.term) {
            OwnershipState::TermBarred
        } else if self.applied < leader_term.term {
            OwnershipState::CatchingUp
        } else if self.has_tenure() {
            self.serve_until(now)
                .map_or(OwnershipState::WithoutQuorum, |until| OwnershipState::Serving { until })
        } else {
            let until = self.old_lease_ends(leader_term);
            if now < until { OwnershipState::WaitingForOldLease { until } } else { OwnershipState::Taking }
        }
    }

    /// What is known of each VIP that this member holds or is about to let go of.
    pub fn facts(&self) -> impl Iterator<Item = HeldVipFacts> + '_ {
        self.held.iter().map(|(address, held)| held.facts(*address))
    }

    fn apply(&mut self, event: OwnershipEvent, now: Duration) {
        match event {
            OwnershipEvent::Vips(vips) => self.vips = vips,
            OwnershipEvent::Leading { term, elected } => self.start_term(term, elected, now),
            OwnershipEvent::Following => {
                self.leader_term = None;
                self.better_since = None;
                self.request = self.request.take().filter(|request| *request == Request::Stop);
            }
            OwnershipEvent::QuorumAcked { term, sent } => {
                if let Some(leader_term) =
                    self.leader_term.as_mut().filter(|leader_term| leader_term.term == term)
                {
                    leader_term.acked = leader_term.acked.max(Some(sent));
                }
            }
            OwnershipEvent::Applied { term, tenure } => {
                (self.applied, self.tenure) = (term, tenure);
                // Another member took over.
                if tenure.is_some_and(|tenure| tenure.member != self.me) {
                    self.last_offer = None;
                }
            }
            OwnershipEvent::Targets(targets) => {
                self.targets = targets.into_iter().filter(|t| *t != self.me).collect()
            }
            OwnershipEvent::Fault { fault, present } => self.fault(fault, present),
            OwnershipEvent::Move { to } if self.can_move(to).is_ok() && to != Some(self.me) => {
                self.request.get_or_insert(Request::Move { to });
            }
            OwnershipEvent::Stop => self.request = Some(Request::Stop),
            OwnershipEvent::TransferBegan => self.transfer_began(),
            OwnershipEvent::Kernel { address, present, open } => self.reported(address, present, open, now),
            OwnershipEvent::Foreign { address, term } => self.foreign(address, term, now),
            OwnershipEvent::LinkRestored => self.link_restored(now),
            OwnershipEvent::Move { .. } | OwnershipEvent::Tick => {}
        }
    }

    fn start_term(&mut self, term: u64, elected: Elected, now: Duration) {
        match &mut self.leader_term {
            Some(leader_term) if leader_term.term == term => {
                // Told both ways, the way that promises less counts.
                if elected != Elected::ByTimeout {
                    leader_term.elected = elected;
                }
            }
            _ => {
                if let Some((to, at)) = self.last_offer.take()
                    && now < at.saturating_add(OFFER_MAX)
                {
                    self.skipped_targets.insert(to, now.saturating_add(SKIP_TIME));
                }
                self.better_since = None;
                let take_timer = RetryTimer::default();
                let (quiesced_since, leaving) = (None, None);
                self.leader_term = Some(LeaderTerm {
                    term,
                    elected,
                    since: now,
                    acked: None,
                    take_timer,
                    quiesced_since,
                    leaving,
                });
            }
        }
    }

    /// Whether this member's tenure in the term in which it leads is agreed and not released.
    fn has_tenure(&self) -> bool {
        let mine =
            |leader_term: &LeaderTerm| self.tenure_of(leader_term).is_some_and(|tenure| !tenure.released);
        self.leader_term.as_ref().is_some_and(mine)
    }

    fn tenure_of(&self, leader_term: &LeaderTerm) -> Option<&Tenure> {
        self.tenure.as_ref().filter(|tenure| tenure.member == self.me && tenure.term == leader_term.term)
    }

    /// Until when VIPs may be served, if they may at all.
    fn serve_until(&self, now: Duration) -> Option<Duration> {
        let leader_term = self.eligible_term()?;
        let until = leader_term.acked?.saturating_add(self.lease.length);
        (now < until).then_some(until)
    }

    /// The term, if nothing but the answer of a quorum is missing to serve in it.
    fn eligible_term(&self) -> Option<&LeaderTerm> {
        let may = |leader_term: &&LeaderTerm| {
            leader_term.leaving.is_none() && !self.is_barred(leader_term.term) && self.has_tenure()
        };
        self.leader_term.as_ref().filter(may)
    }

    fn is_barred(&self, term: u64) -> bool {
        term <= self.barred_term || self.pending_votes.iter().any(|asked| term <= *asked)
    }

    /// From when on nobody else can be serving by the tenure before this term.
    fn old_lease_ends(&self, leader_term: &LeaderTerm) -> Duration {
        let other = self.tenure.filter(|tenure| !tenure.released && tenure.member != self.me);
        other.map_or(leader_term.since, |tenure| {
            leader_term.since.saturating_add(self.lease.wait(tenure.reach, leader_term.elected))
        })
    }

    /// Proposes the tenure once the one before has run out, if there is anything to serve.
    fn take(&mut self, now: Duration, actions: &mut Vec<OwnershipAction>) {
        let Some(leader_term) = &self.leader_term else { return };
        // Before an entry of its own term is applied, a leader may not know of the newest tenure (Raft, §8).
        let knows = self.applied >= leader_term.term && self.tenure_of(leader_term).is_none();
        let wanted =
            !self.vips.is_empty() && !self.is_barred(leader_term.term) && !leader_term.transfers_by_raft();
        if !knows || !wanted || now < self.old_lease_ends(leader_term) {
            return;
        }
        let (term, reach) = (leader_term.term, self.lease.reach());
        if self.leader_term.as_mut().is_some_and(|leader_term| leader_term.take_timer.due(now, RETRY)) {
            actions.push(OwnershipAction::ProposeTake { term, reach });
        }
    }

    /// When something is due that no event announces.
    fn next_wake(&self, now: Duration) -> Option<Duration> {
        let retry = now.saturating_add(RETRY);
        let held = self.held.values().map(|held| held.next_wake(&self.lease, now));
        let leader_term = self.leader_term.as_ref().and_then(|leader_term| {
            let old = self.old_lease_ends(leader_term);
            let taking = self.tenure_of(leader_term).is_none() && !self.vips.is_empty();
            let busy = taking || leader_term.leaving.is_some();
            let step = busy.then(|| if now < old { old } else { retry });
            step.into_iter().chain(leader_term.quiesce_ends()).min()
        });
        let due = held.chain(leader_term).chain(self.preference_due());
        // What is overdue waits for an event.
        due.map(|at| if at > now { at } else { retry }).min()
    }
}

#[cfg(test)]
mod tests;
