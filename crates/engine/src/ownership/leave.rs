//! Handing over on purpose: take no new connections for a moment, release, record the release, then transfer leadership. The
//! order matters, because a transfer makes voters disregard the lease.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use trestle_model::MemberId;

use super::action::{Cause, OwnershipAction};
use super::fitness::Fault;
use super::{LeaderTerm, Ownership, RETRY, RetryTimer};

/// Time after which a transfer that has not come about is tried with another member. openraft waits for an election after
/// a lost transfer, which takes two of the longest election time-outs.
const TRANSFER_RETRY: Duration = Duration::from_secs(1);

/// How long a holder that is about to release takes no new connections, so that the last ones are answered: many times as
/// long as a short request takes, and short against the second after which a client tries again (RFC 6298, section 2.1).
const QUIESCE_TIME: Duration = Duration::from_millis(100);
/// After this time it takes new connections again by itself. By then it has released, or changed its mind.
const QUIESCE_MAX: Duration = Duration::from_secs(1);

/// What the operator or the process wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Request {
    Move { to: Option<MemberId> },
    Stop,
}

/// A term that this member ends on purpose. It cannot go back: once a release may be on record, nothing is served in the
/// term. When no member takes over, Raft makes this one stand again, and it serves in its next term.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    pub(super) cause: Cause,
    pub(super) to: Option<MemberId>,
    pub(super) release: RetryTimer,
    pub(super) transfer: RetryTimer,
    pub(super) tried: BTreeSet<MemberId>,
}

impl Leaving {
    fn new(cause: Cause, to: Option<MemberId>) -> Self {
        Self {
            cause,
            to,
            release: RetryTimer::default(),
            transfer: RetryTimer::default(),
            tried: BTreeSet::new(),
        }
    }
}

impl Cause {
    /// Whether connections are served well until the release, so that ending them in good order is worth the time.
    fn leaves_time(self) -> bool {
        match self {
            Cause::Operator | Cause::Preference | Cause::Stopping => true,
            Cause::Unfit(fault) => {
                matches!(fault, Fault::IsolatedFromBackends | Fault::Check | Fault::Draining)
            }
            Cause::RaftTransfer => false,
        }
    }
}

impl LeaderTerm {
    /// When the last connections have had their time.
    pub(super) fn quiesce_ends(&self) -> Option<Duration> {
        self.quiesced_since.filter(|_| self.leaving.is_none()).map(|since| since.saturating_add(QUIESCE_TIME))
    }

    pub(super) fn transfers_by_raft(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.cause == Cause::RaftTransfer)
    }
}

impl Ownership {
    /// Takes note of a fault that appears or goes.
    pub(super) fn fault(&mut self, fault: Fault, present: bool) {
        if present {
            self.faults.insert(fault);
        } else {
            self.faults.remove(&fault);
        }
    }

    pub(super) fn transfer_began(&mut self) {
        if let Some(leader_term) = &mut self.leader_term {
            leader_term.leaving.get_or_insert_with(|| Leaving::new(Cause::RaftTransfer, None));
        }
    }

    /// Begins to hand over if there is a reason and a member to take over; a process that stops does so in any case. While
    /// there is time, it first only takes no new connections; a reason that goes meanwhile does not count.
    pub(super) fn consider_leaving(&mut self, now: Duration, actions: &mut Vec<OwnershipAction>) {
        self.skipped_targets.retain(|_, until| now < *until);
        let better = self.better().filter(|better| !self.is_skipped(*better, now));
        match (&self.leader_term, better) {
            (Some(_), Some(_)) => self.better_since = self.better_since.or(Some(now)),
            _ => self.better_since = None,
        }
        if self.leader_term.as_ref().is_none_or(|leader_term| leader_term.leaving.is_some()) {
            return;
        }
        let leaving = self.reason_to_leave(better, now);
        // Without a successor no member would answer the clients that come later.
        let waits = |cause: Cause| cause.leaves_time() && self.serves(now) && !self.targets.is_empty();
        let waits = leaving.as_ref().is_some_and(|leaving| waits(leaving.cause));
        let Some(leader_term) = &mut self.leader_term else { return };
        let Some(leaving) = leaving else {
            leader_term.quiesced_since = None;
            return;
        };
        if waits && leader_term.quiesced_since.is_none() {
            leader_term.quiesced_since = Some(now);
            actions.push(OwnershipAction::Quiesce { until: now.saturating_add(QUIESCE_MAX) });
        }
        if waits && leader_term.quiesce_ends().is_some_and(|end| now < end) {
            return;
        }
        leader_term.leaving = Some(leaving);
        self.request = self.request.take().filter(|request| *request == Request::Stop);
    }

