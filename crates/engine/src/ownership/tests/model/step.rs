//! What can happen next. Every step may also not happen: a member that is paused, cut off or dead is one whose steps do not
//! come, while time goes on for its kernel.

use stateright::{Model, Property};

use super::super::super::{Elected, OwnershipEvent};
use super::cluster::{Answer, Bug, Cluster, Entry, Id, Notice, Role, TICK, World, member};
use super::node::Node;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    /// Time passes; the clock of one member may miss it.
    Time(Option<Id>),
    /// A heartbeat arrives; its answer may get lost.
    Beat {
        leader: Id,
        voter: Id,
        heard: bool,
    },
    Answer(Answer),
    Stand(Id),
    Vote {
        voter: Id,
        candidate: Id,
    },
    Notice(Notice),
    /// A member's machine hears what its Raft knows.
    Tell(Id),
    /// A member's machine hears what was applied, and nothing else.
    Apply(Id),
    /// A member's machine hears of the last answers, and nothing else.
    Late(Id),
    /// A member's machine runs with what it knows.
    Wake(Id),
    /// A fence that was worked out is armed.
    Arm(Id),
    Restart(Id),
    Move(Id),
    RawTransfer(Id, Id),
    StandAgain(Id),
}

impl Cluster {
    fn pass(&mut self, slow: Option<Id>, world: &World) -> bool {
        if slow.is_some() {
            if self.drift == 0 {
                return false;
            }
            self.drift -= 1;
        }
        for id in (0..3).filter(|id| Some(*id) != slow) {
            let node = self.node(id);
            node.clock += 1;
            let stays = world.bug == Some(Bug::FenceStays);
            node.fence = node.fence.filter(|until| stays || node.clock < *until);
            // An answer that is older than any promise says nothing; it is lost.
            let clock = node.clock;
            self.answers.retain(|answer| answer.leader != id || clock < answer.sent + world.refusal);
        }
        true
    }

    fn restart(&mut self, id: Id, world: &World) -> bool {
        if self.restarts == 0 {
            return false;
        }
        self.restarts -= 1;
        let node = self.node(id);
        (node.role, node.acked, node.refuses, node.remembers) = (Role::Follower, None, 0, 0);
        node.published = None;
        node.quiet = node.clock + world.quarantine;
        node.begin(id, world);
        self.answers.retain(|answer| answer.leader != id);
        true
    }

    fn told(&mut self, id: Id, event: Option<OwnershipEvent>, world: &World) -> bool {
        let node = self.node(id);
        let wanted = match event {
            Some(event) => node.tell(event, world),
            None => node.sync(world),
        };
        self.obey(id, wanted);
        true
    }

    fn take(&mut self, step: Step, world: &World) -> bool {
        match step {
            Step::Time(slow) => self.pass(slow, world),
            Step::Beat { leader, voter, heard } => self.beat(leader, voter, heard, world),
            Step::Answer(answer) => {
                self.answered(answer, world);
                true
            }
            Step::Stand(id) => self.stand(id, Elected::ByTimeout, world),
            Step::Vote { voter, candidate } => self.vote(voter, candidate, world),
            Step::Notice(notice) => self.noticed(notice, world),
            Step::Tell(id) => self.told(id, None, world),
            Step::Late(id) => {
                let Some((term, sent)) = self.nodes[id].published else { return false };
                self.told(id, Some(OwnershipEvent::QuorumAcked { term, sent: TICK * sent }), world)
            }
            Step::Apply(id) => {
                let event = self.nodes[id].applied(world);
                self.told(id, Some(event), world)
            }
            Step::Wake(id) => self.told(id, Some(OwnershipEvent::Tick), world),
            Step::Arm(id) => {
                let node = self.node(id);
                let armed = node.arming.take().map(|left| node.clock + left + world.fence_error);
                node.fence = armed.or(node.fence);
                armed.is_some()
            }
            Step::Restart(id) => self.restart(id, world),
            Step::Move(to) if self.moves > 0 => {
                self.moves -= 1;
                let from = (0..3).find(|id| self.nodes[*id].role.leads().is_some() && *id != to);
                from.is_some_and(|from| {
                    self.told(from, Some(OwnershipEvent::Move { to: Some(member(to)) }), world)
                })
            }
            Step::RawTransfer(from, to) if self.raw_transfers > 0 => {
                self.raw_transfers -= 1;
                self.transfer(from, to)
            }
            Step::StandAgain(id) => self.stand_again(id, world),
            Step::Move(_) | Step::RawTransfer(..) => false,
        }
    }
}

const PAIRS: [(Id, Id); 6] = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];

fn released(node: &Node) -> bool {
    node.log.iter().any(|(_, entry)| *entry == Entry::Release)
}

impl Model for World {
    type State = Cluster;
    type Action = Step;

    fn init_states(&self) -> Vec<Cluster> {
        vec![self.start()]
    }

    fn actions(&self, state: &Cluster, steps: &mut Vec<Step>) {
        steps.push(Step::Time(None));
        for (one, other) in PAIRS {
            steps.push(Step::Vote { voter: one, candidate: other });
            let beat = |heard| Step::Beat { leader: one, voter: other, heard };
            steps.extend([beat(true), beat(false)]);
            if state.raw_transfers > 0 {
                steps.push(Step::RawTransfer(one, other));
            }
        }
        for id in 0..3 {
            steps.push(Step::Stand(id));
            // A machine that leads nothing and holds nothing has no reason to do anything.
            if state.nodes[id].machine.is_busy() {
                steps.push(Step::Wake(id));
                if self.split_news {
                    steps.extend([Step::Apply(id), Step::Late(id)]);
                }
            }
            if state.nodes[id].machine.is_busy() || state.nodes[id].role.leads().is_some() {
                steps.push(Step::Tell(id));
            }
            if state.drift > 0 {
                steps.push(Step::Time(Some(id)));
            }
            if state.restarts > 0 {
                steps.push(Step::Restart(id));
            }
            if state.moves > 0 {
                steps.push(Step::Move(id));
            }
            if self.stands_again && matches!(state.nodes[id].role, Role::Parting(_)) {
                steps.push(Step::StandAgain(id));
            }
            if state.nodes[id].arming.is_some() {
                steps.push(Step::Arm(id));
            }
        }
        steps.extend(state.answers.iter().map(|answer| Step::Answer(*answer)));
        steps.extend(state.notices.iter().map(|notice| Step::Notice(*notice)));
    }

    fn next_state(&self, state: &Cluster, step: Step) -> Option<Cluster> {
        let mut next = state.clone();
        next.take(step, self).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE, |_, state: &Cluster| {
                state.nodes.iter().filter(|node| node.serves()).count() <= 1
            }),
            Property::sometimes(SERVED, |_, state: &Cluster| state.nodes[0].serves()),
            Property::sometimes(MOVED, |_, state: &Cluster| {
                state.nodes[1..].iter().any(|node| node.serves() && released(node))
            }),
            Property::sometimes(TAKEN_BACK, |_, state: &Cluster| {
                state.nodes[0].serves() && released(&state.nodes[0])
            }),
            Property::sometimes(TAKEN_OVER, |_, state: &Cluster| {
                state.nodes[1..].iter().any(|node| node.serves() && !released(node))
            }),
        ]
    }
}

pub(super) const ONE: &str = "at most one member serves the VIP";
pub(super) const SERVED: &str = "the VIP is served";
pub(super) const MOVED: &str = "the VIP is served after a planned move";
pub(super) const TAKEN_BACK: &str = "the VIP is served again by the member that let go of it in vain";
pub(super) const TAKEN_OVER: &str = "the VIP is served by another member after its holder was lost";
