//! What Raft's state says of leaders, the quorum and other members, told as it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use trestle_consensus::{RaftState, Timing};
use trestle_model::{MemberId, MemberName};

use super::{Event, Journal};
use crate::supervise::{Lifetime, Supervisor};
use crate::this_member::ThisMember;
use crate::vips::{elected, why_it_leads};

/// Time between two looks at what is silent.
const LOOK: Duration = Duration::from_millis(200);

/// Starts the task.
pub(crate) fn follow(local: &ThisMember, journal: &Journal, supervisor: &Supervisor) {
    let api = tokio::runtime::Handle::current();
    supervisor.spawn(&api, "events", Lifetime::UntilStop, watch(local.clone(), journal.clone()));
}

async fn watch(local: ThisMember, journal: Journal) {
    let mut role = local.consensus.role();
    let mut seen = Seen::new(silence(&local.consensus.timing()), Instant::now());
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = Instant::now();
        seen.look(&Raft::seen_by(&local), now, |event| journal.emit(&event));
        journal.flush(now);
        tokio::select! {
            changed = role.changed() => if changed.is_err() {
                return;
            },
            _ = ticks.tick() => {}
        }
    }
}

/// How long it takes to call a quorum lost, or a member gone: several elections.
fn silence(timing: &Timing) -> Duration {
    (3 * (timing.election_max + timing.election_min)).max(Duration::from_secs(2))
}

/// What is known of Raft at one moment.
struct Raft {
    /// Whether this member belongs to a cluster and takes part.
    takes_part: bool,
    /// The leader, once a quorum is known to be behind it, with its term.
    leader: Option<(MemberName, u64)>,
    /// When a leader last heard from a quorum; for a follower, the present while it hears one.
    quorum: Option<Instant>,
    /// The term in which this member leads, if it does, and how it came to that, in words.
    leads: Option<(u64, &'static str)>,
    /// The other members, with when the leader, this one, last heard from each.
    others: BTreeMap<MemberId, (MemberName, Option<Instant>)>,
    voters: BTreeSet<MemberId>,
}

impl Raft {
    fn seen_by(local: &ThisMember) -> Self {
        let (status, leadership) = (local.consensus.status(), *local.consensus.leadership().borrow());
        let members = local.consensus.view().borrow().state.members.clone();
        let me = local.id();
        let others = members.values().filter(|member| Some(member.id) != me);
        let leader =
            status.leader.and_then(|id| members.get(&id)).map(|m| (m.spec.name.clone(), status.term));
        let quorum = match leadership.leads {
            Some(leads) => leads.quorum_acked,
            None => leader.is_some().then(Instant::now),
        };
        Self {
            takes_part: !matches!(
                status.state,
                RaftState::Empty | RaftState::Starting | RaftState::Removed | RaftState::Stopped
            ),
            leader,
            quorum,
            leads: leadership.leads.map(|leads| (leads.term, why_it_leads(elected(&leads), leads.term))),
            others: others.map(|m| (m.id, (m.spec.name.clone(), status.heard.get(&m.id).copied()))).collect(),
            voters: status.voters,
        }
    }
}

/// What was seen and told before.
struct Seen {
    /// Silence after which it is told.
    silence: Duration,
    /// When there was a quorum last, or this began.
    quorum: Instant,
    /// Since when there is none, once that was told.
    lost: Option<Instant>,
    /// The term in which this member leads.
    leads: Option<u64>,
    /// When each other member was heard last while this one leads, and whether it was told that it is gone.
    heard: BTreeMap<MemberId, (Instant, bool)>,
    voters: BTreeSet<MemberId>,
}

impl Seen {
    fn new(silence: Duration, now: Instant) -> Self {
        Self {
            silence,
            quorum: now,
            lost: None,
            leads: None,
            heard: BTreeMap::new(),
            voters: BTreeSet::new(),
        }
    }

    fn look(&mut self, raft: &Raft, now: Instant, mut tell: impl FnMut(Event)) {
        if !raft.takes_part {
            *self = Self::new(self.silence, now);
            return;
        }
        self.look_at_leader(raft, now, &mut tell);
        self.look_at_quorum(raft, now, &mut tell);
        if raft.leads.is_some() {
            self.look_at_others(raft, now, &mut tell);
        }
        self.voters.clone_from(&raft.voters);
    }

    fn look_at_leader(&mut self, raft: &Raft, now: Instant, tell: &mut impl FnMut(Event)) {
        let term = raft.leads.map(|(term, _)| term);
        if std::mem::replace(&mut self.leads, term) == term {
            return;
        }
        // Whom another leader has heard is not known here.
        self.heard = raft.others.keys().map(|id| (*id, (now, false))).collect();
        if let Some((term, why)) = raft.leads {
            tell(Event::Leads { term, why });
        }
    }

    fn look_at_quorum(&mut self, raft: &Raft, now: Instant, tell: &mut impl FnMut(Event)) {
        self.quorum = raft.quorum.map_or(self.quorum, |at| at.max(self.quorum));
        let silent = now.saturating_duration_since(self.quorum);
        match (self.lost, &raft.leader) {
            (None, _) if silent >= self.silence => {
                self.lost = Some(self.quorum);
                tell(Event::QuorumLost { silent });
            }
            (Some(since), Some((leader, term))) if silent < self.silence => {
                self.lost = None;
                let (leader, term) = (leader.clone(), *term);
                tell(Event::QuorumBack { after: now.saturating_duration_since(since), leader, term });
            }
            _ => {}
        }
    }

