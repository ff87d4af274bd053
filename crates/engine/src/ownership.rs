//! Which VIPs this member serves, and until when.
//!
//! One [`Ownership`] stands for one member and all VIPs of the cluster. It serves a VIP only while this member leads, its
//! tenure is agreed, and the last heartbeat that a quorum answered was sent less than the lease ago. README.md in the
//! folder of this module has the reasons and the arithmetic; the tests beside it include an exhaustive model.

mod action;
mod announce;
mod compare;
mod event;
mod fitness;
mod held;
mod lease;
mod leave;
mod standing;
mod vip;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use trestle_model::{MemberId, Tenure};

pub use action::{Action, Cause};
pub use announce::announcement;
pub use compare::{BackOff, FaultKey, FitnessReport, OwnFaults};
pub use event::Event;
pub use fitness::{Fault, OwnCheck};
use held::Held;
pub use lease::{DEGRADED_FENCE_ERROR, Elected, FENCE_ERROR, Lease};
use leave::{Leaving, Wish};
pub use standing::{Facts, MoveRefusal, Standing};
pub use vip::Vip;

/// How often something that has not come true is wanted again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a member to which leadership went in vain is left alone: what kept it from taking over lasts longer than the
/// interruption that each attempt costs.
const PASSED_OVER: Duration = Duration::from_secs(30);
/// Who leads again within this time after it offered leadership has done so in vain; many times as long as it takes to
/// stand again.
const OFFER_MAX: Duration = Duration::from_secs(5);

/// When something was wanted last.
#[derive(Debug, Clone, Copy, Default)]
struct Pace(Option<Duration>);

impl Pace {
    /// Whether it is time to want it (again); if so, `now` is the last time.
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
struct Reign {
    term: u64,
    elected: Elected,
    /// When this machine was told; not before the election.
    since: Duration,
    /// When the last heartbeat that a quorum answered was sent.
    acked: Option<Duration>,
    take: Pace,
    /// Since when no new connections are taken, because it is about to leave.
    quiet: Option<Duration>,
    leaving: Option<Leaving>,
}

/// One member's part in serving the VIPs. Durations are moments on one monotonic clock of this machine that does not jump;
/// what belongs to another clock must not get here.
#[derive(Debug, Clone)]
pub struct Ownership {
    me: MemberId,
    lease: Lease,
    scrubbed: bool,
    scrub: Pace,
    vips: BTreeMap<IpAddr, Arc<Vip>>,
    held: BTreeMap<IpAddr, Held>,
    reign: Option<Reign>,
    /// Nothing is served in this term or an earlier one.
    yielded: u64,
    /// Terms of candidates that are about to get this member's vote, or not.
    asked: Vec<u64>,
    /// Term of the last entry applied, and the tenure then.
    applied: u64,
    tenure: Option<Tenure>,
    targets: Vec<MemberId>,
    /// To whom leadership was last to go, and when.
    offered: Option<(MemberId, Duration)>,
    /// Who did not take over, and until when they are asked last, and never for a fault or a preference.
    passed_over: BTreeMap<MemberId, Duration>,
    faults: BTreeSet<Fault>,
    wish: Option<Wish>,
    /// Since when a better member has been there.
    better_since: Option<Duration>,
}

impl Ownership {
    /// A member that has just started: it knows of nothing, and begins by removing what an earlier run may have left.
    pub fn new(me: MemberId, lease: Lease) -> Self {
        Self {
            me,
            lease,
            scrubbed: false,
            scrub: Pace::default(),
            vips: BTreeMap::new(),
            held: BTreeMap::new(),
            reign: None,
            yielded: 0,
            asked: Vec::new(),
            applied: 0,
            tenure: None,
            targets: Vec::new(),
            offered: None,
            passed_over: BTreeMap::new(),
            faults: BTreeSet::new(),
            wish: None,
            better_since: None,
        }
    }

    /// Uses another lease from now on, as when the kernel turns out to have no nftables. To be called while nothing is
    /// held: what was claimed before keeps its deadline, but not the fence error that it was reckoned with.
    pub fn set_lease(&mut self, lease: Lease) {
        self.lease = lease;
    }

