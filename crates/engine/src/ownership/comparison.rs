//! Who is fitter: a fault moves VIPs only to a member that is known not to have it.
//!
//! A fault that comes from what is configured (the interface of a VIP, the port of a listener) appears on every member that
//! shares its cause, but on one after another, as each applies the log. So the report of a member counts for such a fault
//! only if it was made with at least the configuration under which the fault was first seen here, and with no later one than
//! is known here: then the same configuration was in force on both, and only one of them has the fault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trestle_model::Revision;

use super::fitness::Fault;

/// A fault, and what has it: the name of a listener or of a pool. Empty for what the fault itself names, and for a fault of
/// the member as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultKey {
    /// The kind of fault.
    pub fault: Fault,
    /// What has it.
    pub subject: String,
}

impl FaultKey {
    /// A fault of the member as a whole, or of what the fault itself names.
    pub fn of_member(fault: Fault) -> Self {
        Self { fault, subject: String::new() }
    }

    /// Whether a write can bring it to every member.
    fn is_configured(&self) -> bool {
        match self.fault {
            Fault::Interface(_) => true,
            // Of a listener, not of the threads.
            Fault::DataPlane => !self.subject.is_empty(),
            Fault::Unable | Fault::IsolatedFromBackends | Fault::Check | Fault::Draining | Fault::Log => {
                false
            }
        }
    }
}

/// What a member says of its fitness.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FitnessReport {
    /// The configuration that it was judged with.
    pub revision: Revision,
    /// Everything that is wrong now.
    pub faults: BTreeSet<FaultKey>,
    /// Faults that it does not have, but counts as having where another member looks for a fitter one: those for which it gave
    /// VIPs up not long ago ([`BackOff`]), and that of a check whose last run failed.
    pub recovering: BTreeSet<Fault>,
    /// Something is wrong that this version has no word for.
    pub unknown: bool,
}

impl FitnessReport {
    /// Whether it cannot hold any VIP at all.
    pub fn is_unable(&self) -> bool {
        self.has(Fault::Unable)
    }

    /// Whether it cannot vote, or lead.
    pub fn writes_no_log(&self) -> bool {
        self.has(Fault::Log)
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|key| key.fault == fault)
    }
}

/// This member's faults, each with the first configuration under which it was seen, and has been since.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnFaults {
    revision: Revision,
    since: BTreeMap<FaultKey, Revision>,
}

impl OwnFaults {
    /// Takes note of everything that is wrong now, judged with the configuration of `revision`.
    pub fn observe(&mut self, revision: Revision, faults: &BTreeSet<FaultKey>) {
        self.revision = revision;
        self.since.retain(|key, _| faults.contains(key));
        for key in faults {
            self.since.entry(key.clone()).or_insert(revision);
        }
    }

    /// Whether `other` has no fault that this member does not have too, so that nothing gets worse by a move.
    pub fn matched_by(&self, other: &FitnessReport) -> bool {
        if self.is_unable() {
            return !other.is_unable();
        }
        !other.unknown && other.faults.iter().all(|key| self.since.contains_key(key))
    }

    /// The faults that speak for a move to `other`: those that it is known not to have, and has not given VIPs up for not
    /// long ago. None when it has a fault that this member does not have.
    pub fn in_favour_of(&self, other: &FitnessReport) -> BTreeSet<Fault> {
        if !self.matched_by(other) {
            return BTreeSet::new();
        }
        let same_configuration = |since: Revision| (since..=self.revision).contains(&other.revision);
        self.since
            .iter()
            .filter(|(key, since)| !key.is_configured() || same_configuration(**since))
            .filter(|(key, _)| !other.faults.contains(key) && !other.recovering.contains(&key.fault))
            .map(|(key, _)| key.fault)
            .collect()
    }

    fn is_unable(&self) -> bool {
        self.since.keys().any(|key| key.fault == Fault::Unable)
    }
}

/// For how long a member that has given VIPs up counts as unfit for the same reason, whatever it says: a fault that comes
/// and goes would move them each time, and a move ends connections. One minute, and twice as long each time that it happens
/// again soon; being asked for by name ends it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackOff {
    left: BTreeMap<Fault, Left>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    at: Duration,
    hold: Duration,
    over: bool,
}

impl BackOff {
    /// The first back-off.
    pub const FIRST: Duration = Duration::from_secs(60);
    /// The longest.
    pub const MAX: Duration = Duration::from_secs(16 * 60);

    /// This member gives VIPs up for `fault` at `now`. A drain is the operator's word and no fault that comes and goes.
    pub fn left(&mut self, fault: Fault, now: Duration) {
        if fault == Fault::Draining {
            return;
        }
        // Again, if it happens before the last back-off has passed twice.
        let soon = |left: &&Left| now < left.at.saturating_add(left.hold.saturating_mul(2));
        let hold = match self.left.get(&fault).filter(soon) {
            Some(left) => left.hold.saturating_mul(2).min(Self::MAX),
            None => Self::FIRST,
        };
        self.left.insert(fault, Left { at: now, hold, over: false });
    }

    /// This member leads again: whoever gave it the VIPs knew why. How often it gave them up stays known.
    pub fn leads(&mut self) {
        self.left.values_mut().for_each(|left| left.over = true);
    }

