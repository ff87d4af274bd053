//! Addresses of listeners that a member could not have beside those that it has, and those that take connections from
//! another's wildcard. That is judged where a write comes in, and never where it is applied: members differ in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::future::join_all;
use tonic::Status;
use trestle_api::{peer, status};
use trestle_model::{
    Bind, Claim, ClusterState, Command, Document, Invalid, ListenAddress, ListenerName, ListenerSpec,
    MemberName, MemberSockets, Operation, Overlaps, ResourceName, Violation, VipName,
};

use super::super::Admin;
use crate::peers::REPORT_TIMEOUT;

/// Most mistakes, and most warnings, of one answer.
const TOLD_MAX: usize = 8;

/// A member that says where it listens.
type Known = (MemberName, MemberSockets);

/// Listeners with their addresses.
type Binds<'a> = Vec<(&'a ListenerName, &'a [Bind])>;

/// What is said of a write.
#[derive(Debug, Default, PartialEq, Eq)]
struct Judged {
    refused: Vec<Violation>,
    warnings: Vec<String>,
}

/// The names of members, in words.
fn members(names: &BTreeSet<&MemberName>) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    match names.split_last() {
        None => "no member".to_owned(),
        Some((one, [])) => format!("member {one}"),
        Some((last, others)) => format!("members {} and {last}", others.join(", ")),
    }
}

/// What is in both.
fn common(one: Bind, other: Bind) -> Bind {
    Bind { first: one.first.max(other.first), last: one.last.min(other.last), ..one }
}

/// A write, with the listeners as they would be after it.
struct Judge<'a> {
    before: &'a ClusterState,
    after: Binds<'a>,
    /// The addresses of those that the write is about, as they are asked for.
    asked: BTreeMap<&'a ListenerName, &'a [ListenAddress]>,
    /// Whether each mistake names its listener, of several.
    is_document: bool,
}

impl<'a> Judge<'a> {
    fn new(
        before: &'a ClusterState,
        after: &'a BTreeMap<ListenerName, Vec<Bind>>,
        command: &'a Command,
    ) -> Self {
        let after = after.iter().map(|(name, binds)| (name, binds.as_slice())).collect();
        let asked: BTreeMap<_, _> = command
            .documents()
            .filter_map(|document| match document {
                Document::Listener(name, spec) => Some((name, spec.binds.as_slice())),
                _ => None,
            })
            .collect();
        let is_document = asked.len() > 1 || matches!(command, Command::Restore { .. });
        Self { before, after, asked, is_document }
    }

    /// Whether a listener gets an address by this write: what it has is not judged again.
    fn is_new(&self, claim: &Claim<'a>) -> bool {
        let before = self.before.listeners.get(claim.listener);
        before.is_none_or(|listener| !listener.binds.contains(&claim.configured))
    }

    fn violation(&self, claim: &Claim<'a>, rule: String) -> Violation {
        let binds = self.after.iter().find(|(name, _)| *name == claim.listener).map_or(&[][..], |(_, b)| b);
        let at = binds.iter().position(|bind| *bind == claim.configured);
        let place = if binds.len() > 1 { format!("[{}]", at.unwrap_or_default()) } else { String::new() };
        let document =
            if self.is_document { format!("listeners/{}: ", claim.listener) } else { String::new() };
        let asked = self.asked.get(claim.listener).and_then(|asked| asked.get(at.unwrap_or_default()));
        let value = asked.map_or_else(|| claim.configured.to_string(), ToString::to_string);
        Violation::new(format!("{document}listener.binds{place}"), value, rule)
    }

    fn own_ports(&self, known: &[Known]) -> Vec<Violation> {
        let mut found: BTreeMap<(&ListenerName, Bind, &str), BTreeSet<&MemberName>> = BTreeMap::new();
        for (listener, binds) in &self.after {
            for configured in *binds {
                let claim = Claim { listener, configured: *configured, effective: *configured };
                if !self.is_new(&claim) {
                    continue;
                }
                for (member, sockets) in known {
                    if let Some((what, _)) = sockets.in_the_way_of(configured.on(sockets.data_address)) {
                        found.entry((listener, *configured, what)).or_default().insert(member);
                    }
                }
            }
        }
        let violation = |((listener, configured, what), names): (_, BTreeSet<&MemberName>)| {
            let claim = Claim { listener, configured, effective: configured };
            let whose = if names.len() > 1 { "themselves" } else { "itself" };
            let at = known.iter().find(|(name, _)| names.contains(name));
            let at = at.and_then(|(_, sockets)| sockets.in_the_way_of(configured.on(sockets.data_address)));
            let at = at.map(|(_, at)| at.to_string()).unwrap_or_default();
            let rule = format!(
                "meets the {what} port ({at}) of {} {whose}; choose another address or port",
                members(&names)
            );
            self.violation(&claim, rule)
        };
        found.into_iter().map(violation).collect()
    }