    /// Takes note of an event and says what to do at `now`. What an event leaves to be done in time is wanted by whichever
    /// event comes next; the last action says when one must come at the latest.
    ///
    /// `now` must be read after the event was received: the later it is, the less is served.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        self.absorb(event, now);
        let mut actions = Vec::new();
        if !self.scrubbed {
            if self.scrub.due(now, RETRY) {
                actions.push(Action::Scrub);
            }
            actions.push(Action::WakeAt(now.saturating_add(RETRY)));
            return actions;
        }
        self.consider_leaving(now, &mut actions);
        let until = self.window(now);
        self.shed(until, now, &mut actions);
        self.serve(until, now, &mut actions);
        self.take(now, &mut actions);
        self.leave(now, &mut actions);
        if let Some(at) = self.next_wake(now) {
            actions.push(Action::WakeAt(at));
        }
        actions
    }

    /// Whether this member may give its vote to a candidate for `term` now. To be asked before each call for a vote goes to
    /// Raft, and obeyed; after a yes, nothing is served in any term up to `term` until [`Ownership::voted`] is told.
    ///
    /// Raft refuses votes while a leader's own lease runs. But a leader that a stale candidate's higher term has deposed
    /// remembers no lease, while the fence that it armed may still be open.
    pub fn may_vote(&mut self, term: u64, now: Duration) -> bool {
        let may = self.scrubbed && self.shut(now);
        if may {
            self.asked.push(term);
        }
        may
    }

    /// Says what Raft made of a call that [`Ownership::may_vote`] let through: a vote that was given ends for good this
    /// member's right to serve in any term up to that one, even while it still believes to lead. When it is not known
    /// whether it was given, it was.
    pub fn voted(&mut self, term: u64, granted: bool) {
        if let Some(place) = self.asked.iter().position(|asked| *asked == term) {
            self.asked.swap_remove(place);
        }
        if granted {
            self.yielded = self.yielded.max(term);
        }
    }

    /// Whether [`Event::Move`] to this target can be followed.
    ///
    /// # Errors
    /// When this member does not lead, or the target, or every target, cannot take over.
    pub fn can_move(&self, to: Option<MemberId>) -> Result<(), MoveRefusal> {
        match to {
            _ if self.reign.is_none() => Err(MoveRefusal::NotLeading),
            Some(to) if to != self.me && !self.targets.contains(&to) => Err(MoveRefusal::Unfit(to)),
            None if self.targets.is_empty() => Err(MoveRefusal::NoTarget),
            _ => Ok(()),
        }
    }

    /// How far this member is with serving.
    pub fn standing(&self, now: Duration) -> Standing {
        if !self.scrubbed {
            return Standing::Scrubbing;
        }
        let idle = self.vips.is_empty() && self.held.is_empty();
        let Some(reign) = &self.reign else {
            return if idle { Standing::Idle } else { Standing::Following };
        };
        if let Some(leaving) = &reign.leaving {
            Standing::Leaving { cause: leaving.cause }
        } else if idle {
            Standing::Idle
        } else if self.gave_way(reign.term) {
            Standing::Yielded
        } else if self.applied < reign.term {
            Standing::CatchingUp
        } else if self.tenured() {
            self.window(now).map_or(Standing::WithoutQuorum, |until| Standing::Serving { until })
        } else {
            let until = self.old_lease_ends(reign);
            if now < until { Standing::WaitingForOldLease { until } } else { Standing::Taking }
        }
    }

