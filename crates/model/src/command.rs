//! Commands: what the log holds, and what applying one answers.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::HostPort;
use crate::configuration::{Configuration, Restored};
use crate::defaults::REQUEST_ID_MAX;
use crate::listener::{Listener, ListenerPatch, ListenerSpec};
use crate::member::{ClusterId, Member, MemberId, MemberSpec};
use crate::name::{BackendName, ListenerName, MemberName, PoolName, VipName};
use crate::pool::{Backend, BackendPatch, BackendSpec, Pool, PoolPatch, PoolSpec};
use crate::sockets::MemberSockets;
use crate::state::Revision;
use crate::tenure::Tenure;
use crate::vip::{Vip, VipPatch, VipSpec};

/// A client's name for one request, so that a repeated request is applied once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Parses a request id; the error is the broken rule.
    ///
    /// # Errors
    /// When it is empty, longer than 64 characters, or has anything but printable ASCII without spaces.
    pub fn parse(text: &str) -> Result<Self, String> {
        let good = (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(format!("must be 1 to {REQUEST_ID_MAX} printable ASCII characters without spaces"))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request that named itself, so that it can be recognised when it comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The client's id for the request.
    pub id: RequestId,
    /// Fingerprint of the request's content, computed by the member that received it; tells a repeated request from
    /// another one under the same id.
    pub fingerprint: u64,
}

/// A command as it is proposed, with the request that makes it safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The client's request, if it named itself.
    pub request: Option<Request>,
    /// Where it came from. Decides nothing: it is for those who look at what changed.
    pub origin: Option<Origin>,
    /// What to do.
    pub command: Command,
}

/// Where a proposal came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// When, by the clock of the member that took it: milliseconds since the beginning of 1970, UTC.
    pub time_ms: u64,
    /// The member that took it from a client, or wanted it by itself; `None` before it had an id.
    pub member: Option<MemberId>,
    /// The client's address; `None` for what a member wants by itself or takes from another member, and for a client on the
    /// same machine that has none.
    pub client: Option<IpAddr>,
}

