//! One member of the model: its Raft, its machine, and its kernel.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use trestle_model::OnQuorumLoss;

use super::super::super::{Elected, Ownership, OwnershipAction, OwnershipEvent, ServedVip, Tenure};
use super::cluster::{Bug, Entry, Id, Role, TICK, Vote, World, member, vip};

/// Age of an answer, in ticks, that is beyond the lease and the refusal of votes in all worlds.
const FORGOTTEN: u32 = 5;

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// This machine's clock in ticks.
    pub(super) clock: u32,
    pub(super) vote: Vote,
    pub(super) role: Role,
    /// Until when it refuses votes.
    pub(super) refuses: u32,
    /// With [`World::voters_remember`]: the same, but not forgotten.
    pub(super) remembers: u32,
    /// Until when it takes no part after a restart.
    pub(super) quiet: u32,
    pub(super) log: Vec<(Vote, Entry)>,
    pub(super) committed: usize,
    /// As a leader: when the last heartbeat was sent that a quorum answered.
    pub(super) acked: Option<u32>,
    /// The same as the rest of the process may still read it, with its term, after the leader was deposed.
    pub(super) published: Option<(u64, u32)>,
    /// As in [`World`].
    pub(super) split_news: bool,
    pub(super) machine: Ownership,
    /// The kernel: when the fence shuts, if it is open.
    pub(super) fence: Option<u32>,
    /// With [`Bug::ArmedLate`]: ticks for which the fence is about to be opened.
    pub(super) arming: Option<u32>,
}

impl Node {
    pub(super) fn now(&self) -> Duration {
        TICK * self.clock
    }

    /// Whether clients that reach this machine are served, whatever its daemon thinks.
    pub(super) fn serves(&self) -> bool {
        self.fence.is_some()
    }

    /// A new process.
    pub(super) fn begin(&mut self, id: Id, world: &World) {
        self.machine = Ownership::new(member(id), world.lease());
        self.arming = None;
        let on_quorum_loss = if world.hold { OnQuorumLoss::Hold } else { OnQuorumLoss::Release };
        let vips = [(vip(), Arc::new(ServedVip { on_quorum_loss, ..ServedVip::on("eth0", 24) }))].into();
        let targets = (0..3).filter(|other| *other != id).map(member).collect();
        // Neither is answered by anything: it leads nothing.
        let _ = self.machine.handle(OwnershipEvent::Vips(vips), self.now());
        let _ = self.machine.handle(OwnershipEvent::Targets(targets), self.now());
    }

    /// What Raft knows, told to the machine.
    pub(super) fn sync(&mut self, world: &World) -> Vec<OwnershipAction> {
        let mut wanted = match self.role.leads() {
            Some(elected) => {
                let unseen = world.bug == Some(Bug::TransferUnseen);
                let elected = if unseen { Elected::ByTimeout } else { elected };
                self.tell(OwnershipEvent::Leading { term: self.vote.0, elected }, world)
            }
            None => self.tell(OwnershipEvent::Following, world),
        };
        wanted.extend(self.tell(self.applied(world), world));
        let fresh = (world.bug == Some(Bug::ServeWhileLeader)).then_some(self.clock);
        if let (Some(_), Some(acked)) = (self.role.leads(), fresh.or(self.acked)) {
            let event = OwnershipEvent::QuorumAcked { term: self.vote.0, sent: TICK * acked };
            wanted.extend(self.tell(event, world));
        }
        wanted
    }

    pub(super) fn applied(&self, world: &World) -> OwnershipEvent {
        let term = self.log[..self.committed].last().map_or(0, |((term, _), _)| *term);
        OwnershipEvent::Applied { term, tenure: self.tenure(world) }
    }

    fn tenure(&self, world: &World) -> Option<Tenure> {
        let mut tenure: Option<Tenure> = None;
        for ((term, leader), entry) in &self.log[..self.committed] {
            let (member, term, reach) = (member(*leader), *term, world.lease().reach());
            match entry {
                Entry::Blank => {}
                Entry::Take => tenure = Some(Tenure { member, term, reach, released: false }),
                Entry::Release => tenure = tenure.map(|tenure| Tenure { released: true, ..tenure }),
            }
        }
        tenure
    }

    /// Tells the machine and does to the kernel what it wants; what it wants of Raft is returned.
    pub(super) fn tell(&mut self, event: OwnershipEvent, world: &World) -> Vec<OwnershipAction> {
        let now = self.now();
        let mut wanted = Vec::new();
        for action in self.machine.handle(event, now) {
            let report = |open| OwnershipEvent::Kernel { address: vip(), present: open, open };
            let next = match action {
                OwnershipAction::Claim { until, .. } | OwnershipAction::Repair { until, .. } => {
                    self.arm(until, world);
                    report(true)
                }
                OwnershipAction::Renew { until, .. } => {
                    if self.fence.is_some() {
                        self.arm(until, world);
                    }
                    report(true)
                }
                OwnershipAction::Release { .. } => {
                    (self.fence, self.arming) = (None, None);
                    report(false)
                }
                OwnershipAction::Announce { .. } | OwnershipAction::WakeAt(_) => continue,
                other => {
                    wanted.push(other);
                    continue;
                }
            };
            wanted.extend(self.tell(next, world));
        }
        wanted
    }

    fn arm(&mut self, until: Duration, world: &World) {
        let until = (until.as_millis() / TICK.as_millis()) as u32;
        if world.bug == Some(Bug::ArmedLate) {
            self.arming = Some(until - self.clock);
        } else {
            self.fence = Some(until + world.fence_error);
        }
    }
}

/// Moments count from now, so that states that differ only in their past are one.
impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let left = |until: u32| until.saturating_sub(self.clock);
        (self.vote, self.role, &self.log).hash(state);
        (left(self.refuses), left(self.remembers), left(self.quiet)).hash(state);
        // What is committed is told to the machine, and matters to one that leads, or that has not heard that it does not.
        let own = self.log[..self.committed].last().is_some_and(|(vote, _)| *vote == self.vote);
        let matters = (self.split_news && self.machine.is_busy()) || (self.role.leads().is_some() && own);
        matters.then_some(self.committed).hash(state);
        // An older answer keeps no promise up, neither to serve nor to refuse votes.
        self.acked.map(|acked| self.clock - acked).filter(|age| *age < FORGOTTEN).hash(state);
        let published = self.published.filter(|_| self.split_news && self.machine.is_busy());
        let published = published.map(|(term, sent)| (term, self.clock - sent));
        published.filter(|(_, age)| *age < FORGOTTEN).hash(state);
        (self.fence.map(left), self.arming).hash(state);
        self.machine.search_key(self.now()).hash(state);
    }
}
