//! What JSON and YAML show: stable documents with the words of the command line. Durations are there as they are typed and
//! in seconds ([`span`]), names without the API's prefixes, and every key is always there.

mod backend;
mod check;
mod cluster_event;
mod connection;
mod event;
mod listener;
mod member;
mod pool;
mod span;
mod status;
mod vip;
mod vip_facts;
mod vip_history;
mod words;

pub(crate) use backend::{BackendState, BackendView, verdict_word};
pub(crate) use cluster_event::{ChangeView, ClusterEventView};
pub(crate) use connection::{ClosedView, ConnectionView};
pub(crate) use event::EventView;
pub(crate) use listener::ListenerView;
pub(crate) use member::MemberView;
pub(crate) use pool::PoolView;
pub(crate) use status::{PoolDown, PoolsDown, StatusView};
pub(crate) use vip::VipView;
pub(crate) use vip_history::VipEventView;
pub(crate) use words::{membership_step_word, raft_state_word, vip_standing_word};

use std::collections::BTreeMap;

use serde::Serialize;
use trestle_api::v1;
use trestle_model::Choice;

/// What people and programs wrote on a resource; what is empty is left out.
#[derive(Debug, Default, Serialize)]
struct MetadataView {
    #[serde(skip_serializing_if = "String::is_empty")]
    owner: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl MetadataView {
    fn new(owner: String, annotations: BTreeMap<String, String>) -> Self {
        Self { owner, annotations }
    }

    /// One pair for the owner and for each annotation; nothing where nothing is written.
    fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        let owner = Some(&self.owner).filter(|owner| !owner.is_empty());
        let note = |(key, value): (&String, &String)| ("ANNOTATION", format!("{key}={value}"));
        owner.into_iter().map(|owner| ("OWNER", owner.clone())).chain(self.annotations.iter().map(note))
    }
}

/// The word of a setting that is one of a few values; of a number that this version does not know that of the default.
pub(crate) fn word<T: Choice>(number: i32) -> &'static str {
    T::of_number(number).unwrap_or_default().word()
}

/// A resource's name as the command line takes it: "web", "web/a", "m1".
pub(crate) fn short_name(resource: &str) -> String {
    let parts: Vec<&str> = resource.split('/').collect();
    match parts.as_slice() {
        ["pools", pool, "backends", backend] => format!("{pool}/{backend}"),
        ["pools" | "listeners" | "members" | "vips" | "users" | "tokens", name] => (*name).to_owned(),
        ["members", member, "connections", number] => format!("{member}/{number}"),
        _ => resource.to_owned(),
    }
}

/// For how long something has been so, in whole seconds; "-" where that is not known.
pub(crate) fn age_text(age: Option<&prost_types::Duration>) -> String {
    or_dash(span::Span::seconds(age).as_ref())
}

/// What keeps a listener's addresses from being bound, with the members and their addresses: one pair for each reason.
fn unbound(each: impl IntoIterator<Item = (String, v1::BindFailure)>) -> Vec<(String, String)> {
    const ADDRESSES_MAX: usize = 3;
    let at = |failure: &v1::BindFailure| {
        let named: Vec<&str> = failure.addresses.iter().take(ADDRESSES_MAX).map(String::as_str).collect();
        let left = failure.addresses.len().saturating_sub(ADDRESSES_MAX) as u64 + u64::from(failure.more);
        let more = if left > 0 { format!(" and {left} more") } else { String::new() };
        format!("{}{more}", named.join(", "))
    };
    let reasons = grouped(each.into_iter().map(|(member, failure)| {
        let place = at(&failure);
        ((member, place), failure.reason)
    }));
    let places = |(reason, places): (String, Vec<(String, String)>)| {
        // Members with data addresses of their own have it at other ones.
        let by_address = grouped(places).into_iter();
        let each: Vec<String> =
            by_address.map(|(at, members)| format!("{at} on {}", members.join(", "))).collect();
        (each.join(", "), reason)
    };
    reasons.into_iter().map(places).collect()
}

/// What several have in common stands once, in the order in which it comes first.
fn grouped<W, T: PartialEq>(each: impl IntoIterator<Item = (W, T)>) -> Vec<(T, Vec<W>)> {
    let mut groups: Vec<(T, Vec<W>)> = Vec::new();
    for (who, what) in each {
        match groups.iter_mut().find(|(known, _)| *known == what) {
            Some((_, all)) => all.push(who),
            None => groups.push((what, vec![who])),
        }
    }
    groups
}

/// Plain words for what may be missing.
fn or_dash(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Members with what is wrong on each, those with the same trouble together: "m1, m3: timed out; m2: unreachable".
/// Only the trouble, when all of several members have the same.
pub(crate) fn troubles(members: usize, each: impl IntoIterator<Item = (String, String)>) -> String {
    let groups = grouped(each);
    match groups.as_slice() {
        [(trouble, names)] if names.len() == members && members > 1 => trouble.clone(),
        _ => {
            let group = |(trouble, names): &(String, Vec<String>)| format!("{}: {trouble}", names.join(", "));
            groups.iter().map(group).collect::<Vec<_>>().join("; ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_with_the_same_trouble_stand_together() {
        let each = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(m, t)| ((*m).to_owned(), (*t).to_owned())).collect()
        };
        assert_eq!(troubles(3, each(&[("m2", "timed out")])), "m2: timed out");
        let mixed = each(&[("m1", "timed out"), ("m2", "unreachable"), ("m3", "timed out")]);
        assert_eq!(troubles(3, mixed), "m1, m3: timed out; m2: unreachable");
        assert_eq!(troubles(2, each(&[("m1", "no route"), ("m2", "no route")])), "no route");
        assert_eq!(troubles(1, each(&[("m1", "no route")])), "m1: no route");
    }

    #[test]
    fn names_are_those_that_commands_take() {
        for (resource, name) in [
            ("pools/web", "web"),
            ("pools/web/backends/a", "web/a"),
            ("listeners/front", "front"),
            ("members/m1", "m1"),
            ("members/m1/connections/17", "m1/17"),
            ("something/else/new", "something/else/new"),
        ] {
            assert_eq!(short_name(resource), name);
        }
    }
}
