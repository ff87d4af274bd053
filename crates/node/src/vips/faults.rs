//! Faults of this member, and how members tell one another of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use trestle_api::{convert, peer};
use trestle_dataplane::DataPlane;
use trestle_engine::ownership::{Fault, FaultKey, FitnessReport};
use trestle_model::Revision;

use peer::vip_fault::Kind;

use super::handle::Vips;
use super::shared::{Faults, Shared, VipStatus};
use super::{silence, stall};
use crate::this_member::ThisMember;

/// What this member knows of its own fitness to hold virtual IPs. Clones share it.
#[derive(Clone)]
pub(crate) struct OwnFitness {
    local: ThisMember,
    plane: Arc<DataPlane>,
    shared: Arc<Shared>,
}

impl OwnFitness {
    pub(crate) fn new(local: ThisMember, plane: Arc<DataPlane>, vips: &Vips) -> Self {
        Self { local, plane, shared: vips.shared.clone() }
    }

    /// The faults of this member now, and the revision of the configuration by which they were judged.
    pub(super) fn faults(&self) -> (Revision, Faults) {
        // This is read first, so that the faults are at least as new.
        let in_force = *self.plane.in_force().borrow();
        let mut faults = Faults::new();
        let mut add = |fault, words| faults.insert(FaultKey::of_member(fault), words);
        if self.local.is_draining() {
            add(Fault::Draining, "it is drained".to_owned());
        }
        if let Some(stall) = self.shared.log_hangs() {
            add(Fault::Log, stall::words(stall));
        }
        let status = self.shared.status();
        let revision = in_force.min(status.placed);
        if !status.checks.is_empty() {
            let failing: Vec<&str> = status.checks.values().map(String::as_str).collect();
            add(Fault::Check, failing.join("; "));
        }
        if self.local.consensus.view().borrow().state.vips.is_empty() {
            return (revision, faults);
        }
        if let Some(why) = &status.unable {
            add(Fault::Unable, why.clone());
        }
        if let Some(silence) = self.shared.owner_hangs() {
            add(Fault::Unable, silence::words(silence));
        }
        places(status, &mut faults);
        self.accept_faults(&mut faults);
        (revision, faults)
    }

    fn accept_faults(&self, faults: &mut Faults) {
        for fault in self.plane.accepting().err().unwrap_or_default() {
            let subject = fault.listener.map(|name| convert::listener_name(&name)).unwrap_or_default();
            let words = format!("its data plane does not accept connections: {}", fault.why);
            faults
                .entry(FaultKey { fault: Fault::DataPlane, subject })
                .and_modify(|known| {
                    known.push_str("; ");
                    known.push_str(&fault.why);
                })
                .or_insert(words);
        }
    }

    /// The pools of which this member sees every backend dead, "pools/{pool}".
    pub(super) fn dead_pools(&self) -> Vec<String> {
        self.plane.dead_pools().iter().map(convert::pool_name).collect()
    }

    /// This member's fitness now, as it tells other members.
    pub(crate) fn messages(&self) -> (Revision, Vec<peer::VipFault>) {
        let (revision, faults) = self.faults();
        let mut told: Vec<_> = faults.keys().map(|key| message(key, false)).collect();
        let recovering = self.shared.recovering();
        let mut against: BTreeSet<Fault> = recovering.iter().map(|(fault, _)| *fault).collect();
        // What many machines share fails on all of them within about one interval. The first member that is sure of the failure must
        // not hand over to one that is about to see it too.
        if !self.shared.status().doubted_checks.is_empty() {
            against.insert(Fault::Check);
        }
        told.extend(against.into_iter().map(|fault| message(&FaultKey::of_member(fault), true)));
        (revision, told)
    }
}

/// Adds what is wrong with the interfaces.
fn places(status: std::sync::MutexGuard<'_, VipStatus>, faults: &mut Faults) {
    let Some(kernel) = status.kernel.clone() else { return };
    let (interfaces, misplaced) = (status.interfaces.clone(), status.misplaced.clone());
    drop(status);
    let mut add = |address: IpAddr, words| {
        faults.insert(FaultKey::of_member(Fault::Interface(address)), words);
    };
    for (address, found) in misplaced {
        add(address, found.fault);
    }
    let mut links: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (address, name) in interfaces {
        let fault = links.entry(name.clone()).or_insert_with(|| match kernel.link_up(&name) {
            Ok(Some(false)) => Some(format!("interface {name} is down")),
            Ok(None) => Some(format!("there is no interface {name}")),
            // A question that the kernel does not answer says nothing about the interface.
            Ok(Some(true)) | Err(_) => None,
        });
        if let Some(words) = fault {
            add(address, words.clone());
        }
    }
}