    /// The faults that it still counts as unfit for at `now`, and for how much longer.
    pub fn recovering(&self, now: Duration) -> impl Iterator<Item = (Fault, Duration)> + '_ {
        self.left.iter().filter(|(_, left)| !left.over).filter_map(move |(fault, left)| {
            let rest = left.at.saturating_add(left.hold).saturating_sub(now);
            (!rest.is_zero()).then_some((*fault, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const VIP: Fault = Fault::Interface(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));

    fn key(fault: Fault) -> FaultKey {
        FaultKey::of_member(fault)
    }

    fn listener(name: &str) -> FaultKey {
        FaultKey { fault: Fault::DataPlane, subject: name.to_owned() }
    }

    fn own(revision: Revision, faults: &[FaultKey]) -> OwnFaults {
        let mut own = OwnFaults::default();
        own.observe(revision, &faults.iter().cloned().collect());
        own
    }

    fn report(revision: Revision, faults: &[FaultKey]) -> FitnessReport {
        FitnessReport { revision, faults: faults.iter().cloned().collect(), ..Default::default() }
    }

    #[test]
    fn a_mistake_in_a_new_thing_moves_nothing_whoever_sees_it_first() {
        for mistake in [key(VIP), listener("l")] {
            let own = own(7, std::slice::from_ref(&mistake));
            assert!(own.in_favour_of(&report(6, &[])).is_empty(), "the other has not seen the write yet");
            assert!(own.in_favour_of(&report(8, &[])).is_empty(), "this member has not seen its end yet");
            assert!(own.in_favour_of(&report(7, std::slice::from_ref(&mistake))).is_empty());
            assert_eq!(own.in_favour_of(&report(7, &[])), [mistake.fault].into(), "it is only here");
        }
    }

    #[test]
    fn writes_without_end_do_not_hide_a_fault() {
        let mut own = own(7, &[key(VIP)]);
        own.observe(20, &[key(VIP)].into());
        assert_eq!(own.in_favour_of(&report(12, &[])), [VIP].into());
        own.observe(21, &BTreeSet::new());
        own.observe(22, &[key(VIP)].into());
        assert!(own.in_favour_of(&report(21, &[])).is_empty(), "it was gone in between");
    }

    #[test]
    fn what_no_write_brings_needs_no_revision() {
        for fault in [
            Fault::Unable,
            Fault::DataPlane,
            Fault::IsolatedFromBackends,
            Fault::Check,
            Fault::Draining,
            Fault::Log,
        ] {
            assert_eq!(own(7, &[key(fault)]).in_favour_of(&report(3, &[])), [fault].into());
        }
    }

    #[test]
    fn nothing_moves_to_a_member_with_a_fault_of_its_own() {
        let own = own(7, &[key(Fault::Check), listener("l")]);
        assert!(own.in_favour_of(&report(7, &[key(Fault::Draining)])).is_empty());
        assert!(own.in_favour_of(&FitnessReport { unknown: true, ..report(7, &[]) }).is_empty());
        assert_eq!(own.in_favour_of(&report(7, &[listener("l")])), [Fault::Check].into());
        assert!(own.in_favour_of(&report(7, &[listener("other")])).is_empty());
        assert!(own.matched_by(&report(7, &[listener("l")])) && !own.matched_by(&report(7, &[key(VIP)])));
    }

    #[test]
    fn whoever_can_hold_anything_is_better_than_one_that_cannot() {
        let own = own(7, &[key(Fault::Unable)]);
        assert_eq!(own.in_favour_of(&report(7, &[key(Fault::Check)])), [Fault::Unable].into());
        assert!(own.in_favour_of(&report(7, &[key(Fault::Unable)])).is_empty());
    }

    #[test]
    fn a_member_that_gave_up_for_the_same_reason_is_left_alone_for_longer_each_time() {
        let seconds = Duration::from_secs;
        let mut back_off = BackOff::default();
        let mut now = Duration::ZERO;
        for minutes in [1, 2, 4, 8, 16, 16] {
            back_off.left(Fault::Check, now);
            now += seconds(60 * minutes - 1);
            assert_eq!(back_off.recovering(now).collect::<Vec<_>>(), [(Fault::Check, seconds(1))]);
            now += seconds(1);
            assert_eq!(back_off.recovering(now).count(), 0, "after {minutes} min");
        }
        now += seconds(3600);
        back_off.left(Fault::Check, now);
        assert_eq!(back_off.recovering(now).collect::<Vec<_>>(), [(Fault::Check, seconds(60))]);
        back_off.leads();
        assert_eq!(back_off.recovering(now).count(), 0);
        back_off.left(Fault::Check, now + seconds(1));
        assert_eq!(back_off.recovering(now + seconds(1)).collect::<Vec<_>>(), [(Fault::Check, seconds(120))]);
        back_off.left(Fault::Draining, now);
        assert_eq!(back_off.recovering(now).count(), 1);

        let recovering = FitnessReport { recovering: [Fault::Check].into(), ..report(7, &[]) };
        assert!(own(7, &[key(Fault::Check)]).in_favour_of(&recovering).is_empty());
        let both = own(7, &[key(Fault::Check), key(VIP)]);
        assert_eq!(both.in_favour_of(&recovering), [VIP].into());
    }
}
