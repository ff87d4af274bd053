//! Listeners and pools that can do less than they were told to, by member.

use std::collections::BTreeMap;

use serde::Serialize;
use trestle_api::v1;

use super::StatusView;
use super::member::MemberStatusView;
use crate::view::{grouped, short_name, unbound};

/// A listener that lacks addresses on a member.
#[derive(Debug, Serialize)]
pub(super) struct UnboundView {
    pub(super) listener: String,
    pub(super) failures: Vec<BindFailureView>,
}

/// Addresses that one reason keeps from being bound.
#[derive(Debug, Serialize)]
pub(super) struct BindFailureView {
    pub(super) addresses: Vec<String>,
    /// Further addresses.
    pub(super) more: u32,
    pub(super) reason: String,
}

/// A pool as a member sees it.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct TroubledPoolView {
    pub(super) pool: String,
    pub(super) backends: u32,
    /// Neither drained nor disabled, and not of weight 0.
    pub(super) enabled: u32,
    /// Of the enabled ones.
    pub(super) unhealthy: u32,
    /// Whether a listener leads to it.
    pub(super) used: bool,
    pub(super) fail_open: bool,
    /// The others are fewer than its `minimum_healthy`.
    pub(super) down: bool,
    /// Some of the unhealthy ones, with the reasons.
    pub(super) examples: Vec<ExampleView>,
}

/// An unhealthy backend.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ExampleView {
    pub(super) backend: String,
    pub(super) reason: String,
}

impl From<v1::ListenerView> for UnboundView {
    fn from(view: v1::ListenerView) -> Self {
        let failures = view.bind_failures.into_iter().map(Into::into).collect();
        Self { listener: short_name(&view.listener), failures }
    }
}

impl From<v1::BindFailure> for BindFailureView {
    fn from(failure: v1::BindFailure) -> Self {
        Self { addresses: failure.addresses, more: failure.more, reason: failure.reason }
    }
}

impl From<&BindFailureView> for v1::BindFailure {
    fn from(failure: &BindFailureView) -> Self {
        let (addresses, reason) = (failure.addresses.clone(), failure.reason.clone());
        Self { addresses, more: failure.more, reason }
    }
}

impl From<v1::PoolTrouble> for TroubledPoolView {
    fn from(trouble: v1::PoolTrouble) -> Self {
        let example = |one: v1::UnhealthyBackend| ExampleView {
            backend: short_name(&one.backend).split_once('/').map_or_else(String::new, |(_, b)| b.to_owned()),
            reason: one.reason,
        };
        Self {
            pool: short_name(&trouble.pool),
            backends: trouble.backends,
            enabled: trouble.enabled,
            unhealthy: trouble.unhealthy,
            used: trouble.used,
            fail_open: trouble.fail_open,
            down: trouble.down,
            examples: trouble.examples.into_iter().map(example).collect(),
        }
    }
}

impl TroubledPoolView {
    /// Whether no backend takes connections that is known to work.
    fn is_down(&self) -> bool {
        self.down || self.unhealthy == self.enabled
    }

    /// What is equal on members that see the same, whatever their reasons are.
    fn key(&self) -> (&str, u32, u32, u32, bool) {
        (&self.pool, self.backends, self.enabled, self.unhealthy, self.down)
    }

    /// "a, b: connection refused; c: timed out and 2 more".
    fn reasons(&self) -> String {
        let pairs = self.examples.iter().map(|one| (one.backend.clone(), one.reason.clone()));
        let groups = grouped(pairs).into_iter();
        let words: Vec<String> =
            groups.map(|(reason, names)| format!("{}: {reason}", names.join(", "))).collect();
        let left = (self.unhealthy as usize).saturating_sub(self.examples.len());
        let more = if left > 0 { format!("; and {left} more") } else { String::new() };
        format!("{}{more}", words.join("; "))
    }

    /// Why it is down, in a few words: "none of 2 in use".
    fn brief(&self) -> String {
        let healthy = self.enabled.saturating_sub(self.unhealthy);
        match (self.backends, self.enabled) {
            (0, _) => "no backends".to_owned(),
            (all, 0) => format!("none of {all} in use"),
            (_, enabled) if healthy > 0 => format!("{healthy}/{enabled} healthy, fewer than its minimum"),
            (_, enabled) => format!("0/{enabled} healthy"),
        }
    }

