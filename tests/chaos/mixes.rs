//! Short mixes, each of some kinds of faults: what CI runs.

use trestle_testkit::faults::FaultKind;

use crate::run::{Mix, run};

/// Where another seed comes from.
const SEED: &str = "TRESTLE_CHAOS_SEED";

/// Processes that die, stop and stand still, and networks that part.
const PROCESSES_AND_NETWORKS: [FaultKind; 14] = [
    FaultKind::Kill,
    FaultKind::QuickRestart,
    FaultKind::KillAll,
    FaultKind::Terminate,
    FaultKind::Pause,
    FaultKind::Freeze,
    FaultKind::CutOff,
    FaultKind::Mute,
    FaultKind::Deaf,
    FaultKind::CutFromNext,
    FaultKind::Loss(10),
    FaultKind::Loss(30),
    FaultKind::Unplug,
    FaultKind::Move,
];

/// Disks that fail, fill up, are slow, lose power and go back in time.
const DISKS: [FaultKind; 7] = [
    FaultKind::DiskFull,
    FaultKind::DiskError,
    FaultKind::SlowDisk,
    FaultKind::PowerCut,
    FaultKind::PutBack,
    FaultKind::Kill,
    FaultKind::CutOff,
];

/// What others do to the machines: firewalls, addresses, clocks, crowds, and networks without order.
const MACHINES: [FaultKind; 8] = [
    FaultKind::Disorder,
    FaultKind::FlushFirewall,
    FaultKind::FlushChain,
    FaultKind::ForeignOwner,
    FaultKind::ClockAhead,
    FaultKind::Flood,
    FaultKind::NoDescriptors,
    FaultKind::Pause,
];

/// Kinds of faults by name, which go together: what one takes slows others down.
pub(crate) const GROUPS: [(&str, &[FaultKind]); 3] =
    [("processes_and_networks", &PROCESSES_AND_NETWORKS), ("disks", &DISKS), ("machines", &MACHINES)];

/// The seed of a mix: that of the environment, or its own.
fn seed(own: u64) -> u64 {
    std::env::var(SEED).map_or(own, |seed| seed.parse().expect("TRESTLE_CHAOS_SEED is a number"))
}

fn short(group: usize, own: u64, episodes: usize) {
    let (seed, name) = (seed(own), GROUPS[group].0);
    let repeat = format!("{SEED}={seed} cargo test --test chaos -- --exact mixes::{name} --nocapture");
    if let Some(tally) = run(&Mix::of_seed(GROUPS[group], seed, episodes, repeat)) {
        eprintln!("{tally}");
    }
}

#[test]
fn processes_and_networks() {
    short(0, 1, 8);
}

#[test]
fn disks() {
    short(1, 2, 6);
}

#[test]
fn machines() {
    short(2, 4, 6);
}
