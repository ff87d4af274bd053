//! Addresses of listeners that are one on a member, although they are written differently.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{Bind, Port};
use crate::name::ListenerName;

/// An address of a listener on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Whose it is.
    pub listener: &'a ListenerName,
    /// As it is configured.
    pub configured: Bind,
    /// What it means there.
    pub effective: Bind,
}

/// What listeners' addresses on a member have in common.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Overlaps<'a> {
    /// Two listeners of which only one can have the address. Not those that are configured with the same address: these the
    /// state refuses.
    pub clashes: Vec<(Claim<'a>, Claim<'a>)>,
    /// A wildcard, and an address for itself that takes the connections there from it.
    pub shadows: Vec<(Claim<'a>, Claim<'a>)>,
}

impl<'a> Overlaps<'a> {
    /// Of these listeners on a member with this data address.
    pub fn of(
        listeners: impl IntoIterator<Item = (&'a ListenerName, &'a [Bind])>,
        data_address: Option<IpAddr>,
    ) -> Self {
        let mut claims: Vec<Claim<'a>> = listeners
            .into_iter()
            .flat_map(|(listener, binds)| binds.iter().map(move |bind| (listener, *bind)))
            .map(|(listener, configured)| Claim {
                listener,
                configured,
                effective: configured.on(data_address),
            })
            .collect();
        claims.sort_by_key(|claim| (claim.effective.ip, claim.effective.first, claim.listener));
        Self { clashes: clashes(&claims), shadows: shadows(&claims) }
    }
}

/// `claims` is in the order of addresses and first ports.
fn clashes<'a>(claims: &[Claim<'a>]) -> Vec<(Claim<'a>, Claim<'a>)> {
    let mut found = Vec::new();
    // Those that may go on until where the next one begins.
    let mut open: Vec<Claim<'a>> = Vec::new();
    for claim in claims {
        let at = claim.effective;
        open.retain(|before| before.effective.overlaps(at));
        let other = |before: &&Claim<'a>| {
            before.listener != claim.listener && !before.configured.overlaps(claim.configured)
        };
        found.extend(open.iter().filter(other).map(|before| (*before, *claim)));
        open.push(*claim);
    }
    found
}

fn shadows<'a>(claims: &[Claim<'a>]) -> Vec<(Claim<'a>, Claim<'a>)> {
    let mut wildcards: BTreeMap<(bool, Port), Claim<'a>> = BTreeMap::new();
    let is_wildcard = |claim: &&Claim<'a>| claim.effective.ip.is_unspecified();
    for claim in claims.iter().filter(is_wildcard) {
        wildcards.entry((claim.effective.ip.is_ipv4(), claim.effective.first)).or_insert(*claim);
    }
    let mut found = Vec::new();
    for claim in claims.iter().filter(|claim| !is_wildcard(claim)) {
        let (at, family) = (claim.effective, claim.effective.ip.is_ipv4());
        // Wildcards do not overlap one another, so that all before one that ends too early do as well.
        let before = wildcards.range((family, Port::MIN)..=(family, at.last)).rev();
        let meeting = before.map(|(_, wildcard)| *wildcard).take_while(|w| w.effective.last >= at.first);
        found.extend(meeting.filter(|w| w.listener != claim.listener).map(|wildcard| (wildcard, *claim)));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Each overlap as "first+second".
    fn overlaps(listeners: &[(&str, &[&str])], data_address: Option<&str>) -> (Vec<String>, Vec<String>) {
        let parse = |(name, binds): &(&str, &[&str])| {
            let binds: Vec<Bind> = binds.iter().map(|bind| Bind::parse(bind).unwrap()).collect();
            (ListenerName::parse(name).unwrap(), binds)
        };
        let listeners: Vec<_> = listeners.iter().map(parse).collect();
        let listeners = listeners.iter().map(|(name, binds)| (name, binds.as_slice()));
        let found = Overlaps::of(listeners, data_address.map(|ip| ip.parse().unwrap()));
        let text = |pairs: Vec<(Claim<'_>, Claim<'_>)>| {
            let mut texts: Vec<String> =
                pairs.iter().map(|(one, other)| format!("{}+{}", one.listener, other.listener)).collect();
            texts.sort();
            texts
        };
        (text(found.clashes), text(found.shadows))
    }

    #[test]
    fn a_wildcard_is_the_data_address_where_there_is_one() {
        let listeners: &[(&str, &[&str])] =
            &[("web", &["0.0.0.0:80-90"]), ("aaa", &["127.0.0.1:85"]), ("six", &["[::]:80"])];
        let none = Vec::<String>::new();
        assert_eq!(overlaps(listeners, Some("127.0.0.1")), (vec!["web+aaa".to_owned()], none.clone()));
        assert_eq!(overlaps(listeners, Some("127.0.0.2")), (none.clone(), none.clone()));
        assert_eq!(overlaps(listeners, Some("::1")), (none.clone(), vec!["web+aaa".to_owned()]));
        assert_eq!(overlaps(listeners, None), (none, vec!["web+aaa".to_owned()]));
    }

    #[test]
    fn ranges_meet_wherever_they_begin_and_a_listener_not_itself() {
        let listeners: &[(&str, &[&str])] = &[
            ("a", &["10.0.0.1:100-200", "0.0.0.0:300-400"]),
            ("b", &["0.0.0.0:120-130", "0.0.0.0:180-190"]),
            ("c", &["10.0.0.1:350", "0.0.0.0:205"]),
        ];
        let (clashes, shadows) = overlaps(listeners, Some("10.0.0.1"));
        assert_eq!((clashes, shadows.len()), (vec!["a+b".into(), "a+b".into(), "a+c".into()], 0));
        let (clashes, shadows) = overlaps(listeners, None);
        assert_eq!((clashes.len(), shadows), (0, vec!["a+c".into(), "b+a".into(), "b+a".into()]));
        let alone: &[(&str, &[&str])] = &[("a", &["10.0.0.1:80", "0.0.0.0:80"])];
        assert_eq!(overlaps(alone, None), (vec![], vec![]));
        assert_eq!(overlaps(alone, Some("10.0.0.1")), (vec![], vec![]));
    }

    #[test]
    fn the_same_address_twice_is_the_states_to_refuse() {
        let listeners: &[(&str, &[&str])] = &[("a", &["10.0.0.1:80"]), ("b", &["10.0.0.1:80-81"])];
        assert_eq!(overlaps(listeners, None), (vec![], vec![]));
    }
}