    fn look_at_others(&mut self, raft: &Raft, now: Instant, tell: &mut impl FnMut(Event)) {
        self.heard.retain(|id, _| raft.others.contains_key(id));
        for (id, (name, heard)) in &raft.others {
            let (last, gone) = self.heard.entry(*id).or_insert((now, false));
            let before = *last;
            *last = heard.map_or(before, |heard| heard.max(before));
            let silent = now.saturating_duration_since(*last);
            if !*gone && silent >= self.silence {
                *gone = true;
                tell(Event::MemberGone { member: name.clone(), silent });
            } else if *gone && silent < self.silence {
                // That it was heard later than before says nothing: each reading of that moment differs by microseconds.
                *gone = false;
                let after = now.saturating_duration_since(before);
                tell(Event::MemberBack { member: name.clone(), after });
            }
            let (voted, votes) = (self.voters.contains(id), raft.voters.contains(id));
            if voted != votes && !self.voters.is_empty() {
                tell(Event::Voter { member: name.clone(), votes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SILENCE: Duration = Duration::from_secs(2);

    struct Bench {
        seen: Seen,
        raft: Raft,
        now: Instant,
        told: Vec<String>,
    }

    fn name(text: &str) -> MemberName {
        MemberName::parse(text).unwrap()
    }

    impl Bench {
        /// m1, which leads m1, m2 and m3 in term 5.
        fn new() -> Self {
            let now = Instant::now();
            let others = [(2, "m2"), (3, "m3")].map(|(id, text)| (MemberId(id), (name(text), Some(now))));
            let raft = Raft {
                takes_part: true,
                leader: Some((name("m1"), 5)),
                quorum: Some(now),
                leads: Some((5, "it was elected leader")),
                others: others.into(),
                voters: [1, 2, 3].map(MemberId).into(),
            };
            let mut bench = Self { seen: Seen::new(SILENCE, now), raft, now, told: Vec::new() };
            bench.look(Duration::ZERO);
            assert_eq!(bench.told(), ["leader"]);
            bench
        }

        fn look(&mut self, later: Duration) {
            self.now += later;
            self.seen.look(&self.raft, self.now, |event| self.told.push(event.kind().to_owned()));
        }

        /// The same moments, read anew: each reading differs a little.
        fn read_anew(&mut self) {
            let by = Duration::from_micros(40);
            self.raft.quorum = self.raft.quorum.map(|at| at + by);
            self.raft.others.values_mut().for_each(|(_, heard)| *heard = heard.map(|at| at + by));
        }

        fn told(&mut self) -> Vec<String> {
            std::mem::take(&mut self.told)
        }

        /// These members and nobody else answer for so long.
        fn answered(&mut self, ids: &[u64], time: Duration) {
            for _ in 0..time.as_millis() / 100 {
                let now = self.now + Duration::from_millis(100);
                for id in ids {
                    self.raft.others.get_mut(&MemberId(*id)).unwrap().1 = Some(now);
                }
                if !ids.is_empty() {
                    self.raft.quorum = Some(now);
                }
                self.look(Duration::from_millis(100));
            }
        }
    }

    #[test]
    fn a_member_that_goes_and_comes_back_is_told_once_each() {
        let mut bench = Bench::new();
        bench.answered(&[2, 3], SILENCE);
        assert!(bench.told().is_empty());
        bench.answered(&[2], 3 * SILENCE);
        assert_eq!(bench.told(), ["member-unreachable"]);
        bench.answered(&[2, 3], 3 * SILENCE);
        assert_eq!(bench.told(), ["member-reachable"]);
        // One that is removed while it is gone does not come back.
        bench.answered(&[2], 3 * SILENCE);
        bench.raft.others.remove(&MemberId(3));
        bench.raft.voters.remove(&MemberId(3));
        bench.answered(&[2], SILENCE);
        assert_eq!(bench.told(), ["member-unreachable"]);
    }

    #[test]
    fn a_quorum_that_is_lost_and_comes_back_is_told_once_each() {
        let mut bench = Bench::new();
        bench.answered(&[], 3 * SILENCE);
        let mut told = bench.told();
        told.sort();
        assert_eq!(told, ["member-unreachable", "member-unreachable", "quorum-lost"]);
        bench.read_anew();
        bench.look(Duration::from_millis(200));
        assert_eq!(bench.told(), [""; 0], "nobody has answered");
        // It steps down; an election that is short of votes is nothing new.
        (bench.raft.leads, bench.raft.leader, bench.raft.quorum) = (None, None, None);
        bench.look(SILENCE);
        assert!(bench.told().is_empty());
        (bench.raft.leader, bench.raft.quorum) = (Some((name("m2"), 7)), Some(bench.now + SILENCE));
        bench.look(SILENCE);
        assert_eq!(bench.told(), ["quorum-back"]);
    }

    #[test]
    fn an_election_is_no_lost_quorum() {
        let mut bench = Bench::new();
        (bench.raft.leads, bench.raft.leader, bench.raft.quorum) = (None, None, None);
        bench.look(SILENCE / 2);
        (bench.raft.leads, bench.raft.leader) =
            (Some((6, "leadership was handed to it")), Some((name("m1"), 6)));
        bench.raft.quorum = Some(bench.now);
        bench.look(SILENCE / 2);
        assert_eq!(bench.told(), ["leader"]);
    }

    #[test]
    fn a_learner_that_is_promoted_is_told_by_the_leader() {
        let mut bench = Bench::new();
        bench.raft.voters.remove(&MemberId(3));
        bench.answered(&[2, 3], Duration::from_millis(100));
        assert_eq!(bench.told(), ["member-demoted"]);
        bench.raft.voters.insert(MemberId(3));
        bench.answered(&[2, 3], Duration::from_millis(100));
        assert_eq!(bench.told(), ["member-promoted"]);
    }
}