/// One change to the replicated state. `expect` is the revision that the caller last saw of the resource; when it is
/// given and the resource has moved on, the command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Gives the cluster its identity and its first member, which gets id 1.
    FoundCluster {
        /// The identity.
        cluster_id: ClusterId,
        /// The first member.
        member: MemberSpec,
    },
    /// Allocates an id for a new member.
    AddMember(MemberSpec),
    /// Forgets a member; its id is never used again.
    RemoveMember(MemberId),
    /// Changes where a member is reached.
    UpdateMember {
        /// The member.
        id: MemberId,
        /// Where other members reach it, if that changes.
        peer_address: Option<HostPort>,
        /// Where its admin API is reached, if that changes.
        admin_address: Option<HostPort>,
    },
    /// Notes that a member's process has started.
    NoteStart {
        /// The member.
        member: MemberId,
        /// The number that the process drew.
        start: u64,
        /// The number that was recorded when it was asked for; 0 for none. Refused when another one is by now.
        replaces: u64,
        /// Where it listens; `None` from one that does not say.
        sockets: Option<Arc<MemberSockets>>,
    },
    /// Creates a pool.
    CreatePool {
        /// Name of the new pool.
        name: PoolName,
        /// Its settings.
        spec: PoolSpec,
    },
    /// Changes a pool's settings.
    UpdatePool {
        /// The pool.
        name: PoolName,
        /// What to change.
        patch: PoolPatch,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Deletes a pool with its backends; refused while a listener leads to it.
    DeletePool {
        /// The pool.
        name: PoolName,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Adds a backend to a pool.
    CreateBackend {
        /// The pool.
        pool: PoolName,
        /// Name of the new backend.
        name: BackendName,
        /// Its settings.
        spec: BackendSpec,
    },
    /// Changes a backend's settings.
    UpdateBackend {
        /// The pool.
        pool: PoolName,
        /// The backend.
        name: BackendName,
        /// What to change.
        patch: BackendPatch,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Removes a backend; its connections are closed.
    DeleteBackend {
        /// The pool.
        pool: PoolName,
        /// The backend.
        name: BackendName,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Creates a listener.
    CreateListener {
        /// Name of the new listener.
        name: ListenerName,
        /// Its settings.
        spec: ListenerSpec,
    },
    /// Changes a listener's settings.
    UpdateListener {
        /// The listener.
        name: ListenerName,
        /// What to change.
        patch: ListenerPatch,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Deletes a listener; established connections go on.
    DeleteListener {
        /// The listener.
        name: ListenerName,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Begins or ends the draining of a member.
    DrainMember {
        /// The member.
        name: MemberName,
        /// Whether it is to drain.
        draining: bool,
        /// Time after which connections that are left are closed.
        timeout: Option<Duration>,
    },
    /// Creates a virtual IP.
    CreateVip {
        /// Name of the new virtual IP.
        name: VipName,
        /// Its settings.
        spec: VipSpec,
    },
    /// Changes the settings of a virtual IP.
    UpdateVip {
        /// The virtual IP.
        name: VipName,
        /// What to change.
        patch: VipPatch,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Deletes a virtual IP; refused while a listener accepts connections on its address.
    DeleteVip {
        /// The virtual IP.
        name: VipName,
        /// Revision that the caller last saw.
        expect: Option<Revision>,
    },
    /// Makes pools, backends, listeners and virtual IPs exactly what a document says, all at once, and leaves the members
    /// alone.
    Restore {
        /// The document.
        configuration: Arc<Configuration>,
        /// Also where there is a configuration already.
        replace: bool,
    },
    /// Keeps a piece of a proposal that is too large for one entry, until [`Command::ApplyStaged`]. Changes nothing else.
    StagePiece {
        /// Which proposal it is a piece of.
        upload: u64,
        /// Its place; the first one, 0, drops the pieces of any other proposal.
        number: u32,
        /// The piece.
        bytes: Arc<[u8]>,
    },
    /// Applies the proposal whose pieces were staged, which is a [`Command::Restore`].
    ApplyStaged {
        /// Which proposal.
        upload: u64,
        /// How many pieces it has.
        pieces: u32,
    },
    /// Makes one member all that is left of the cluster; every other is forgotten. Never proposed: written into the log of a
    /// stopped member when a quorum is lost for good.
    Recover {
        /// The member.
        member: MemberId,
        /// Tells members of before from members of after; grows.
        recovery: u64,
        /// Tells it from another recovery of the same number; 0 for nothing, as before there were draws.
        draw: u64,
    },
    /// Makes the leader of a term the holder of all virtual IPs. Proposed by that leader, in that term only.
    TakeVips {
        /// Who, in which term, and how long its kernel may serve them without hearing from a quorum.
        tenure: Tenure,
        /// When it was proposed: milliseconds since the beginning of 1970, UTC, for the history.
        time_ms: u64,
        /// Why, for the history.
        reason: Arc<str>,
    },
    /// Notes that the holder of a term has let go of all of them. Proposed by itself, in that term only.
    ReleaseVips {
        /// The holder.
        member: MemberId,
        /// Its term.
        term: u64,
        /// When it was proposed, as above.
        time_ms: u64,
        /// Why, for the history.
        reason: Arc<str>,
    },
}

impl Command {
    /// Whether a client asks for it, so that any member may pass it on. The others note what a leader itself has found or done,
    /// and only that leader proposes them.
    pub const fn is_clients(&self) -> bool {
        match self {
            Self::CreatePool { .. }
            | Self::UpdatePool { .. }
            | Self::DeletePool { .. }
            | Self::CreateBackend { .. }
            | Self::UpdateBackend { .. }
            | Self::DeleteBackend { .. }
            | Self::CreateListener { .. }
            | Self::UpdateListener { .. }
            | Self::DeleteListener { .. }
            | Self::DrainMember { .. }
            | Self::CreateVip { .. }
            | Self::UpdateVip { .. }
            | Self::DeleteVip { .. }
            | Self::Restore { .. }
            | Self::StagePiece { .. }
            | Self::ApplyStaged { .. } => true,
            Self::FoundCluster { .. }
            | Self::AddMember(_)
            | Self::RemoveMember(_)
            | Self::Recover { .. }
            | Self::UpdateMember { .. }
            | Self::NoteStart { .. }
            | Self::TakeVips { .. }
            | Self::ReleaseVips { .. } => false,
        }
    }

    /// The term in which a leader proposes it, if it is of one term only. A log entry of an earlier term cannot carry it.
    pub const fn term(&self) -> Option<u64> {
        match self {
            Self::TakeVips { tenure, .. } => Some(tenure.term),
            Self::ReleaseVips { term, .. } => Some(*term),
            _ => None,
        }
    }
}

/// What a command that was accepted made of its resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The cluster was founded by this member.
    Founded(Arc<Member>),
    /// The member as it is now.
    Member(Arc<Member>),
    /// The pool as it is now, with the number of its backends.
    Pool(Arc<Pool>, usize),
    /// The backend as it is now.
    Backend(PoolName, Arc<Backend>),
    /// The listener as it is now.
    Listener(Arc<Listener>),
    /// The virtual IP as it is now.
    Vip(Arc<Vip>),
    /// The configuration is what the document says.
    Restored(Restored),
    /// The resource is gone.
    Deleted,
    /// A record was made that is no resource.
    Noted,
}