    /// Judges by what is known of the members.
    fn judge(&self, known: &[Known]) -> Judged {
        let mut by_address: BTreeMap<Option<IpAddr>, BTreeSet<&MemberName>> = BTreeMap::new();
        for (name, sockets) in known {
            by_address.entry(sockets.data_address).or_default().insert(name);
        }
        let mut judged = Judged { refused: self.own_ports(known), warnings: Vec::new() };
        let mut shadows: BTreeMap<String, BTreeSet<&MemberName>> = BTreeMap::new();
        for (data_address, names) in &by_address {
            let overlaps = Overlaps::of(self.after.iter().copied(), *data_address);
            for (one, other) in &overlaps.clashes {
                let (new, there) = if self.is_new(other) { (other, one) } else { (one, other) };
                if self.is_new(new) {
                    let rule = format!(
                        "meets listener \"{}\" at {}: both are {} on {}; choose another address or port",
                        there.listener,
                        there.configured,
                        common(new.effective, there.effective),
                        members(names)
                    );
                    judged.refused.push(self.violation(new, rule));
                }
            }
            for (wildcard, one) in overlaps.shadows.iter().filter(|(w, o)| self.is_new(w) || self.is_new(o)) {
                let text = format!(
                    "listener \"{}\" at {} takes the connections there from listener \"{}\" at {}",
                    one.listener, one.effective, wildcard.listener, wildcard.effective
                );
                shadows.entry(text).or_default().extend(names);
            }
        }
        let rest = shadows.len().saturating_sub(TOLD_MAX);
        let shown = shadows.into_iter().take(TOLD_MAX);
        judged.warnings = shown.map(|(text, names)| format!("{text}, on {}", members(&names))).collect();
        if rest > 0 {
            judged
                .warnings
                .push(format!("{rest} more addresses take connections from wildcards of other listeners"));
        }
        judged.refused.truncate(TOLD_MAX);
        judged
    }
}

/// The listeners as they would be after a command that could be carried out; none when it gives no listener an address.
fn after(state: &ClusterState, command: &Command) -> BTreeMap<ListenerName, Vec<Bind>> {
    let given = command.documents().filter_map(|document| match document {
        Document::Listener(name, spec) => Some((name, spec)),
        _ => None,
    });
    let vips: BTreeMap<_, _> = command
        .documents()
        .filter_map(|document| match document {
            Document::Vip(name, spec) => Some((name, spec.address.ip)),
            _ => None,
        })
        .collect();
    let address = |name: &VipName| {
        vips.get(name).copied().or_else(|| state.vips.get(name).map(|vip| vip.spec.address.ip))
    };
    // What names a virtual IP that is not there is refused by the state.
    let resolved = |(name, spec): (&ListenerName, &ListenerSpec)| {
        (name.clone(), spec.binds.iter().filter_map(|bind| bind.resolved(address)).collect())
    };
    let given: BTreeMap<ListenerName, Vec<Bind>> = given.map(resolved).collect();
    if given.is_empty() {
        return given;
    }
    let mut after: BTreeMap<ListenerName, Vec<Bind>> = match command {
        Command::Restore { .. } => BTreeMap::new(),
        _ => state.listeners.values().map(|l| (l.name.clone(), l.binds.clone())).collect(),
    };
    if let Command::Batch(operations) = command {
        for operation in operations.iter() {
            if let Operation::Delete { resource: ResourceName::Listener(name), .. } = operation {
                after.remove(name);
            }
        }
    }
    after.extend(given);
    after
}

