//! As much of Raft as openraft has and ownership depends on.

use super::super::super::{Elected, OwnershipAction};
use super::cluster::{Answer, Bug, Cluster, Entry, Id, Notice, Role, World};
use super::node::Node;

impl Cluster {
    fn takes_part(&self, id: Id) -> bool {
        self.nodes[id].clock >= self.nodes[id].quiet
    }

    /// A heartbeat with the whole log reaches a voter at once: a later arrival would only make the voter refuse votes for
    /// longer. The answer is under way, or a higher vote deposes the leader.
    pub(super) fn beat(&mut self, leader: Id, voter: Id, heard: bool, world: &World) -> bool {
        let (to, from) = (&self.nodes[voter], &self.nodes[leader]);
        if !matches!(from.role, Role::Leader(_)) || !self.takes_part(voter) {
            return false;
        }
        if to.vote > from.vote {
            let higher = to.vote;
            let from = self.node(leader);
            (from.vote, from.role, from.acked, from.refuses) = (higher, Role::Follower, None, 0);
            return true;
        }
        let (vote, sent, log, committed) = (from.vote, from.clock, from.log.clone(), from.committed);
        let length = log.len();
        let to = self.node(voter);
        (to.vote, to.role, to.acked, to.refuses) = (vote, Role::Follower, None, to.clock + world.refusal);
        (to.log, to.committed) = (log, to.committed.max(committed));
        if world.voters_remember {
            to.remembers = to.refuses;
        }
        let answer = Answer { leader, vote, sent, length };
        // The newest answer says all that older ones could.
        self.answers.retain(|answer| answer.leader != leader);
        if !heard {
        } else if world.slow_answers {
            self.answers.push(answer);
            self.answers.sort_by_key(|answer| answer.leader);
        } else {
            self.answered(answer, world);
        }
        true
    }

    pub(super) fn answered(&mut self, answer: Answer, world: &World) {
        self.answers.retain(|other| *other != answer);
        let node = self.node(answer.leader);
        if node.role.leads().is_none() || node.vote != answer.vote {
            return;
        }
        let late = world.bug == Some(Bug::LeaseFromAnswer);
        // One answer and the leader itself are a quorum of three.
        node.acked = node.acked.max(Some(if late { node.clock } else { answer.sent }));
        node.published = node.acked.map(|acked| (node.vote.0, acked));
        if node.log[answer.length - 1].0 == node.vote {
            node.committed = node.committed.max(answer.length);
        }
    }

    /// Stands for election, as soon as its own promise has run out.
    pub(super) fn stand(&mut self, id: Id, elected: Elected, world: &World) -> bool {
        let free = elected == Elected::ByTransfer || !self.nodes[id].promised();
        let part = self.takes_part(id);
        let node = self.node(id);
        if !part || !free || node.role.leads().is_some() || node.vote.0 >= world.terms {
            return false;
        }
        (node.vote, node.role, node.refuses) = ((node.vote.0 + 1, id), Role::Candidate(elected), 0);
        true
    }

    /// A call for a vote arrives and is answered.
    pub(super) fn vote(&mut self, voter: Id, candidate: Id, world: &World) -> bool {
        let standing = &self.nodes[candidate];
        let Role::Candidate(elected) = standing.role else { return false };
        let (vote, log) = (standing.vote, &standing.log);
        let node = &self.nodes[voter];
        let promised = node.promised()
            || (node.role.leads().is_some()
                && node.acked.is_some_and(|acked| node.clock < acked + world.refusal));
        let behind = (log.last().map(|e| e.0), log.len()) < (node.log.last().map(|e| e.0), node.log.len());
        let bound = promised && elected == Elected::ByTimeout;
        if !self.takes_part(voter) || node.vote >= vote || bound || behind {
            return false;
        }
        let node = self.node(voter);
        if world.bug != Some(Bug::VoteWhileOpen) {
            let now = node.now();
            if !node.machine.may_vote(vote.0, now) {
                return false;
            }
            node.machine.voted(vote.0, world.bug != Some(Bug::VoteForgotten));
        }
        (node.vote, node.role, node.acked, node.refuses) = (vote, Role::Follower, None, 0);
        let winner = self.node(candidate);
        (winner.role, winner.acked) = (Role::Leader(elected), None);
        winner.log.push((vote, Entry::Blank));
        true
    }

    /// Begins a transfer: the leader falls silent and, in openraft, tells every voter.
    pub(super) fn transfer(&mut self, leader: Id, successor: Id) -> bool {
        let node = self.node(leader);
        let Role::Leader(elected) = node.role else { return false };
        node.role = Role::Parting(elected);
        let (vote, length) = (node.vote, node.log.len());
        let others = (0..3).filter(|to| *to != leader);
        self.notices.extend(others.map(|to| Notice { vote, to, successor, length }));
        self.notices.sort_by_key(|notice| (notice.vote, notice.to));
        true
    }

    /// A leader that waits in vain for its successor steps down and stands in a later term. Crates/consensus skips one, in
    /// which the leader has voted for the successor to step down.
    pub(super) fn stand_again(&mut self, leader: Id, world: &World) -> bool {
        let (vote, now) = (self.nodes[leader].vote, self.nodes[leader].now());
        let node = self.node(leader);
        if !matches!(node.role, Role::Parting(_)) || !node.machine.may_vote(vote.0, now) {
            return false;
        }
        node.machine.voted(vote.0, true);
        (node.role, node.acked) = (Role::Follower, None);
        self.stand(leader, Elected::ByTransfer, world)
    }

    /// Word of a transfer arrives: the promise is void, and the successor stands.
    pub(super) fn noticed(&mut self, notice: Notice, world: &World) -> bool {
        self.notices.retain(|other| *other != notice);
        let part = self.takes_part(notice.to);
        let node = self.node(notice.to);
        if part && node.vote == notice.vote && node.role == Role::Follower {
            node.refuses = 0;
            if notice.to == notice.successor && node.log.len() >= notice.length {
                self.stand(notice.to, Elected::ByTransfer, world);
            }
        }
        true
    }

    /// What a machine wants of Raft.
    pub(super) fn obey(&mut self, id: Id, wanted: Vec<OwnershipAction>) {
        for action in wanted {
            let node = self.node(id);
            let proposes = matches!(node.role, Role::Leader(_));
            match action {
                OwnershipAction::ProposeTake { term, .. } if proposes && node.vote.0 == term => {
                    node.propose(Entry::Take);
                }
                OwnershipAction::ProposeRelease { term, .. } if proposes && node.vote.0 == term => {
                    node.propose(Entry::Release);
                }
                OwnershipAction::TransferLeadership { to } => {
                    self.transfer(id, to.0 as usize - 1);
                }
                _ => {}
            }
        }
    }
}

impl Node {
    /// Whether it lately heard a leader that it must not help to replace.
    fn promised(&self) -> bool {
        self.clock < self.refuses.max(self.remembers)
    }

    /// Appends an entry. A repetition of one that is under way would change nothing and only make more states.
    fn propose(&mut self, entry: Entry) {
        if self.log.last() != Some(&(self.vote, entry)) {
            self.log.push((self.vote, entry));
        }
    }
}
