//! Faults of members, their networks and their disks: one vocabulary, and who makes plans with it.
//!
//! A plan follows from its seed alone and says nothing about how a fault is made. [`crate::lab`] makes them between network
//! namespaces.

mod disk;
mod plan;
mod syscalls;

use std::fmt;
use std::time::Duration;

pub(crate) use disk::remove_orphans;
pub use disk::{LoopDisk, copy_tree, replace_tree};
pub use plan::{Menu, plan};
pub use syscalls::{SyncFault, Tampered, tamper};

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// SIGKILL; started again when the fault ends.
    Kill,
    /// SIGKILL, and started again at once: well within a lease.
    QuickRestart,
    /// SIGTERM, as service managers stop programs; started again when the fault ends.
    Terminate,
    /// SIGKILL to all members at one moment, all of which are started again at once.
    KillAll,
    /// SIGSTOP, and SIGCONT when the fault ends.
    Pause,
    /// Frozen by its control group.
    Freeze,
    /// It and the other members hear nothing of one another.
    CutOff,
    /// The others do not hear it, which hears them.
    Mute,
    /// It does not hear the others, which hear it.
    Deaf,
    /// It and the next member hear nothing of one another; both hear the third.
    CutFromNext,
    /// Its cable is out of the switch.
    Unplug,
    /// Of the frames between it and the other members so many in a hundred are lost.
    Loss(u8),
    /// Frames between it and everybody come late, in another order, and some twice.
    Disorder,
    /// Its operator moves the virtual IP to it.
    Move,
    /// The rules that fence its virtual IP are thrown away, with all others of the machine.
    FlushFirewall,
    /// One chain of the rules that fence its virtual IP is emptied.
    FlushChain,
    /// Another machine takes the virtual address.
    ForeignOwner,
    /// Its wall clock is an hour ahead.
    ClockAhead,
    /// Many clients connect to it, and send nothing.
    Flood,
    /// It cannot open any more files.
    NoDescriptors,
    /// Its disk is full.
    DiskFull,
    /// Its disk answers writes that are to be durable with an error.
    DiskError,
    /// Its disk takes a second for each write that is to be durable.
    SlowDisk,
    /// Its machine loses power: what its disk was not told to keep is gone.
    PowerCut,
    /// It comes back with the disk of some time before.
    PutBack,
}

impl FaultKind {
    /// Whether the member loses what it had promised to keep, as a voter that is lost.
    pub fn loses_its_disk(self) -> bool {
        self == Self::PutBack
    }

    /// A short name, by which faults are counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::QuickRestart => "quick restart",
            Self::Terminate => "stop",
            Self::KillAll => "kill of all",
            Self::Pause => "pause",
            Self::Freeze => "freeze",
            Self::CutOff => "cut off",
            Self::Mute => "not heard",
            Self::Deaf => "hears nothing",
            Self::CutFromNext => "cut from one",
            Self::Unplug => "unplugged",
            Self::Loss(_) => "loss",
            Self::Disorder => "disorder",
            Self::Move => "move",
            Self::FlushFirewall => "firewall flushed",
            Self::FlushChain => "chain flushed",
            Self::ForeignOwner => "foreign owner",
            Self::ClockAhead => "clock ahead",
            Self::Flood => "flood",
            Self::NoDescriptors => "no descriptors",
            Self::DiskFull => "disk full",
            Self::DiskError => "disk error",
            Self::SlowDisk => "slow disk",
            Self::PowerCut => "power cut",
            Self::PutBack => "disk put back",
        }
    }
}

/// Whom a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultTarget {
    /// The member in this place.
    Member(usize),
    /// The one that serves the virtual IP when the fault begins.
    Holder,
}

/// One fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedFault {
    /// When it begins, since the beginning of its episode.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub kind: FaultKind,
    /// Whom it is for.
    pub target: FaultTarget,
}

impl PlannedFault {
    /// When it ends, since the beginning of its episode.
    pub fn end(&self) -> Duration {
        self.at + self.lasts
    }
}

impl fmt::Display for PlannedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.name();
        write!(f, "{:5} ms, for {:5} ms: {kind}", self.at.as_millis(), self.lasts.as_millis())?;
        if let FaultKind::Loss(percent) = self.kind {
            write!(f, " of {percent} %")?;
        }
        match self.target {
            FaultTarget::Member(number) => write!(f, " of m{}", number + 1),
            FaultTarget::Holder => write!(f, " of the holder"),
        }
    }
}

/// Faults that overlap. Before the next episode everything heals and must be whole again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// In the order in which they begin.
    pub faults: Vec<PlannedFault>,
}
