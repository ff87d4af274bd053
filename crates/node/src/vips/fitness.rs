//! Whether this member should hold virtual IPs: looks around, and tells the owner what it finds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use trestle_dataplane::DataPlane;
use trestle_engine::ownership::{Fault, FaultKey, OwnFaults, OwnershipEvent};
use trestle_model::MemberId;

use super::command::VipCommand;
use super::faults;
use super::shared::{Faults, Shared};
use super::succession::{Other, Succession};
use crate::events::{Event as Happened, Journal};

/// Time between two looks. A fault costs much more time than this, and a look much less.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How long this member alone must have seen every backend of a pool dead. When backends really die, members find out one after
/// another, up to some check intervals apart, and the virtual IPs need not move.
const ISOLATED_FOR: Duration = Duration::from_secs(10);

/// While there are no virtual IPs, only one look out of this many is made.
const IDLE_ROUNDS: u32 = 4;

/// What the looks need.
pub(super) struct Surroundings {
    pub(super) plane: Arc<DataPlane>,
    pub(super) succession: Succession,
    pub(super) journal: Journal,
    pub(super) commands: Sender<VipCommand>,
}

/// What is known from one look to the next.
#[derive(Default)]
struct Watch {
    own: OwnFaults,
    /// The reasons to leave that the machine was told.
    told: BTreeSet<Fault>,
    isolated_since: Option<Instant>,
    /// What the data plane was told: whether this member is drained, and by when connections end.
    drained: (bool, Option<Duration>),
}

/// Looks until the owner has ended.
pub(super) async fn watch(around: Surroundings) {
    let mut watch = Watch::default();
    let mut round = IDLE_ROUNDS - 1;
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        round = (round + 1) % IDLE_ROUNDS;
        if round != 0 && around.succession.local.consensus.view().borrow().state.vips.is_empty() {
            continue;
        }
        if !watch.look(&around).await {
            return;
        }
    }
}

impl Watch {
    /// Looks once; false when the owner has ended.
    async fn look(&mut self, around: &Surroundings) -> bool {
        let Surroundings { plane, succession, journal, commands } = around;
        let Succession { local, vips, fitness, .. } = succession;
        // The others are asked before this member examines itself: the configuration that they had in force is in force here by
        // then, or their answers are not compared. The operator's check is an exception. What many machines share fails on all of
        // them at about the same time, and an older answer says nothing about a failure that came while it was awaited.
        let failing = !vips.shared.status().checks.is_empty();
        let others = if local.leads() { succession.ask().await } else { Vec::new() };
        let (revision, mut faults) = fitness.faults();
        self.add_isolation(&succession.isolated(&others), &mut faults);
        let known = |key: &&FaultKey| failing || key.fault != Fault::Check;
        self.own.observe(revision, &faults.keys().filter(known).cloned().collect());
        show(&vips.shared, journal, faults);
        let (targets, reasons) = self.decide(succession, &others);
        let gone: Vec<Fault> = self.told.difference(&reasons).copied().collect();
        let come: Vec<Fault> = reasons.difference(&self.told).copied().collect();
        self.told = reasons;
        // Faults that are gone come first and new ones last, so that this member never hands over for a fault that is gone, or to a
        // member that cannot take over.
        let first = gone.into_iter().map(|fault| OwnershipEvent::Fault { fault, present: false });
        let last = come.into_iter().map(|fault| OwnershipEvent::Fault { fault, present: true });
        let goes_on = tell(commands, first.chain([OwnershipEvent::Targets(targets)]).chain(last));
        // A member that serves virtual IPs goes on accepting connections, even when it is drained.
        let drain = match local.drain() {
            Some(timeout) if !vips.holds_any() => (true, timeout),
            _ => (false, None),
        };
        if std::mem::replace(&mut self.drained, drain) != drain {
            plane.drain(drain.0, drain.1);
        }
        goes_on
    }

    /// `alone` are the pools of which this member alone sees every backend dead.
    fn add_isolation(&mut self, alone: &[String], faults: &mut Faults) {
        self.isolated_since = self.isolated_since.filter(|_| !alone.is_empty());
        if alone.is_empty() || self.isolated_since.get_or_insert_with(Instant::now).elapsed() < ISOLATED_FOR {
            return;
        }
        for key in faults::dead(alone) {
            let pool = key.subject.strip_prefix("pools/").unwrap_or(&key.subject);
            let words = format!("it alone sees every backend of pool \"{pool}\" dead");
            faults.insert(key, words);
        }
    }

    /// To whom the virtual IPs can go, and for which reasons they should.
    fn decide(&self, succession: &Succession, others: &[Other]) -> (Vec<MemberId>, BTreeSet<Fault>) {
        if !succession.local.leads() {
            return (Vec::new(), BTreeSet::new());
        }
        let voters = succession.local.consensus.targets();
        let mut fitter = Vec::new();
        let mut reasons = BTreeSet::new();
        for id in &voters {
            let Some(other) = others.iter().find(|other| other.id == *id) else { continue };
            // A leader whose log is not written cannot record a release, which the machine waits for. `log_watch` handles that case.
            let mut found = self.own.in_favour_of(&other.report);
            found.remove(&Fault::Log);
            if !found.is_empty() {
                fitter.push(*id);
                reasons.extend(found);
            }
        }
        // A leader that leaves because of a fault hands over to a member without that fault.
        if fitter.is_empty() {
            (succession.successors(others, &self.own), reasons)
        } else {
            (fitter, reasons)
        }
    }
}

/// Tells the owner; false when it has ended.
fn tell(commands: &Sender<VipCommand>, events: impl IntoIterator<Item = OwnershipEvent>) -> bool {
    events.into_iter().all(|event| commands.send(VipCommand::Event(event)).is_ok())
}

/// Shows the present faults, before the machine acts on them.
fn show(shared: &Shared, journal: &Journal, new: Faults) {
    let mut status = shared.status();
    let known = std::mem::replace(&mut status.faults, new);
    let (come, none): (Vec<String>, bool) = (
        status
            .faults
            .iter()
            .filter(|(key, _)| !known.contains_key(*key))
            .map(|(_, words)| words.clone())
            .collect(),
        status.faults.is_empty(),
    );
    drop(status);
    for why in come {
        journal.emit(&Happened::Unfit { why });
    }
    if none && !known.is_empty() {
        journal.emit(&Happened::Fit);
    }
}
