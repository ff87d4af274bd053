//! Picking: which backend takes the next connection.

mod hash;
mod maglev;
mod slow_start;
mod sticky;
mod stride;
mod tier;

use std::net::SocketAddr;
use std::sync::Arc;

use trestle_model::{AdminState, Algorithm, AllDown, Backend, OnPrimaryUp, PoolSpec};

use crate::health::Verdict;
use crate::outage::Elsewhere;
use maglev::{Maglev, Shares};
use tier::{Tier, TierMember};

pub use slow_start::SlowStartRamp;
pub use sticky::Stickiness;

/// A backend that a schedule is built of.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its configuration.
    pub backend: &'a Backend,
    /// What is thought of it.
    pub verdict: Verdict,
    /// Whether it can be dialled: false while nothing is known of the address that its name stands for.
    pub resolved: bool,
    /// How much of its weight counts.
    pub ramp: SlowStartRamp,
}

impl<'a> Candidate<'a> {
    /// A backend that has an address and its full weight.
    pub fn new(backend: &'a Backend, verdict: Verdict) -> Self {
        Self { backend, verdict, resolved: true, ramp: SlowStartRamp::FULL }
    }

    /// Whether clients may be led there if it is not down.
    fn is_wanted(&self) -> bool {
        self.backend.admin_state == AdminState::Enabled && self.backend.spec.weight > 0 && self.resolved
    }
}

/// What a backend is to a connection that looks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can take the connection.
    Open,
    /// It has all the connections that it may have.
    Full,
    /// The connection has failed there already.
    Tried,
}

/// What was picked for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The backend at this position.
    At(usize),
    /// None now: what is left of the tier whose turn it is has all the connections that it may have.
    Full,
    /// None: every usable backend was tried.
    Nothing,
}

/// A pool's backends prepared for picking; built once for each change of backends, verdicts or warmth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    algorithm: Algorithm,
    /// Best first: healthy primaries, unknown primaries, healthy backups, unknown backups; or, in a pool that is down
    /// and fails open, all primaries and all backups. Empty tiers are left out, and backups where the pool leads nobody there
    /// while a primary is usable.
    tiers: Vec<Tier>,
}

