//! Letting go on purpose: release, record it, then hand leadership over. In this order, because a transfer makes voters
//! disregard the lease.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use trestle_model::MemberId;

use super::action::{Action, Cause};
use super::fitness::Fault;
use super::{Ownership, Pace, RETRY, Reign};

/// Time after which a transfer that has not come about is tried with another member. openraft waits for an election after
/// a lost transfer, which takes two of the longest election time-outs.
const TRANSFER_RETRY: Duration = Duration::from_secs(1);

/// What the operator or the process wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wish {
    Move { to: Option<MemberId> },
    Stop,
}

/// A reign that ends of its own will. There is no way back: once a release may be on record, nothing is served in this
/// term.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    pub(super) cause: Cause,
    pub(super) to: Option<MemberId>,
    pub(super) release: Pace,
    pub(super) transfer: Pace,
    pub(super) tried: BTreeSet<MemberId>,
}

impl Leaving {
    fn new(cause: Cause, to: Option<MemberId>) -> Self {
        Self { cause, to, release: Pace::default(), transfer: Pace::default(), tried: BTreeSet::new() }
    }
}

impl Reign {
    pub(super) fn transfers_by_raft(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.cause == Cause::RaftTransfer)
    }
}

impl Ownership {
    /// Takes note of a fault that appears or goes.
    pub(super) fn fault(&mut self, fault: Fault, present: bool, now: Duration) {
        if present {
            self.faults.insert(fault);
        } else if self.faults.remove(&fault)
            && let Fault::Interface(address) = fault
        {
            self.interface_back(address, now);
        }
    }

    pub(super) fn transfer_began(&mut self) {
        if let Some(reign) = &mut self.reign {
            reign.leaving.get_or_insert_with(|| Leaving::new(Cause::RaftTransfer, None));
        }
    }

    /// Begins to leave if there is a reason and somebody to take over; a process that stops leaves in any case.
    pub(super) fn consider_leaving(&mut self, now: Duration) {
        let better = self.better();
        match (&self.reign, better) {
            (Some(_), Some(_)) => self.better_since = self.better_since.or(Some(now)),
            _ => self.better_since = None,
        }
        if self.reign.as_ref().is_none_or(|reign| reign.leaving.is_some()) {
            return;
        }
        let preferred = better.filter(|_| self.preference_due().is_some_and(|due| now >= due));
        let served = !self.vips.is_empty();
        let fault = self.faults.iter().find(|fault| served || **fault == Fault::Draining);
        let leaving = match (&self.wish, fault) {
            (Some(Wish::Stop), _) => Leaving::new(Cause::Stopping, None),
            _ if self.targets.is_empty() => return,
            (Some(Wish::Move { to }), _) => Leaving::new(Cause::Operator, *to),
            (None, Some(fault)) => Leaving::new(Cause::Unfit(*fault), None),
            (None, None) if preferred.is_some() => Leaving::new(Cause::Preference, preferred),
            (None, None) => return,
        };
        self.wish = self.wish.take().filter(|wish| *wish == Wish::Stop);
        if let Some(reign) = &mut self.reign {
            reign.leaving = Some(leaving);
        }
    }

    /// The next step of leaving, once the one before has come true.
    pub(super) fn leave(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !self.shut(now) {
            return;
        }
        let targets = self.by_preference();
        let served = !self.vips.is_empty();
        let Some(reign) = self.reign.as_ref().filter(|reign| !reign.transfers_by_raft()) else { return };
        let (term, tenure) = (reign.term, self.tenure_of(reign).copied());
        let Some(leaving) = self.reign.as_mut().and_then(|reign| reign.leaving.as_mut()) else { return };
        match tenure {
            Some(tenure) if !tenure.released => {
                if leaving.release.due(now, RETRY) {
                    actions.push(Action::ProposeRelease { term, cause: leaving.cause });
                }
            }
            // Without a tenure of its own this member has nothing to release, but its successor could not tell; so the
            // tenure is taken first, unless there is nothing to serve.
            None if served => {}
            _ => {
                if leaving.transfer.due(now, TRANSFER_RETRY)
                    && let Some(to) = leaving.next_target(&targets)
                {
                    actions.push(Action::TransferLeadership { to });
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