fn message(key: &FaultKey, recovering: bool) -> peer::VipFault {
    let kind = match key.fault {
        Fault::Unable => Kind::Unable,
        Fault::DataPlane if key.subject.is_empty() => Kind::DataPlane,
        Fault::DataPlane => Kind::Listener,
        Fault::Interface(_) => Kind::Interface,
        Fault::IsolatedFromBackends => Kind::Isolated,
        Fault::Check => Kind::Check,
        Fault::Draining => Kind::Draining,
        Fault::Log => Kind::Log,
    };
    let subject = match key.fault {
        Fault::Interface(address) => address.to_string(),
        _ => key.subject.clone(),
    };
    peer::VipFault { kind: kind.into(), subject, recovering }
}

fn parse(message: &peer::VipFault) -> Option<FaultKey> {
    let fault = match Kind::try_from(message.kind).ok()? {
        Kind::Unspecified => return None,
        Kind::Unable => Fault::Unable,
        Kind::DataPlane | Kind::Listener => Fault::DataPlane,
        Kind::Interface => Fault::Interface(message.subject.parse().ok()?),
        Kind::Isolated => Fault::IsolatedFromBackends,
        Kind::Check => Fault::Check,
        Kind::Draining => Fault::Draining,
        Kind::Log => Fault::Log,
    };
    let subject = if matches!(fault, Fault::Interface(_)) { String::new() } else { message.subject.clone() };
    Some(FaultKey { fault, subject })
}

/// What another member says of its fitness.
pub(super) fn report(status: &peer::MemberReport) -> FitnessReport {
    let mut report = FitnessReport { revision: status.fitness_revision, ..Default::default() };
    for told in &status.vip_faults {
        match parse(told) {
            // An unknown kind may be about anything.
            None => report.unknown = true,
            Some(key) if told.recovering => drop(report.recovering.insert(key.fault)),
            Some(key) => drop(report.faults.insert(key)),
        }
    }
    report
}

/// The faults of a member that sees these pools dead.
pub(super) fn dead<'a>(pools: impl IntoIterator<Item = &'a String>) -> BTreeSet<FaultKey> {
    pools
        .into_iter()
        .map(|pool| FaultKey { fault: Fault::IsolatedFromBackends, subject: pool.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_one_member_tells_another_understands() {
        let all = [
            FaultKey::of_member(Fault::Unable),
            FaultKey::of_member(Fault::DataPlane),
            FaultKey { fault: Fault::DataPlane, subject: "listeners/web".to_owned() },
            FaultKey::of_member(Fault::Interface("2001:db8::1".parse().unwrap())),
            FaultKey { fault: Fault::IsolatedFromBackends, subject: "pools/web".to_owned() },
            FaultKey::of_member(Fault::Check),
            FaultKey::of_member(Fault::Draining),
            FaultKey::of_member(Fault::Log),
        ];
        let mut status = peer::MemberReport { fitness_revision: 7, ..Default::default() };
        status.vip_faults = all.iter().map(|key| message(key, false)).collect();
        status.vip_faults.push(message(&FaultKey::of_member(Fault::Check), true));
        let expected = FitnessReport {
            revision: 7,
            faults: all.into(),
            recovering: [Fault::Check].into(),
            unknown: false,
        };
        assert_eq!(report(&status), expected);
    }

    #[test]
    fn a_reason_without_a_word_for_it_counts() {
        for told in [
            peer::VipFault { kind: 99, ..Default::default() },
            peer::VipFault::default(),
            peer::VipFault { kind: Kind::Interface.into(), subject: "eth0".to_owned(), recovering: false },
        ] {
            let status = peer::MemberReport { vip_faults: vec![told], ..Default::default() };
            assert!(report(&status).unknown);
        }
    }
}
