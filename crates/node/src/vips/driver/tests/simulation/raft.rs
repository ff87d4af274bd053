//! As much of Raft as openraft and crates/consensus have and ownership depends on.

use std::time::Duration;

use trestle_consensus::{LeaderTerm, Leadership};
use trestle_engine::ownership::{Elected, OwnershipEvent};
use trestle_model::{Command, MemberId, Tenure};

use super::member::member_id;
use super::world::{Happening, Id, MEMBERS, TROUBLE, World, WorldBug, ms};
use crate::vips::command::VipCommand;
use crate::vips::driver::tests::fakes::Asked;
use crate::vips::raft_events;
use trestle_consensus::VoteGuard;

const HEARTBEAT: Duration = ms(50);
/// `election_max`: how long a voter refuses others after it heard a leader.
const REFUSAL: Duration = ms(300);

/// Order of openraft's votes: by term, then by member.
pub(super) type Vote = (u64, Id);

#[derive(Debug, Clone)]
pub(super) enum Record {
    Blank,
    Take(Tenure),
    Release { member: MemberId, term: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Role {
    #[default]
    Follower,
    /// Has these votes, by bits.
    Candidate(Elected, u8),
    Leader(Elected),
    /// A leader that has begun a transfer, and when.
    Parting(Elected, Duration),
}

impl Role {
    fn leads(self) -> Option<Elected> {
        match self {
            Role::Leader(elected) | Role::Parting(elected, _) => Some(elected),
            Role::Follower | Role::Candidate(..) => None,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Append {
        vote: Vote,
        sent: Duration,
        log: Vec<(Vote, Record)>,
        committed: usize,
    },
    Appended {
        vote: Vote,
        sent: Duration,
        length: usize,
    },
    /// Whether the receiver would vote for somebody with this log.
    CallForPreVote {
        last: Option<Vote>,
        length: usize,
    },
    WouldGrant,
    CallForVote {
        vote: Vote,
        last: Option<Vote>,
        length: usize,
        transfer: bool,
    },
    Granted(Vote),
    Higher(Vote),
    /// A leader wishes that somebody stands who has its whole log.
    Stand {
        vote: Vote,
        length: usize,
    },
}

/// Moments are of the member's own clock.
#[derive(Debug, Default)]
pub(super) struct Raft {
    // On disk.
    vote: Vote,
    log: Vec<(Vote, Record)>,
    // In memory.
    pub(super) role: Role,
    committed: usize,
    /// When it last heard a leader.
    heard: Option<Duration>,
    /// When it begins to take part.
    free_at: Duration,
    stands_at: Duration,
    beats_at: Duration,
    /// As a leader: when the last heartbeat left that each has answered, and what each has of the log.
    acked: [Option<Duration>; MEMBERS],
    matched: [usize; MEMBERS],
}

impl Raft {
    pub(super) fn restart(&mut self, now: Duration, quarantine: Duration) {
        let (vote, log) = (self.vote, std::mem::take(&mut self.log));
        let free_at = now + quarantine;
        *self = Self { vote, log, free_at, stands_at: free_at + REFUSAL, ..Self::default() };
    }

    fn leads(&mut self, elected: Elected) {
        (self.role, self.acked, self.matched) = (Role::Leader(elected), [None; MEMBERS], [0; MEMBERS]);
        self.log.push((self.vote, Record::Blank));
        self.beats_at = Duration::ZERO;
    }

    /// When the last heartbeat left that a quorum has answered: one other and the leader itself.
    fn quorum_acked(&self) -> Option<Duration> {
        self.acked.iter().flatten().max().copied()
    }

    /// Whether it promised somebody not to help elect another.
    fn is_bound(&self, now: Duration) -> bool {
        let lately = |at: Option<Duration>| at.is_some_and(|at| now < at + REFUSAL);
        lately(self.heard) || (self.role.leads().is_some() && lately(self.quorum_acked()))
    }

    fn tenure(&self) -> Option<Tenure> {
        let mut tenure: Option<Tenure> = None;
        for (_, record) in &self.log[..self.committed] {
            match record {
                Record::Blank => {}
                Record::Take(taken) => tenure = Some(*taken),
                Record::Release { member, term } => {
                    if let Some(held) =
                        tenure.as_mut().filter(|held| (held.member, held.term) == (*member, *term))
                    {
                        held.released = true;
                    }
                }
            }
        }
        tenure
    }

    fn leadership(&self, instant: impl Fn(Duration) -> std::time::Instant) -> Leadership {
        let leads = self.role.leads().map(|elected| LeaderTerm {
            term: self.vote.0,
            by_transfer: elected == Elected::ByTransfer,
            alone: false,
            transferring: matches!(self.role, Role::Parting(..)),
            quorum_acked: self.quorum_acked().map(instant),
        });
        Leadership { leads }
    }
}

impl World {
    fn others(id: Id) -> impl Iterator<Item = Id> {
        (0..MEMBERS).filter(move |other| *other != id)
    }

    fn next_stand(&mut self, id: Id) {
        let wait = self.draws.time(150, 300);
        let member = &mut self.members[id];
        member.raft.stands_at = member.local(self.now) + REFUSAL + wait;
    }

    pub(super) fn raft_tick(&mut self, id: Id) {
        let now = self.members[id].local(self.now);
        let raft = &self.members[id].raft;
        if now < raft.free_at {
            return;
        }
        match raft.role {
            Role::Leader(_) if now >= raft.beats_at => self.beat(id),
            Role::Leader(_) => {}
            Role::Parting(_, since) if now >= since + REFUSAL => self.stand_again(id),
            Role::Parting(..) => {}
            Role::Follower | Role::Candidate(..) => {
                if now >= raft.stands_at && !raft.is_bound(now) {
                    self.ask_whether_to_stand(id);
                }
            }
        }
    }

    fn beat(&mut self, id: Id) {
        let now = self.members[id].local(self.now);
        let raft = &mut self.members[id].raft;
        raft.beats_at = now + HEARTBEAT;
        let (vote, log, committed) = (raft.vote, raft.log.clone(), raft.committed);
        for other in Self::others(id) {
            self.send(id, other, Message::Append { vote, sent: now, log: log.clone(), committed });
        }
    }

    /// Asks for pre-votes. Some calls for votes come from members that won theirs long ago.
    fn ask_whether_to_stand(&mut self, id: Id) {
        if self.now < TROUBLE.end && self.draws.chance(50) {
            self.stand(id, Elected::ByTimeout);
            return;
        }
        self.next_stand(id);
        let raft = &self.members[id].raft;
        let (last, length) = (raft.log.last().map(|entry| entry.0), raft.log.len());
        for other in Self::others(id) {
            self.send(id, other, Message::CallForPreVote { last, length });
        }
    }

    fn stand(&mut self, id: Id, elected: Elected) {
        self.next_stand(id);
        let raft = &mut self.members[id].raft;
        raft.vote = (raft.vote.0 + 1, id);
        raft.role = Role::Candidate(elected, 1 << id);
        let (vote, last, length) = (raft.vote, raft.log.last().map(|entry| entry.0), raft.log.len());
        for other in Self::others(id) {
            let transfer = elected == Elected::ByTransfer;
            self.send(id, other, Message::CallForVote { vote, last, length, transfer });
        }
        self.publish(id);
    }

    /// A leader whose successor does not come steps down by a vote for it, and stands in the term after that.
    fn stand_again(&mut self, id: Id) {
        self.members[id].set_clock(self.now);
        let term = self.members[id].raft.vote.0 + 1;
        if let Some(process) = &self.members[id].process {
            if !process.guard.may_vote(term) {
                return;
            }
            process.guard.voted(term, true);
        }
        let raft = &mut self.members[id].raft;
        (raft.vote, raft.role) = ((term, id), Role::Follower);
        self.stand(id, Elected::ByTransfer);
    }

    pub(super) fn receive(&mut self, from: Id, to: Id, message: Message) {
        let now = self.members[to].local(self.now);
        if now < self.members[to].raft.free_at {
            return;
        }
        match message {
            Message::Append { vote, sent, log, committed } => {
                self.append(from, to, vote, sent, log, committed)
            }
            Message::Appended { vote, sent, length } => {
                let sent = if self.bug == Some(WorldBug::LeaseFromAnswer) { now } else { sent };
                self.appended(from, to, vote, sent, length);
            }
            Message::CallForVote { vote, last, length, transfer } => {
                self.call_for_vote(from, to, vote, (last, length), transfer);
            }
            Message::CallForPreVote { last, length } => {
                let raft = &self.members[to].raft;
                let behind = (last, length) < (raft.log.last().map(|entry| entry.0), raft.log.len());
                if !behind && !raft.is_bound(now) {
                    self.send(to, from, Message::WouldGrant);
                }
            }
            Message::WouldGrant => {
                let raft = &self.members[to].raft;
                if raft.role.leads().is_none() && !raft.is_bound(now) {
                    self.stand(to, Elected::ByTimeout);
                }
            }
            Message::Granted(vote) => self.granted(from, to, vote),
            Message::Higher(vote) => {
                if vote > self.members[to].raft.vote {
                    self.follow(to, vote);
                }
            }
            Message::Stand { vote, length } => {
                let raft = &self.members[to].raft;
                if raft.vote == vote && raft.role == Role::Follower && raft.log.len() >= length {
                    self.stand(to, Elected::ByTransfer);
                }
            }
        }
        self.publish(to);
    }

    /// Believes somebody else's vote.
    fn follow(&mut self, id: Id, vote: Vote) {
        let raft = &mut self.members[id].raft;
        (raft.vote, raft.role) = (vote, Role::Follower);
        self.next_stand(id);
    }

    fn append(
        &mut self,
        from: Id,
        to: Id,
        vote: Vote,
        sent: Duration,
        log: Vec<(Vote, Record)>,
        committed: usize,
    ) {
        let now = self.members[to].local(self.now);
        let known = self.members[to].raft.vote;
        if known > vote {
            self.send(to, from, Message::Higher(known));
            return;
        }
        self.follow(to, vote);
        let raft = &mut self.members[to].raft;
        raft.heard = Some(now);
        let length = log.len();
        // An older call of the same leader takes nothing back.
        let same = raft.log.last().is_some_and(|(last, _)| *last == vote);
        if !same || length > raft.log.len() {
            raft.log = log;
        }
        raft.committed = raft.committed.max(committed);
        self.send(to, from, Message::Appended { vote, sent, length });
    }

    fn appended(&mut self, from: Id, to: Id, vote: Vote, sent: Duration, length: usize) {
        let raft = &mut self.members[to].raft;
        if raft.role.leads().is_none() || raft.vote != vote {
            return;
        }
        raft.acked[from] = raft.acked[from].max(Some(sent));
        raft.matched[from] = raft.matched[from].max(length);
        let agreed = raft.matched.iter().max().copied().unwrap_or(0);
        if agreed > raft.committed && raft.log[agreed - 1].0 == vote {
            raft.committed = agreed;
            // The others hear of it at once.
            raft.beats_at = Duration::ZERO;
        }
    }

    fn call_for_vote(&mut self, from: Id, to: Id, vote: Vote, has: (Option<Vote>, usize), transfer: bool) {
        let member = &self.members[to];
        member.set_clock(self.now);
        let now = member.local(self.now);
        let Some(process) = &member.process else { return };
        let asks = self.bug != Some(WorldBug::VotesUnasked);
        if asks && !process.guard.may_vote(vote.0) {
            return;
        }
        let raft = &member.raft;
        let behind = has < (raft.log.last().map(|entry| entry.0), raft.log.len());
        let grants = vote > raft.vote && !behind && (transfer || !raft.is_bound(now));
        if asks {
            process.guard.voted(vote.0, grants);
        }
        let known = raft.vote;
        if grants {
            self.follow(to, vote);
            self.send(to, from, Message::Granted(vote));
        } else if known > vote {
            self.send(to, from, Message::Higher(known));
        }
    }

    fn granted(&mut self, from: Id, to: Id, vote: Vote) {
        let raft = &mut self.members[to].raft;
        let Role::Candidate(elected, votes) = raft.role else { return };
        if raft.vote != vote {
            return;
        }
        let votes = votes | 1 << from;
        raft.role = Role::Candidate(elected, votes);
        if votes.count_ones() as usize > MEMBERS / 2 {
            raft.leads(elected);
            self.beat(to);
        }
    }

    /// Does what a driver asked for.
    pub(super) fn asked(&mut self, id: Id, asked: Asked) {
        let now = self.members[id].local(self.now);
        let raft = &mut self.members[id].raft;
        match asked {
            Asked::Propose { command, term, pending } => {
                let record = match *command {
                    Command::TakeVips { tenure, .. } => Record::Take(tenure),
                    Command::ReleaseVips { member, term, .. } => Record::Release { member, term },
                    _ => unreachable!("no other record is proposed"),
                };
                if matches!(raft.role, Role::Leader(_)) && raft.vote.0 == term {
                    if matches!(record, Record::Release { .. }) {
                        self.outcome.hand_overs += 1;
                    }
                    raft.log.push((raft.vote, record));
                    self.beat(id);
                }
                let time = self.draws.time(5, 100);
                self.after(time, Happening::Answered(pending));
            }
            Asked::Transfer(to) => {
                let Role::Leader(elected) = raft.role else { return };
                raft.role = Role::Parting(elected, now);
                let (vote, length) = (raft.vote, raft.log.len());
                self.send(id, to.0 as Id - 1, Message::Stand { vote, length });
            }
        }
        self.publish(id);
    }

    /// Tells an owner what its Raft knows, where that is news.
    fn publish(&mut self, id: Id) {
        let member = &mut self.members[id];
        let leadership = member.raft.leadership(|at| member.instant(at));
        let Some(process) = &mut member.process else { return };
        let mut news = Vec::new();
        if process.leadership.replace(leadership) != Some(leadership) {
            news = raft_events::events(&process.shared, leadership);
        }
        let committed = member.raft.committed;
        if process.applied.replace(committed) != Some(committed) {
            let term = member.raft.log[..committed].last().map_or(0, |((term, _), _)| *term);
            let me = member_id(id);
            let seen = |tenure: &Tenure| self.bug != Some(WorldBug::OldLeaseUnseen) || tenure.member == me;
            news.push(OwnershipEvent::Applied { term, tenure: member.raft.tenure().filter(seen) });
        }
        for event in news {
            self.tell(id, VipCommand::Event(event));
        }
    }

    /// Tells each leader who could take over.
    pub(super) fn tell_targets(&mut self) {
        for id in 0..MEMBERS {
            if self.members[id].raft.role.leads().is_none() || !self.runs(id) {
                continue;
            }
            let reached = |other: &Id| self.runs(*other) && !self.cut[id][*other] && !self.cut[*other][id];
            let targets = Self::others(id).filter(reached).map(member_id).collect();
            self.tell(id, VipCommand::Event(OwnershipEvent::Targets(targets)));
        }
    }
}
