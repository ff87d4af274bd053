//! Whatever members are added, removed, switched off and on again, and whoever goes on answering: no voter of the newest
//! committed membership takes itself for removed. Raft is taken for granted here: what is committed is one sequence, of which
//! each member has the beginning; who believes what of whom is the product's own code.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::membership_state::{KnownMembers, MembershipReport, MembershipState, RemovalVerdict, verdict};

/// A committed entry; its index is its place, counted from 1.
#[derive(Debug, Clone)]
enum Entry {
    Found,
    /// The id is the index.
    Allocate,
    Voters(BTreeSet<u64>),
    Forget(u64),
}

/// A process with the data of one member.
#[derive(Debug, Clone)]
struct Place {
    id: u64,
    up: bool,
    /// How much of the log it has, and has applied.
    has: u64,
    applied: u64,
    removed: bool,
    /// It has heard that it was removed.
    told: bool,
}

/// What a member makes of an answer that speaks of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    /// It asks the leader.
    Asks,
    /// The fault of before: whoever says it is believed, of whomever it is said.
    AnyWord,
}

#[derive(Debug)]
struct World {
    belief: Belief,
    log: Vec<Entry>,
    places: Vec<Place>,
    leader: Option<usize>,
}

impl World {
    fn new(belief: Belief) -> Self {
        let place = |id| Place { id, up: true, has: 7, applied: 7, removed: false, told: false };
        let voters = |ids: &[u64]| Entry::Voters(ids.iter().copied().collect());
        let log = vec![
            Entry::Found,
            Entry::Allocate,
            voters(&[1, 2]),
            Entry::Allocate,
            voters(&[1, 2, 4]),
            Entry::Allocate,
            voters(&[1, 2, 4, 6]),
        ];
        Self { belief, log, places: [1, 2, 4, 6].map(place).into(), leader: Some(0) }
    }

    fn end(&self) -> u64 {
        self.log.len() as u64
    }

    /// Who votes by the first `has` entries.
    fn voters(&self, has: u64) -> BTreeSet<u64> {
        let before = self.log.iter().take(has as usize).rev();
        let found =
            before.filter_map(|entry| if let Entry::Voters(set) = entry { Some(set.clone()) } else { None });
        found.into_iter().next().unwrap_or_default()
    }

    fn members(&self, applied: u64) -> BTreeSet<u64> {
        let mut members = BTreeSet::new();
        for (index, entry) in (1..).zip(&self.log).take(applied as usize) {
            match entry {
                Entry::Found => drop(members.insert(1)),
                Entry::Allocate => drop(members.insert(index)),
                Entry::Forget(id) => drop(members.remove(id)),
                Entry::Voters(_) => {}
            }
        }
        members
    }

    fn known(&self, at: usize) -> KnownMembers {
        let place = &self.places[at];
        KnownMembers {
            voters: self.voters(place.has),
            learners: BTreeSet::new(),
            members: self.members(place.applied),
            founded: place.applied > 0,
            applied: place.applied,
        }
    }

    fn at(&self, id: u64) -> Option<usize> {
        self.places.iter().position(|place| place.id == id)
    }

    /// The voters of a set that run and take part.
    fn answering(&self, voters: &BTreeSet<u64>) -> Vec<usize> {
        let takes_part = |at: &usize| self.places[*at].up && !self.places[*at].removed;
        voters.iter().filter_map(|id| self.at(*id)).filter(takes_part).collect()
    }

    /// The leader, if a quorum of the newest voters confirms it.
    fn confirmed(&self) -> Option<usize> {
        let voters = self.voters(self.end());
        let leader = self.leader.filter(|at| self.places[*at].up && !self.places[*at].removed)?;
        (self.answering(&voters).len() > voters.len() / 2).then_some(leader)
    }

    /// Commits an entry on the leader and on as many others of `voters` as make a quorum, beginning at a chosen one.
    fn commit(&mut self, entry: Entry, voters: &BTreeSet<u64>, first: usize) {
        let Some(leader) = self.confirmed() else { return };
        let mut have = self.answering(voters);
        let needed = voters.len() / 2 + 1;
        if have.len() < needed || !have.contains(&leader) {
            return;
        }
        self.log.push(entry);
        have.retain(|at| *at != leader);
        let turn = first % have.len().max(1);
        have.rotate_left(turn);
        have.truncate(needed - 1);
        have.push(leader);
        let end = self.end();
        for at in have {
            let place = &mut self.places[at];
            (place.has, place.applied) = (end, end);
        }
    }

    /// Stands for election: asks every voter that it knows, and hears what each of them says.
    fn stand(&mut self, at: usize) {
        let place = self.places[at].clone();
        let voters = self.voters(place.has);
        if !place.up || place.removed || !voters.contains(&place.id) {
            return;
        }
        let mut votes = 0;
        for id in &voters {
            let Some(other) = self.at(*id).filter(|other| self.places[*other].up) else { continue };
            let asked = &self.places[other];
            let (himself, caller) =
                (asked.removed, self.known(other).standing(place.id) == MembershipState::Removed);
            match self.belief {
                Belief::AnyWord if himself || caller => self.places[at].removed = true,
                // Nothing about this member.
                _ if himself => {}
                _ if caller => self.places[at].told = asked.applied > place.applied,
                _ if asked.has <= place.has => votes += 1,
                _ => {}
            }
        }
        if votes > voters.len() / 2 && !self.places[at].removed && !self.places[at].told {
            self.leader = Some(at);
        }
    }