impl Admin {
    /// Where the members listen: this one as it knows, others as they are recorded, and those that are not as they say when
    /// asked. Of one that does not answer nothing is guessed.
    async fn known(&self, state: &ClusterState) -> Vec<Known> {
        let asked = state.members.iter().map(|(id, member)| async move {
            let name = member.spec.name.clone();
            if Some(*id) == self.local.id() {
                return Some((name, self.local.sockets()));
            }
            if let Some(sockets) = state.sockets.get(id) {
                return Some((name, **sockets));
            }
            let mut client = self.peers.client(&member.spec.peer_address).ok()?;
            let asked = client.describe(peer::DescribeRequest {});
            let described = tokio::time::timeout(REPORT_TIMEOUT, asked).await.ok()?.ok()?.into_inner();
            let is_it = described.member_id == id.0;
            let sockets = described.sockets.filter(|_| is_it)?;
            Some((name, MemberSockets::try_from(&sockets).ok()?))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Refuses addresses of listeners that some member could not have; answers what else is to be said of them.
    ///
    /// # Errors
    /// All mistakes, or that there is no state to judge by.
    pub(in super::super) async fn judge_addresses(&self, command: &Command) -> Result<Vec<String>, Status> {
        if !command.documents().any(|document| matches!(document, Document::Listener(..))) {
            return Ok(Vec::new());
        }
        // Not what this member happens to know: another may have taken the one before.
        let view = self.local.consensus.read(trestle_consensus::DEFAULT_WAIT).await?;
        let state = &view.state;
        let after = after(state, command);
        let known = self.known(state).await;
        let judged = Judge::new(state, &after, command).judge(&known);
        match judged.refused.is_empty() {
            true => Ok(judged.warnings),
            false => Err(status::invalid(&Invalid(judged.refused))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use trestle_model::{PoolName, PoolSpec};

    use super::*;

    fn create(name: &str, binds: &[&str]) -> Command {
        let binds: Vec<_> = binds.iter().map(|bind| ListenAddress::parse(bind).unwrap()).collect();
        let spec = ListenerSpec::new(binds, PoolName::parse("p").unwrap());
        Command::create((ListenerName::parse(name).unwrap(), spec))
    }

    fn state(commands: &[Command]) -> ClusterState {
        let mut state = ClusterState::default();
        let pool = Command::create((PoolName::parse("p").unwrap(), PoolSpec::default()));
        for (index, command) in [pool].iter().chain(commands).enumerate() {
            state.apply(index as u64 + 1, command).unwrap();
        }
        state
    }

    fn known(members: &[(&str, &str, Option<&str>)]) -> Vec<Known> {
        let member = |(name, at, data_address): &(&str, &str, Option<&str>)| {
            let port = |port| format!("{at}:{port}").parse().unwrap();
            let data_address = data_address.map(|ip| ip.parse().unwrap());
            let (admin, peer, http) = (port(7480), port(7481), port(7482));
            let sockets = MemberSockets { admin, peer, http, data_address, network: 0 };
            (MemberName::parse(name).unwrap(), sockets)
        };
        members.iter().map(member).collect()
    }

    /// Mistakes and warnings, as they are told.
    fn said(state: &ClusterState, command: &Command, known: &[Known]) -> (Vec<String>, Vec<String>) {
        let after = after(state, command);
        let judged = Judge::new(state, &after, command).judge(known);
        (judged.refused.iter().map(ToString::to_string).collect(), judged.warnings)
    }

    #[test]
    fn one_address_that_is_two_listeners_is_refused_where_it_is() {
        let state = state(&[create("web", &["0.0.0.0:7400"])]);
        let known = known(&[
            ("m1", "127.0.0.1", Some("127.0.0.1")),
            ("m2", "127.0.0.2", Some("127.0.0.2")),
            ("m3", "127.0.0.3", None),
        ]);
        let (refused, warnings) = said(&state, &create("aaa", &["10.0.0.1:80", "127.0.0.1:7400"]), &known);
        assert_eq!(
            refused,
            [
                "listener.binds[1] \"127.0.0.1:7400\": meets listener \"web\" at 0.0.0.0:7400: both are 127.0.0.1:7400 on \
              member m1; choose another address or port"
            ]
        );
        let shadow = "listener \"aaa\" at 127.0.0.1:7400 takes the connections there from listener \"web\" at 0.0.0.0:7400, on member m3";
        assert_eq!(warnings, [shadow]);
        // Nothing is said of members that are not known, nor of addresses that nobody has.
        assert_eq!(said(&state, &create("aaa", &["127.0.0.1:7400"]), &[]), (vec![], vec![]));
        assert_eq!(said(&state, &create("aaa", &["127.0.0.9:7401"]), &known), (vec![], vec![]));
    }

    #[test]
    fn a_members_own_ports_are_refused() {
        let state = state(&[]);
        let known = known(&[("m1", "10.0.0.1", None), ("m2", "10.0.0.2", Some("10.0.0.9"))]);
        let refused = |bind: &str| said(&state, &create("a", &[bind]), &known).0;
        assert_eq!(
            refused("0.0.0.0:7000-7480"),
            [
                "listener.binds \"0.0.0.0:7000-7480\": meets the admin port (10.0.0.1:7480) of member m1 itself; choose another \
              address or port"
            ]
        );
        assert_eq!(refused("10.0.0.2:7482").len(), 1);
        assert_eq!(refused("10.0.0.3:7482"), Vec::<String>::new());
        let known = self::known(&[("m1", "0.0.0.0", None), ("m2", "0.0.0.0", None)]);
        let (told, _) = said(&state, &create("a", &["10.0.0.7:7481"]), &known);
        assert_eq!(
            told,
            [
                "listener.binds \"10.0.0.7:7481\": meets the peer port (0.0.0.0:7481) of members m1 and m2 themselves; choose \
              another address or port"
            ]
        );
    }

    #[test]
    fn what_a_listener_has_is_not_judged_again() {
        // As they can be when one of them came while a member was down.
        let state =
            state(&[create("web", &["0.0.0.0:80", "0.0.0.0:7480"]), create("aaa", &["127.0.0.1:80"])]);
        let known = known(&[("m1", "127.0.0.1", Some("127.0.0.1")), ("m2", "127.0.0.2", None)]);
        let update = |name: &str, binds: &[&str]| match create(name, binds) {
            Command::Batch(operations) => match &operations[0] {
                Operation::Put { document, .. } => Command::put(document.clone()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let nothing = (vec![], vec![]);
        let same = update("web", &["0.0.0.0:80", "0.0.0.0:7480", "0.0.0.0:81"]);
        assert_eq!(said(&state, &same, &known), nothing);
        let (refused, warnings) = said(&state, &update("web", &["0.0.0.0:79-80"]), &known);
        assert_eq!((refused.len(), warnings.len()), (1, 1), "{refused:?} {warnings:?}");
    }
}