    /// What is known of each VIP that this member holds or is about to let go of.
    pub fn facts(&self) -> impl Iterator<Item = Facts> + '_ {
        self.held.iter().map(|(address, held)| held.facts(*address))
    }

    fn absorb(&mut self, event: Event, now: Duration) {
        match event {
            Event::Scrubbed => self.scrubbed = true,
            Event::Vips(vips) => self.vips = vips,
            Event::Leading { term, elected } => self.lead(term, elected, now),
            Event::Following => {
                self.reign = None;
                self.better_since = None;
                self.wish = self.wish.take().filter(|wish| *wish == Wish::Stop);
            }
            Event::QuorumAcked { term, sent } => {
                if let Some(reign) = self.reign.as_mut().filter(|reign| reign.term == term) {
                    reign.acked = reign.acked.max(Some(sent));
                }
            }
            Event::Applied { term, tenure } => {
                (self.applied, self.tenure) = (term, tenure);
                // Somebody took over, and it is theirs to hand back.
                if tenure.is_some_and(|tenure| tenure.member != self.me) {
                    self.offered = None;
                }
            }
            Event::Targets(targets) => self.targets = targets.into_iter().filter(|t| *t != self.me).collect(),
            Event::Fault { fault, present } => self.fault(fault, present, now),
            Event::Move { to } if self.can_move(to).is_ok() && to != Some(self.me) => {
                self.wish.get_or_insert(Wish::Move { to });
            }
            Event::Stop => self.wish = Some(Wish::Stop),
            Event::TransferBegan => self.transfer_began(),
            Event::Kernel { address, present, open } => self.reported(address, present, open, now),
            Event::Foreign { address, term } => self.foreign(address, term, now),
            Event::Move { .. } | Event::Tick => {}
        }
    }

    fn lead(&mut self, term: u64, elected: Elected, now: Duration) {
        match &mut self.reign {
            Some(reign) if reign.term == term => {
                // Told both ways: the one that promises less holds.
                if elected != Elected::ByTimeout {
                    reign.elected = elected;
                }
            }
            _ => {
                if let Some((to, at)) = self.offered.take()
                    && now < at.saturating_add(OFFER_MAX)
                {
                    self.passed_over.insert(to, now.saturating_add(PASSED_OVER));
                }
                self.better_since = None;
                let take = Pace::default();
                let (quiet, leaving) = (None, None);
                self.reign = Some(Reign { term, elected, since: now, acked: None, take, quiet, leaving });
            }
        }
    }

    /// Whether this member's tenure in the term in which it leads is agreed and not released.
    fn tenured(&self) -> bool {
        let mine = |reign: &Reign| self.tenure_of(reign).is_some_and(|tenure| !tenure.released);
        self.reign.as_ref().is_some_and(mine)
    }

    fn tenure_of(&self, reign: &Reign) -> Option<&Tenure> {
        self.tenure.as_ref().filter(|tenure| tenure.member == self.me && tenure.term == reign.term)
    }

    /// Until when VIPs may be served, if they may at all.
    fn window(&self, now: Duration) -> Option<Duration> {
        let reign = self.ruling()?;
        let until = reign.acked?.saturating_add(self.lease.length);
        (now < until).then_some(until)
    }

    /// The reign, if all that it lacks to serve is a quorum's answer.
    fn ruling(&self) -> Option<&Reign> {
        let may = |reign: &&Reign| reign.leaving.is_none() && !self.gave_way(reign.term) && self.tenured();
        self.reign.as_ref().filter(may)
    }

    fn gave_way(&self, term: u64) -> bool {
        term <= self.yielded || self.asked.iter().any(|asked| term <= *asked)
    }

    /// From when on nobody else can be serving by the tenure before this reign.
    fn old_lease_ends(&self, reign: &Reign) -> Duration {
        let other = self.tenure.filter(|tenure| !tenure.released && tenure.member != self.me);
        other.map_or(reign.since, |tenure| {
            reign.since.saturating_add(self.lease.wait(tenure.reach, reign.elected))
        })
    }

    /// Wants the tenure once the one before has run out, if there is anything to serve.
    fn take(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(reign) = &self.reign else { return };
        // Before an entry of its own term is applied, a leader may not know of the newest tenure (Raft, §8).
        let knows = self.applied >= reign.term && self.tenure_of(reign).is_none();
        let wanted = !self.vips.is_empty() && !self.gave_way(reign.term) && !reign.transfers_by_raft();
        if !knows || !wanted || now < self.old_lease_ends(reign) {
            return;
        }
        let (term, reach) = (reign.term, self.lease.reach());
        if self.reign.as_mut().is_some_and(|reign| reign.take.due(now, RETRY)) {
            actions.push(Action::ProposeTake { term, reach });
        }
    }

    /// When something falls due that no event announces.
    fn next_wake(&self, now: Duration) -> Option<Duration> {
        let retry = now.saturating_add(RETRY);
        let held = self.held.values().map(|held| held.next_wake(&self.lease, now));
        let reign = self.reign.as_ref().and_then(|reign| {
            let old = self.old_lease_ends(reign);
            let taking = self.tenure_of(reign).is_none() && !self.vips.is_empty();
            let busy = taking || reign.leaving.is_some();
            let step = busy.then(|| if now < old { old } else { retry });
            step.into_iter().chain(reign.quiet_ends()).min()
        });
        let due = held.chain(reign).chain(self.preference_due());
        // What is overdue waits for something that comes as an event.
        due.map(|at| if at > now { at } else { retry }).min()
    }
}

#[cfg(test)]
mod tests;