    /// Asks everybody that it knows whether it was removed, as after a report by others, a removal notice from anybody, or a long silence.
    fn ask(&mut self, at: usize) {
        let me = self.places[at].clone();
        if !me.up || me.removed {
            return;
        }
        let known = self.known(at);
        let mut others: BTreeSet<u64> = known.voters.union(&known.members).copied().collect();
        // Those who are asked name the leader.
        others.extend(self.leader.map(|leader| self.places[leader].id));
        let leads = self.confirmed();
        let account = |other: usize| {
            let place = &self.places[other];
            let standing = self.known(other).standing(me.id);
            (place.up && !place.removed && other != at).then_some(MembershipReport {
                standing,
                applied: (1, place.applied),
                leads: leads == Some(other),
            })
        };
        let accounts: Vec<MembershipReport> =
            others.iter().filter_map(|id| self.at(*id)).filter_map(account).collect();
        match verdict((1, me.applied), accounts) {
            RemovalVerdict::Removed => self.places[at].removed = true,
            RemovalVerdict::Member => self.places[at].told = false,
            RemovalVerdict::Open => {}
        }
    }

    /// Adds a machine, new or of a removed member, as another member; it votes at once.
    fn add(&mut self, at: Option<usize>, first: usize) {
        if let Some(at) = at {
            self.ask(at);
            if !self.places[at].up || !self.places[at].removed {
                return;
            }
        }
        let before = self.end();
        let voters = self.voters(before);
        self.commit(Entry::Allocate, &voters, first);
        if self.end() == before {
            return;
        }
        let place = Place { id: self.end(), up: true, has: 0, applied: 0, removed: false, told: false };
        let place_at = match at {
            // Its old data is moved aside.
            Some(at) => at,
            None => self.places.len(),
        };
        let mut more = voters.clone();
        more.insert(place.id);
        self.places.truncate(self.places.len().max(place_at));
        if at.is_some() {
            self.places[place_at] = place
        } else {
            self.places.push(place)
        }
        // It has caught up before it votes.
        let end = self.end();
        (self.places[place_at].has, self.places[place_at].applied) = (end, end);
        self.commit(Entry::Voters(more), &voters, first);
    }

    fn step(&mut self, (action, which, more): (u8, u8, u8)) {
        let at = usize::from(which) % self.places.len();
        let first = usize::from(more);
        match action % 12 {
            0 | 1 => self.places[at].up = false,
            2..=4 => {
                self.places[at].up = true;
                self.places[at].told = false;
            }
            5 | 6 => self.stand(at),
            7 => self.ask(at),
            // The leader brings a member up to date that has a part in Raft.
            8 => {
                let voters = self.voters(self.end());
                let place = &self.places[at];
                if self.confirmed().is_some() && place.up && !place.removed && voters.contains(&place.id) {
                    let end = self.end();
                    (self.places[at].has, self.places[at].applied) = (end, end);
                }
            }
            // Removals in two steps, between which the leader may die.
            9 => {
                let id = self.places[at].id;
                let mut voters = self.voters(self.end());
                if self.leader != Some(at) && voters.len() > 1 && voters.remove(&id) {
                    self.commit(Entry::Voters(voters.clone()), &voters, first);
                }
            }
            10 => {
                let id = self.places[at].id;
                let voters = self.voters(self.end());
                if !voters.contains(&id) && self.members(self.end()).contains(&id) {
                    self.commit(Entry::Forget(id), &voters, first);
                }
            }
            _ => {
                let at = (more % 2 == 0 && self.places[at].removed).then_some(at);
                if at.is_some() || self.places.len() < 7 {
                    self.add(at, first);
                }
            }
        }
        // What each finds in its own log.
        for at in 0..self.places.len() {
            let place = &self.places[at];
            if place.up && self.known(at).says_removed(place.id) {
                self.places[at].removed = true;
            }
        }
    }

    /// A voter of the newest membership that takes itself for removed.
    fn wronged(&self) -> Option<&Place> {
        let voters = self.voters(self.end());
        self.places.iter().find(|place| place.removed && voters.contains(&place.id))
    }
}

fn check(belief: Belief, cases: u32) -> Result<(), String> {
    let steps = vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..120);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&steps, |steps| {
        let mut world = World::new(belief);
        for step in steps {
            world.step(step);
            prop_assert!(world.wronged().is_none(), "{:?} in {world:?}", world.wronged());
        }
        Ok(())
    });
    ran.map_err(|error| error.to_string())
}

#[test]
fn no_voter_takes_itself_for_removed() {
    check(Belief::Asks, 4000).unwrap();
}

#[test]
fn the_model_finds_the_fault_of_believing_any_word() {
    let found = check(Belief::AnyWord, 4000).unwrap_err();
    assert!(found.contains("removed: true"), "{found}");
}

#[test]
fn the_model_removes_and_adds_again() {
    let mut world = World::new(Belief::Asks);
    let mut seen: BTreeMap<&str, bool> = BTreeMap::new();
    // m6 is removed while m4 is off, asks, is removed, and comes back under another id.
    for step in [(0, 2, 0), (9, 3, 0), (10, 3, 0), (7, 3, 0)] {
        world.step(step);
    }
    seen.insert("removed", world.places[3].removed);
    world.step((11, 3, 0));
    seen.insert("another id", world.places[3].id == 10 && !world.places[3].removed);
    seen.insert("a voter", world.voters(world.end()).contains(&10));
    // m4 comes back, knows nothing, and asks those that it knows; nobody is harmed.
    world.step((2, 2, 0));
    world.step((7, 2, 0));
    seen.insert("m4 goes on", !world.places[2].removed);
    assert!(seen.values().all(|seen| *seen), "{seen:?} {world:?}");
}
