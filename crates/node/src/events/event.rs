//! What may happen on a member, how bad it is, and the words for it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use trestle_dataplane::{self as dataplane, Verdict};
use trestle_model::MemberName;

/// How bad an event is; also the level of its line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// News, good or neutral.
    Info,
    /// Something is worse than it was, and clients need not notice.
    Warning,
    /// Clients are not served, or nothing can be changed.
    Error,
}

/// Something that happened on this member. In words when displayed, for its log and for whoever asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// Something was found out about a backend, a pool or a listener.
    DataPlane(dataplane::Event),
    /// This member leads.
    Leads { term: u64, why: &'static str },
    /// No quorum has been there for so long.
    QuorumLost { silent: Duration },
    /// There is one again, after so long without.
    QuorumBack { after: Duration, leader: MemberName, term: u64 },
    /// Another member has not answered the leader, this one, for so long.
    MemberGone { member: MemberName, silent: Duration },
    /// It answers again, after so long.
    MemberBack { member: MemberName, after: Duration },
    /// Another member is a voter now, or none any more; told by the leader.
    Voter { member: MemberName, votes: bool },
    /// The cluster may ask more of its members than before; told by the leader that raised the level.
    LevelRaised { before: u32, level: u32 },
    /// Something happened in the kernel to a virtual IP, its interface or its fence.
    Kernel(trestle_vip::KernelEvent),
    /// A virtual IP cannot be served here.
    Unserved { vip: IpAddr, why: String },
    /// This member should not hold virtual IPs while another one can.
    Unfit { why: String },
    /// Nothing keeps this member from holding virtual IPs any more.
    Fit,
}

impl Event {
    /// The kind, in words of lower-case letters with hyphens: what is alike has the same.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::DataPlane(dataplane::Event::Verdict { verdict: Verdict::Unhealthy, .. }) => "backend-down",
            Self::DataPlane(dataplane::Event::Verdict { verdict: Verdict::Unknown, .. }) => {
                "backend-unresolved"
            }
            Self::DataPlane(dataplane::Event::Verdict { verdict: Verdict::Healthy, .. }) => "backend-up",
            Self::DataPlane(dataplane::Event::PoolDown { .. }) => "pool-down",
            Self::DataPlane(dataplane::Event::PoolUp { .. }) => "pool-up",
            Self::DataPlane(dataplane::Event::ListenerUnbound { .. }) => "listener-unbound",
            Self::DataPlane(dataplane::Event::ListenerBound { .. }) => "listener-bound",
            Self::Leads { .. } => "leader",
            Self::QuorumLost { .. } => "quorum-lost",
            Self::QuorumBack { .. } => "quorum-back",
            Self::MemberGone { .. } => "member-unreachable",
            Self::MemberBack { .. } => "member-reachable",
            Self::Voter { votes: true, .. } => "member-promoted",
            Self::Voter { votes: false, .. } => "member-demoted",
            Self::LevelRaised { .. } => "feature-level-raised",
            Self::Kernel(event) => of_kernel(event).0,
            Self::Unserved { .. } => "vip-unserved",
            Self::Unfit { .. } => "member-unfit",
            Self::Fit => "member-fit",
        }
    }

    /// How bad it is.
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::DataPlane(dataplane::Event::Verdict {
                verdict: Verdict::Unhealthy | Verdict::Unknown,
                ..
            })
            | Self::MemberGone { .. }
            | Self::MemberBack { .. }
            | Self::Unserved { .. }
            | Self::Unfit { .. } => Severity::Warning,
            Self::DataPlane(dataplane::Event::PoolDown { .. } | dataplane::Event::ListenerUnbound { .. })
            | Self::QuorumLost { .. } => Severity::Error,
            Self::Kernel(event) => of_kernel(event).1,
            Self::DataPlane(_)
            | Self::Leads { .. }
            | Self::QuorumBack { .. }
            | Self::Voter { .. }
            | Self::LevelRaised { .. }
            | Self::Fit => Severity::Info,
        }
    }
}

/// The kind of an event of the kernel, and how bad it is.
fn of_kernel(event: &trestle_vip::KernelEvent) -> (&'static str, Severity) {
    use Severity::{Info, Warning};
    use trestle_vip::KernelEvent as Seen;
    match event {
        Seen::Lapsed(_) => ("vip-lease-expired", Warning),
        Seen::Resumed(_) => ("vip-lease-renewed", Info),
        Seen::AddressLost(_) => ("vip-address-lost", Warning),
        Seen::AddressRestored(_) => ("vip-address-restored", Info),
        Seen::NotRestored(..) => ("vip-address-not-restored", Warning),
        Seen::NotRemoved(..) => ("vip-address-not-removed", Warning),
        Seen::LinkDown(_) => ("interface-down", Warning),
        Seen::LinkUp(_) => ("interface-up", Info),
        Seen::MacChanged(_) => ("interface-mac-changed", Info),
        Seen::Renamed { .. } => ("interface-renamed", Info),
        Seen::InterfaceGone(_) => ("interface-gone", Warning),
        Seen::Conflict { .. } => ("vip-conflict", Warning),
        Seen::FenceRebuilt(_) => ("fence-repaired", Warning),
        Seen::LeftoverRemoved(_) => ("leftovers-removed", Warning),
        Seen::FenceFailed(_) => ("fence-failed", Warning),
        Seen::Slept => ("machine-suspended", Warning),
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| format!("{:.1} s", time.as_secs_f64());
        match self {
            Self::DataPlane(event) => event.fmt(f),
            Self::Leads { term, why } => write!(f, "leads in term {term}: {why}"),
            Self::QuorumLost { silent } => write!(
                f,
                "no quorum for {}: nothing can be changed until a majority of the voters answers; \"trestle status\" names \
                 those that do not",
                seconds(silent)
            ),
            Self::QuorumBack { after, leader, term } => {
                write!(f, "there is a quorum again after {}: {leader} leads in term {term}", seconds(after))
            }
            Self::MemberGone { member, silent } => {
                write!(f, "member {member} has not answered for {}", seconds(silent))
            }
            Self::MemberBack { member, after } => {
                write!(f, "member {member} answers again after {}", seconds(after))
            }
            Self::Voter { member, votes: true } => write!(f, "member {member} is a voter now"),
            Self::Voter { member, votes: false } => write!(f, "member {member} is no voter any more"),
            Self::LevelRaised { before, level } => {
                write!(f, "all members' programs know feature level {level}: raised from {before}")
            }
            Self::Kernel(event) => event.fmt(f),
            Self::Unserved { vip, why } => write!(f, "virtual IP {vip} cannot be served here: {why}"),
            Self::Unfit { why } => {
                write!(f, "this member should not hold virtual IPs while another one can: {why}")
            }
            Self::Fit => f.write_str("nothing keeps this member from holding virtual IPs any more"),
        }
    }
}