impl Schedule {
    /// Prepares the backends of a pool, given in the order of their names.
    ///
    /// Usable is what is enabled, has a weight and an address, and is not unhealthy. Healthy backends come before those
    /// of which nothing is known; backups come only when no other backend is usable, or when those that are have failed the
    /// client. Not even then in a pool that [closes](OnPrimaryUp::Close) the connections of its backups for a primary: who was
    /// led there would stay.
    ///
    /// The pool is down when fewer backends than its `minimum_healthy` are usable, backups counted: so one backend more
    /// that goes down never brings a pool up, as it can where the last primary no longer hides the backups (HAProxy's
    /// `nbsrv`). A pool that is down has no backend, or, when it fails open, all that would be usable if they were not
    /// unhealthy, whatever their verdicts: the few that are left would only be the next to go down.
    ///
    /// A table for [`Algorithm::SourceHash`] takes about 2 ms to fill, so one of `before`, the schedule that this one
    /// replaces, is taken over where its backends and weights are the same.
    pub fn build<'a>(
        spec: &PoolSpec,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
        before: Option<&Self>,
    ) -> Self {
        let mut usable: [Vec<TierMember<'a>>; 4] = Default::default();
        let mut all: [Vec<TierMember<'a>>; 2] = Default::default();
        for (position, candidate) in (0u32..).zip(candidates) {
            if !candidate.is_wanted() {
                continue;
            }
            let Candidate { backend, verdict, ramp, .. } = candidate;
            let settings = &backend.spec;
            let member = TierMember { position, backend, ramp };
            let [primaries, backups] = &mut all;
            if settings.backup {
                backups.push(member)
            } else {
                primaries.push(member)
            }
            let [healthy, unknown, healthy_backups, unknown_backups] = &mut usable;
            match (settings.backup, verdict) {
                (false, Verdict::Healthy) => healthy.push(member),
                (false, Verdict::Unknown) => unknown.push(member),
                (true, Verdict::Healthy) => healthy_backups.push(member),
                (true, Verdict::Unknown) => unknown_backups.push(member),
                (_, Verdict::Unhealthy) => {}
            }
        }
        let down = usable.iter().map(Vec::len).sum::<usize>() < spec.minimum_healthy as usize;
        let tiers = match (down, spec.all_down) {
            (false, _) if spec.on_primary_up == OnPrimaryUp::Close && has_primary(&usable) => &usable[..2],
            (false, _) => &usable[..],
            (true, AllDown::FailOpen) => &all[..],
            (true, AllDown::Refuse) => &[],
        };
        let hashed = matches!(spec.algorithm, Algorithm::SourceHash | Algorithm::SourcePortHash);
        let table = |members: &[TierMember<'_>]| hashed.then(|| Self::table(members, before));
        let tiers = tiers.iter().filter(|t| !t.is_empty()).map(|t| Tier::build(t, table(t))).collect();
        Self { algorithm: spec.algorithm, tiers }
    }

    /// Where a pool with these backends leads its clients, by the rules of [`Schedule::build`].
    pub fn elsewhere<'a>(spec: &PoolSpec, candidates: impl IntoIterator<Item = Candidate<'a>>) -> Elsewhere {
        let (mut usable, mut healthy) = (0, false);
        for candidate in candidates.into_iter().filter(Candidate::is_wanted) {
            usable += usize::from(candidate.verdict != Verdict::Unhealthy);
            healthy |= candidate.verdict == Verdict::Healthy;
        }
        match usable < spec.minimum_healthy as usize {
            true if spec.all_down == AllDown::FailOpen => Elsewhere::Down,
            true => Elsewhere::Unproven,
            false if healthy => Elsewhere::Healthy,
            false => Elsewhere::Unproven,
        }
    }

    /// Whether a pool with these backends is not down and leads its clients to primaries, by the rules of [`Schedule::build`].
    pub fn leads_to_primaries<'a>(
        spec: &PoolSpec,
        candidates: impl IntoIterator<Item = Candidate<'a>>,
    ) -> bool {
        let usable =
            |candidate: &Candidate<'a>| candidate.is_wanted() && candidate.verdict != Verdict::Unhealthy;
        let (mut count, mut primary) = (0, false);
        for candidate in candidates.into_iter().filter(usable) {
            count += 1;
            primary |= !candidate.backend.spec.backup;
        }
        primary && count >= spec.minimum_healthy as usize
    }

    fn table(members: &[TierMember<'_>], before: Option<&Self>) -> Arc<Maglev> {
        let shares: Shares =
            members.iter().map(|m| (m.backend.name.clone(), m.backend.spec.weight)).collect();
        let tables = before.into_iter().flat_map(|b| &b.tiers).filter_map(Tier::table);
        let same = tables.into_iter().find(|t| t.shares == shares).cloned();
        same.unwrap_or_else(|| Arc::new(Maglev::build(shares)))
    }

    /// Whether any backend can take a connection, were none of them full.
    pub fn is_usable(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// Whether the backend at a position can take a connection, were it not full.
    pub fn admits(&self, position: usize) -> bool {
        self.tiers.iter().any(|tier| tier.has(position))
    }

    /// Picks the position of a backend for a connection from `client`.
    ///
    /// `turn` gives the next turn of the pool and moves it on; `random` gives any number, all equally likely; `active`
    /// says how many connections the backend at a position has; `availability` says what it is to this connection. Each
    /// algorithm asks only for what it goes by.
    ///
    /// A tier is left for the next one only once all its backends were tried. One whose other backends are full makes
    /// the connection wait, as in HAProxy: backups stand in for what is down, not for what is busy.
    pub fn pick(
        &self,
        client: SocketAddr,
        mut turn: impl FnMut() -> u64,
        mut random: impl FnMut() -> u64,
        active: impl Fn(usize) -> u64,
        availability: impl Fn(usize) -> Availability,
    ) -> Selection {
        let closed = |position: usize| availability(position) != Availability::Open;
        for tier in &self.tiers {
            let picked = match self.algorithm {
                Algorithm::RoundRobin => tier.round_robin(&mut turn, &closed),
                Algorithm::LeastConnections => tier.least_connections(turn(), &active, &closed),
                Algorithm::RandomTwo => tier.random_two(&mut random, &active, &closed),
                Algorithm::SourceHash => tier.hashed(hash::of_client(client.ip()), &closed),
                Algorithm::SourcePortHash => tier.hashed(hash::of_connection(client), &closed),
                Algorithm::First => tier.first(&closed),
            };
            if let Some(position) = picked {
                return Selection::At(position);
            }
            if tier.any(|position| availability(position) == Availability::Full) {
                return Selection::Full;
            }
        }
        Selection::Nothing
    }
}

/// Whether of these, in the order of [`Schedule`]'s tiers, any is a primary.
fn has_primary([healthy, unknown, ..]: &[Vec<TierMember<'_>>; 4]) -> bool {
    !healthy.is_empty() || !unknown.is_empty()
}

#[cfg(test)]
mod tests;
