//! Commands: what the log holds, and what applying one answers.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::Actor;
use crate::address::HostPort;
use crate::authority::CrossCertificate;
use crate::change::ChangeKind;
use crate::configuration::{Configuration, Restored};
use crate::defaults::{FEATURE_LEVEL_FIRST, FEATURE_LEVEL_IDENTITIES, REQUEST_ID_MAX};
use crate::document::{Document, Expected, Operation, ResourceName};
use crate::join_token::{JoinTokenSpec, SecretHash, TokenId};
use crate::key_pin::KeyPin;
use crate::listener::Listener;
use crate::member::{ClusterId, Member, MemberId, MemberSpec};
use crate::name::{MemberName, PoolName, UserName};
use crate::pool::{Backend, Pool};
use crate::revision::Revision;
use crate::sockets::MemberSockets;
use crate::tenure::Tenure;
use crate::transport::{FoundingIdentities, TransportSecurity};
use crate::user::{UserKey, UserSpec};
use crate::vip::Vip;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// When, by the clock of the leader that wrote it: milliseconds since the beginning of 1970, UTC. Times of later entries may
    /// be earlier: leaders change, clocks differ, and one may be set back. Only the log orders what happened.
    pub time_ms: u64,
    /// The member that took it from a client, or wanted it by itself; `None` before it had an id.
    pub member: Option<MemberId>,
    /// The client's address; `None` for what a member wants by itself, and for a client on the same machine that has none.
    pub client: Option<IpAddr>,
    /// Who asked for it; `None` for what a member wants by itself, and for a client that proved nothing of itself.
    pub actor: Option<Actor>,
}