    fn words(&self, members: &[String]) -> String {
        let (pool, on) = (&self.pool, members.join(", "));
        let lost = match (self.used, self.fail_open) {
            (false, _) => "no listener leads to it",
            (true, true) => "clients are led to unhealthy ones all the same (fail-open)",
            (true, false) => "its clients are reset",
        };
        match (self.backends, self.enabled) {
            (0, _) => {
                return format!(
                    "pool {pool} is down: it has no backends, so {lost}: \"trestle backend add {pool}/NAME ADDR:PORT\" adds one"
                );
            }
            (all, 0) => {
                return format!(
                    "pool {pool} is down: all of its backends ({all}) are drained or disabled or have weight 0, so {lost}: \"trestle \
                     backend enable {pool}/NAME\" puts one back"
                );
            }
            _ => {}
        }
        let (healthy, all) = (self.enabled - self.unhealthy.min(self.enabled), self.enabled);
        let (state, lost) = match self.is_down() {
            true if healthy > 0 => ("down", format!(", fewer than its minimum, {lost}")),
            true => ("down", format!(", {lost}")),
            false => ("degraded", String::new()),
        };
        let why = if self.unhealthy > 0 { format!(" ({})", self.reasons()) } else { String::new() };
        format!(
            "pool {pool} is {state} on {on}: {healthy} of {all} backends healthy{lost}{why}: \"trestle backend list {pool}\" shows \
             each"
        )
    }
}

/// A pool that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolDown {
    /// The members that say so.
    pub(crate) on: Vec<String>,
    /// That it is, with the reason and, unless all members that answer say so, who does: "down on m2 (0/2 healthy)".
    pub(crate) words: String,
}

/// The pools that are down, by name.
pub(crate) type PoolsDown = BTreeMap<String, PoolDown>;

impl StatusView {
    /// The pools that are down on some member.
    pub(crate) fn pools_down(&self) -> PoolsDown {
        let answering = self.members.iter().filter(|m| m.reachable).count();
        let mut by_pool: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for member in &self.members {
            for pool in member.troubled_pools.iter().filter(|pool| pool.is_down()) {
                by_pool.entry(pool.pool.clone()).or_default().push((member.name.clone(), pool.brief()));
            }
        }
        let down = |(pool, each): (String, Vec<(String, String)>)| {
            let on: Vec<String> = each.iter().map(|(member, _)| member.clone()).collect();
            let words = match grouped(each).as_slice() {
                [(why, names)] if names.len() == answering => format!("down ({why})"),
                groups => {
                    let group = |(why, names): &(String, Vec<String>)| {
                        format!("down on {} ({why})", names.join(", "))
                    };
                    groups.iter().map(group).collect::<Vec<_>>().join("; ")
                }
            };
            (pool, PoolDown { on, words })
        };
        by_pool.into_iter().map(down).collect()
    }

    /// Members that have more pools with problems than they name.
    pub(super) fn unnamed_pools(&self) -> Vec<String> {
        let more = |m: &MemberStatusView| {
            let more = u64::from(m.troubled_pools_total).saturating_sub(m.troubled_pools.len() as u64);
            let are: &str = if more == 1 { "1 more pool is" } else { &format!("{more} more pools are") };
            (more > 0).then(|| format!("{}: {are} down or degraded; \"trestle pool list\" shows all", m.name))
        };
        self.members.iter().filter_map(more).collect()
    }

    /// Pools that are down, or else those that are degraded; members that see the same stand together.
    pub(super) fn pool_problems(&self, down: bool) -> Vec<String> {
        let mut groups: Vec<(&TroubledPoolView, Vec<String>)> = Vec::new();
        for member in &self.members {
            for pool in member.troubled_pools.iter().filter(|pool| pool.is_down() == down) {
                match groups.iter_mut().find(|(known, _)| known.key() == pool.key()) {
                    Some((_, names)) => names.push(member.name.clone()),
                    None => groups.push((pool, vec![member.name.clone()])),
                }
            }
        }
        groups.sort_by(|(a, _), (b, _)| a.pool.cmp(&b.pool));
        groups.into_iter().map(|(pool, names)| pool.words(&names)).collect()
    }