    fn reason_to_leave(&mut self, better: Option<MemberId>, now: Duration) -> Option<Leaving> {
        // A move that has become impossible is not made up for later.
        if matches!(self.request, Some(Request::Move { to }) if self.can_move(to).is_err()) {
            self.request = None;
        }
        let preferred = better.filter(|_| self.preference_due().is_some_and(|due| now >= due));
        let served = !self.vips.is_empty();
        let fault = self.faults.iter().find(|fault| served || **fault == Fault::Draining);
        // For a fault, a member that has just not taken over is not asked again: each attempt interrupts what is served.
        let fault = fault.filter(|_| self.targets.iter().any(|target| !self.is_skipped(*target, now)));
        match (&self.request, fault) {
            (Some(Request::Stop), _) => Some(Leaving::new(Cause::Stopping, None)),
            _ if self.targets.is_empty() => None,
            (Some(Request::Move { to }), _) => Some(Leaving::new(Cause::Operator, *to)),
            (None, Some(fault)) => Some(Leaving::new(Cause::Unfit(*fault), None)),
            (None, None) => preferred.map(|to| Leaving::new(Cause::Preference, Some(to))),
        }
    }

    fn is_skipped(&self, member: MemberId, now: Duration) -> bool {
        self.skipped_targets.get(&member).is_some_and(|until| now < *until)
    }

    /// Whether anything may be reached through this member.
    fn serves(&self, now: Duration) -> bool {
        self.held.values().any(|held| !held.releasing && now < held.until)
    }

    /// The next step of leaving, once the one before has come true.
    pub(super) fn leave(&mut self, now: Duration, actions: &mut Vec<OwnershipAction>) {
        if !self.all_shut(now) {
            return;
        }
        let targets = self.by_preference();
        let served = !self.vips.is_empty();
        let Some(leader_term) =
            self.leader_term.as_ref().filter(|leader_term| !leader_term.transfers_by_raft())
        else {
            return;
        };
        let (term, tenure) = (leader_term.term, self.tenure_of(leader_term).copied());
        let Some(leaving) = self.leader_term.as_mut().and_then(|leader_term| leader_term.leaving.as_mut())
        else {
            return;
        };
        match tenure {
            Some(tenure) if !tenure.released => {
                if leaving.release.due(now, RETRY) {
                    actions.push(OwnershipAction::ProposeRelease { term, cause: leaving.cause });
                }
            }
            // Without a tenure of its own this member has nothing to release, but its successor could not tell; so the
            // tenure is taken first, unless there is nothing to serve.
            None if served => {}
            _ => {
                if leaving.transfer.due(now, TRANSFER_RETRY)
                    && let Some(to) = leaving.next_target(&targets)
                {
                    self.last_offer = Some((to, now));
                    actions.push(OwnershipAction::TransferLeadership { to });
                }
            }
        }
    }

    /// The first VIP, by address, that prefers some member decides for all, because all move together.
    fn preference(&self) -> Option<(IpAddr, &[MemberId])> {
        self.vips.iter().find(|(_, vip)| !vip.preferred.is_empty()).map(|(a, vip)| (*a, &*vip.preferred))
    }

    fn by_preference(&self) -> Vec<MemberId> {
        let mut targets = self.targets.clone();
        if let Some((_, preferred)) = self.preference() {
            targets.sort_by_key(|target| rank(preferred, *target));
        }
        targets.sort_by_key(|target| self.skipped_targets.contains_key(target));
        targets
    }

    /// The best target, if it is preferred to this member.
    fn better(&self) -> Option<MemberId> {
        let (_, preferred) = self.preference()?;
        let best = self.by_preference().first().copied()?;
        (rank(preferred, best) < rank(preferred, self.me)).then_some(best)
    }

    /// When the VIPs go to a better member, if one is there.
    pub(super) fn preference_due(&self) -> Option<Duration> {
        let (address, _) = self.preference()?;
        let delay = self.vips.get(&address)?.preference_delay;
        self.better_since.map(|since| since.saturating_add(delay))
    }
}

/// Place in the order of preference; those that are not named come last.
fn rank(preferred: &[MemberId], member: MemberId) -> usize {
    preferred.iter().position(|p| *p == member).unwrap_or(preferred.len())
}

impl Leaving {
    /// The member that was asked for, then the others, best first; then all of them again.
    fn next_target(&mut self, targets: &[MemberId]) -> Option<MemberId> {
        if targets.iter().all(|target| self.tried.contains(target)) {
            self.tried.clear();
        }
        let asked = self.to.filter(|to| targets.contains(to));
        let to = asked.into_iter().chain(targets.iter().copied()).find(|to| !self.tried.contains(to))?;
        self.tried.insert(to);
        Some(to)
    }
}