/// One change to the replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Gives the cluster its identity and its first member, which gets id 1.
    FoundCluster {
        /// The identity.
        cluster_id: ClusterId,
        /// The first member.
        member: MemberSpec,
        /// Its authority and its first member's key; `None` from a program that makes none.
        identities: Option<FoundingIdentities>,
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
        /// The highest feature level that its program knows.
        feature_level_max: u32,
    },
    /// Changes resources, all of them under one revision or none; at most 4096 operations.
    Batch(Arc<[Operation]>),
    /// Begins or ends the draining of a member.
    DrainMember {
        /// The member.
        name: MemberName,
        /// Whether it is to drain.
        draining: bool,
        /// Time after which connections that are left are closed.
        timeout: Option<Duration>,
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
    /// Raises the feature level: every member has said that it knows this one. Proposed by the leader.
    RaiseLevel {
        /// The new level.
        level: u32,
    },
    /// Adds a key to those that a member may show, in front of the others.
    PinMemberKey {
        /// The member.
        id: MemberId,
        /// The key.
        key: KeyPin,
    },
    /// Changes what the members' ports accept.
    SetTransport(TransportSecurity),
    /// Makes a token by which members join.
    PutToken {
        /// The token.
        token: JoinTokenSpec,
        /// The time by the clock of whoever proposes it, in milliseconds since the beginning of 1970: what has expired by then goes.
        time_ms: u64,
    },
    /// Deletes a token: nobody joins by it from then on.
    DeleteToken(TokenId),
    /// Takes in a member that has a token: takes one use of it, allocates the member's id, and records its key. With a key that has
    /// joined before it is answered as then, and takes no use. Proposed by the leader.
    JoinMember {
        /// The member.
        spec: MemberSpec,
        /// Its key.
        key: KeyPin,
        /// Its token.
        token: TokenId,
        /// The hash of what it has shown as the token's secret.
        secret_hash: SecretHash,
        /// The time by the clock of the leader, in milliseconds since the beginning of 1970, by which the token may have expired.
        time_ms: u64,
    },
    /// Notes that a member has the key of an authority in a file. Proposed by the leader.
    NoteKeyHolder {
        /// The authority's generation.
        generation: u32,
        /// The member.
        member: MemberId,
    },
    /// Adds an authority that is believed from then on, and signs nothing yet. Proposed by the leader.
    AddAuthority {
        /// Its generation, one more than the newest has.
        generation: u32,
        /// Its certificate, in DER.
        certificate: Arc<[u8]>,
        /// The one that the authority before has signed for its key, if anybody had that one's key.
        cross: Option<CrossCertificate>,
        /// The member that has made its key, and has it in a file; `None` for an external one.
        maker: Option<MemberId>,
    },
    /// Makes the authority of this generation the one that signs; the one before is believed further. Proposed by the leader.
    ActivateAuthority(u32),
    /// Has the authority of this generation believed no more, and forgets the tokens that lead to it. Proposed by the leader.
    RetireAuthority(u32),
    /// Makes a user what it says.
    PutUser {
        /// The user.
        user: UserSpec,
        /// What must be there before.
        expected: Expected,
    },
    /// Deletes a user: from then on its certificates are refused.
    DeleteUser {
        /// The user.
        name: UserName,
        /// Revision that it must have, if any.
        expected: Option<Revision>,
    },
    /// Notes what time it is by the clocks of a quorum of the voters. Proposed by the leader.
    NoteTime {
        /// Milliseconds since the beginning of 1970, UTC.
        time_ms: u64,
    },
    /// Notes that a new certificate was signed for a key that a user has already. Asked for by the user itself.
    NoteUserCertificate {
        /// The user.
        user: UserName,
        /// The key, with what is known of the certificate.
        key: UserKey,
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
    /// One operation, as a batch.
    fn one(operation: Operation) -> Self {
        Self::Batch([operation].into())
    }

    /// Makes a resource that must not be there.
    pub fn create(document: impl Into<Document>) -> Self {
        Self::one(Operation::create(document))
    }

    /// Makes a resource what the document says, whatever is there.
    pub fn put(document: impl Into<Document>) -> Self {
        Self::one(Operation::put(document))
    }

    /// Takes a resource away, at whatever revision.
    pub fn delete(resource: impl Into<ResourceName>) -> Self {
        Self::one(Operation::delete(resource))
    }

    /// The documents that it would put, in its order.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        let (operations, whole): (&[Operation], &[Document]) = match self {
            Self::Batch(operations) => (operations, &[]),
            Self::Restore { configuration, .. } => (&[], &configuration.0),
            _ => (&[], &[]),
        };
        let put = operations.iter().filter_map(|operation| match operation {
            Operation::Put { document, .. } => Some(document),
            Operation::Delete { .. } => None,
        });
        put.chain(whole)
    }

    /// Whether a client asks for it, so that any member may pass it on. The others note what a leader itself has found or done,
    /// and only that leader proposes them.
    pub const fn is_clients(&self) -> bool {
        match self {
            Self::Batch(_)
            | Self::DrainMember { .. }
            | Self::Restore { .. }
            | Self::StagePiece { .. }
            | Self::ApplyStaged { .. }
            | Self::PutUser { .. }
            | Self::DeleteUser { .. }
            | Self::NoteUserCertificate { .. }
            | Self::PinMemberKey { .. }
            | Self::SetTransport(_)
            | Self::PutToken { .. }
            | Self::DeleteToken(_) => true,
            Self::FoundCluster { .. }
            | Self::AddMember(_)
            | Self::RemoveMember(_)
            | Self::Recover { .. }
            | Self::UpdateMember { .. }
            | Self::NoteStart { .. }
            | Self::RaiseLevel { .. }
            | Self::JoinMember { .. }
            | Self::NoteKeyHolder { .. }
            | Self::AddAuthority { .. }
            | Self::ActivateAuthority(_)
            | Self::RetireAuthority(_)
            | Self::NoteTime { .. }
            | Self::TakeVips { .. }
            | Self::ReleaseVips { .. } => false,
        }
    }

    /// Whether it changes who is who and how they connect, which makes a revision without changing a resource.
    pub(crate) const fn is_about_identities(&self) -> bool {
        matches!(
            self,
            Self::PutUser { .. }
                | Self::DeleteUser { .. }
                | Self::NoteUserCertificate { .. }
                | Self::PinMemberKey { .. }
                | Self::SetTransport(_)
                | Self::PutToken { .. }
                | Self::DeleteToken(_)
                | Self::JoinMember { .. }
                | Self::NoteKeyHolder { .. }
                | Self::AddAuthority { .. }
                | Self::ActivateAuthority(_)
                | Self::RetireAuthority(_)
        )
    }

    /// The least feature level at which it may be applied: every member knows it then.
    pub const fn feature_level(&self) -> u32 {
        match self {
            Self::RaiseLevel { level } => *level,
            Self::FoundCluster { identities: Some(_), .. }
            | Self::PinMemberKey { .. }
            | Self::SetTransport(_)
            | Self::PutToken { .. }
            | Self::DeleteToken(_)
            | Self::JoinMember { .. }
            | Self::NoteKeyHolder { .. }
            | Self::AddAuthority { .. }
            | Self::ActivateAuthority(_)
            | Self::RetireAuthority(_)
            | Self::NoteTime { .. }
            | Self::NoteUserCertificate { .. }
            | Self::PutUser { .. }
            | Self::DeleteUser { .. } => FEATURE_LEVEL_IDENTITIES,
            _ => FEATURE_LEVEL_FIRST,
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
    /// What became of each resource of a batch that is about several, in the order of its operations; `None` for one that is as
    /// it was.
    Batch(Arc<[Option<ChangeKind>]>),
    /// The resource is gone.
    Deleted,
    /// A record was made that is no resource.
    Noted,
}