    /// Listeners that lack addresses: one line for each reason, whatever the members' own addresses are.
    pub(super) fn listener_problems(&self) -> Vec<String> {
        let mut by_listener: BTreeMap<&str, Vec<(String, v1::BindFailure)>> = BTreeMap::new();
        for m in &self.members {
            for listener in &m.unbound_listeners {
                let failures = listener.failures.iter().map(|f| (m.name.clone(), f.into()));
                by_listener.entry(&listener.listener).or_default().extend(failures);
            }
        }
        let lines = |(listener, each): (&str, Vec<(String, v1::BindFailure)>)| {
            let line = |(places, reason)| {
                format!(
                    "listener {listener} is not bound to {places}: {reason}; \"trestle listener get {listener}\" shows each member"
                )
            };
            unbound(each).into_iter().map(line).collect::<Vec<_>>()
        };
        by_listener.into_iter().flat_map(lines).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tests::sample::{sample_status, sample_trouble, sample_unbound};

    fn problems(change: impl FnOnce(&mut v1::ClusterStatus)) -> Vec<String> {
        let mut status = sample_status();
        change(&mut status);
        StatusView::from(status).into_problems()
    }

    #[test]
    fn a_dead_pool_is_told_once_for_all_members_that_see_it_so() {
        let told = problems(|status| {
            for member in &mut status.members {
                member.troubled_pools =
                    vec![sample_trouble("dead", 1, 1, &["x"]), sample_trouble("web", 3, 1, &["b"])];
            }
            // What one member alone sees is told apart.
            status.members[2].troubled_pools[1].unhealthy = 2;
        });
        assert_eq!(
            told,
            [
                "pool dead is down on m1, m2, m3: 0 of 1 backends healthy, its clients are reset (x: connection refused): \
                 \"trestle backend list dead\" shows each",
                "pool web is degraded on m1, m2: 2 of 3 backends healthy (b: connection refused): \"trestle backend list web\" \
                 shows each",
                "pool web is degraded on m3: 1 of 3 backends healthy (b: connection refused; and 1 more): \"trestle backend list \
                 web\" shows each",
            ]
        );
    }

    #[test]
    fn a_pool_that_nothing_can_come_of_is_told() {
        let one = |trouble: v1::PoolTrouble| {
            problems(|status| {
                for member in &mut status.members {
                    member.troubled_pools = vec![trouble.clone()];
                }
            })
        };
        assert_eq!(
            one(sample_trouble("web", 0, 0, &[])),
            [
                "pool web is down: it has no backends, so its clients are reset: \"trestle backend add web/NAME ADDR:PORT\" adds one"
            ]
        );
        assert!(one(v1::PoolTrouble { backends: 2, ..sample_trouble("web", 0, 0, &[]) })[0].starts_with(
            "pool web is down: all of its backends (2) are drained or disabled or have weight 0, so its clients are reset"
        ));
        let open = v1::PoolTrouble { fail_open: true, ..sample_trouble("web", 1, 1, &["a"]) };
        assert!(
            one(open)[0].contains("healthy, clients are led to unhealthy ones all the same (fail-open) (a: ")
        );
        let few = v1::PoolTrouble { down: true, ..sample_trouble("web", 3, 2, &["a", "b"]) };
        assert!(one(few)[0].starts_with(
            "pool web is down on m1, m2, m3: 1 of 3 backends healthy, fewer than its minimum, its clients are reset (a, b: "
        ));
        let none_bad = v1::PoolTrouble { down: true, ..sample_trouble("web", 1, 0, &[]) };
        assert!(one(none_bad)[0].contains(
            "1 of 1 backends healthy, fewer than its minimum, its clients are reset: \"trestle backend list web\""
        ));
        let unused = v1::PoolTrouble { used: false, ..sample_trouble("web", 1, 1, &["a"]) };
        assert!(one(unused)[0].contains("0 of 1 backends healthy, no listener leads to it (a: "));
    }

    #[test]
    fn an_unbound_listener_is_told_once_with_its_addresses() {
        let taken = "address already in use by another process";
        let same = problems(|status| {
            for member in &mut status.members[..2] {
                member.unbound_listeners = vec![sample_unbound("front", "0.0.0.0:80", taken)];
            }
        });
        assert_eq!(
            same,
            [
                "listener front is not bound to 0.0.0.0:80 on m1, m2: address already in use by another process; \"trestle listener \
                 get front\" shows each member"
            ]
        );
        let own = problems(|status| {
            for (number, member) in status.members.iter_mut().enumerate() {
                let address = format!("127.0.0.{}:80", number + 1);
                member.unbound_listeners = vec![sample_unbound("front", &address, taken)];
            }
        });
        assert_eq!(own.len(), 1);
        let places = "listener front is not bound to 127.0.0.1:80 on m1, 127.0.0.2:80 on m2, 127.0.0.3:80 on m3: address";
        assert!(own[0].starts_with(places), "{own:?}");
        let many = problems(|status| {
            let mut view = sample_unbound("front", "10.0.0.1:80", taken);
            view.bind_failures[0].addresses = (0..5).map(|port| format!("10.0.0.1:8{port}")).collect();
            view.bind_failures[0].more = 7;
            status.members[1].unbound_listeners = vec![view];
        });
        assert!(many[0].contains(" to 10.0.0.1:80, 10.0.0.1:81, 10.0.0.1:82 and 9 more on m2: "), "{many:?}");
    }
}
