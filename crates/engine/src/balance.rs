//! Picking: which backend takes the next connection.

mod hash;
mod maglev;
mod tier;
mod turns;

use std::net::IpAddr;
use std::sync::Arc;

use trestle_model::{AdminState, Algorithm, AllDown, Backend, PoolSpec};

use crate::health::Verdict;
use maglev::{Maglev, Shares};
use tier::Tier;

/// A pool's backends prepared for picking; built once for each change of backends or verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule {
    algorithm: Algorithm,
    /// Best first: healthy primaries, unknown primaries, healthy backups, unknown backups; or unhealthy primaries and
    /// unhealthy backups. Empty tiers are left out.
    tiers: Vec<Tier>,
}

impl Schedule {
    /// Prepares the backends of a pool, given in the order of their names.
    ///
    /// Usable is what is enabled, has a weight, and is not unhealthy. Healthy backends come before those of which
    /// nothing is known; backups come only when no other backend is usable. When nothing is usable and the pool fails
    /// open, what is unhealthy but otherwise usable counts as usable.
    ///
    /// A table for [`Algorithm::SourceHash`] takes about 2 ms to fill, so one of `before`, the schedule that this one
    /// replaces, is taken over where its backends and weights are the same.
    pub fn build<'a>(
        spec: &PoolSpec,
        backends: impl IntoIterator<Item = (&'a Backend, Verdict)>,
        before: Option<&Self>,
    ) -> Self {
        let mut usable: [Vec<(u32, &Backend)>; 4] = Default::default();
        let mut unhealthy: [Vec<(u32, &Backend)>; 2] = Default::default();
        for (position, (backend, verdict)) in (0u32..).zip(backends) {
            if backend.spec.admin_state != AdminState::Enabled || backend.spec.weight == 0 {
                continue;
            }
            let tier = match (backend.spec.backup, verdict) {
                (false, Verdict::Healthy) => &mut usable[0],
                (false, Verdict::Unknown) => &mut usable[1],
                (true, Verdict::Healthy) => &mut usable[2],
                (true, Verdict::Unknown) => &mut usable[3],
                (false, Verdict::Unhealthy) => &mut unhealthy[0],
                (true, Verdict::Unhealthy) => &mut unhealthy[1],
            };
            tier.push((position, backend));
        }
        let opened = spec.all_down == AllDown::FailOpen && usable.iter().all(Vec::is_empty);
        let tiers = if opened { &unhealthy[..] } else { &usable[..] };
        let table = |members: &[(u32, &Backend)]| {
            (spec.algorithm == Algorithm::SourceHash).then(|| Self::table(members, before))
        };
        let tiers = tiers.iter().filter(|t| !t.is_empty()).map(|t| Tier::build(t, table(t))).collect();
        Self { algorithm: spec.algorithm, tiers }
    }

    fn table(members: &[(u32, &Backend)], before: Option<&Self>) -> Arc<Maglev> {
        let shares: Shares = members.iter().map(|(_, b)| (b.name.clone(), b.spec.weight)).collect();
        let tables = before.into_iter().flat_map(|b| &b.tiers).filter_map(Tier::table);
        let same = tables.into_iter().find(|t| t.shares == shares).cloned();
        same.unwrap_or_else(|| Arc::new(Maglev::build(shares)))
    }

    /// Whether any backend can take a connection.
    pub fn is_usable(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// Picks the position of a backend for a connection from `client`, or `None` when every usable one was tried.
    ///
    /// `turn` gives the next turn of the pool and moves it on; `random` gives any number, all equally likely; `active`
    /// says how many connections the backend at a position has; `tried` says whether this connection has failed there
    /// already. Each algorithm asks only for what it goes by.
    pub fn pick(
        &self,
        client: IpAddr,
        mut turn: impl FnMut() -> u64,
        mut random: impl FnMut() -> u64,
        active: impl Fn(usize) -> u64,
        tried: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.tiers.iter().find_map(|tier| match self.algorithm {
            Algorithm::RoundRobin => tier.round_robin(&mut turn, &tried),
            Algorithm::LeastConnections => tier.least_connections(turn(), &active, &tried),
            Algorithm::RandomTwo => tier.random_two(&mut random, &active, &tried),
            Algorithm::SourceHash | Algorithm::SourcePortHash => tier.source_hash(client, &tried),
            Algorithm::First => tier.first(&tried),
        })
    }
}

#[cfg(test)]
mod tests;
