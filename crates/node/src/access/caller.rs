//! Who makes a call, and by what way it came.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use tonic::{Request, Status};
use trestle_api::convert;
use trestle_api::peer_caller::PeerCaller;
use trestle_model::{Actor, MemberId, Role};

use super::Entrance;
use crate::accept::ConnectionOrigin;

/// Who makes a call. Only [`AccessControl`](super::AccessControl) makes one for a call that comes over a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// By what way the call came.
    pub(crate) via: Via,
    /// Who it is.
    pub(crate) subject: Subject,
}

/// Who somebody is, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Whoever reaches the admin port over TCP without TLS, where that is let in: it proves nothing, and has all rights.
    Unproven,
    /// A member of the cluster, or whoever reaches the port of the peers: which one it is has been proved, or not.
    Peer(PeerCaller),
    /// Somebody with a role.
    Known(Actor),
    /// Somebody without one: who that is, and what to do about it.
    Stranger(String),
}

/// By what way a call came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Via {
    /// Over the admin port, from this address.
    AdminPort(SocketAddr),
    /// Over the UNIX socket of the admin API.
    UnixSocket,
    /// Over the peer port, from this address: what a member wants by itself, or what it was asked for.
    PeerPort {
        /// Where the connection comes from.
        address: Option<SocketAddr>,
        /// For whom the member calls; `None` for itself.
        for_: Option<OnBehalfOf>,
    },
}

/// The caller whose call another member has passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnBehalfOf {
    /// The member that took the call.
    pub(crate) member: MemberId,
    /// The address of its caller, if it has one.
    pub(crate) client: Option<IpAddr>,
}

impl Via {
    pub(super) fn new(entrance: Entrance, origin: &ConnectionOrigin) -> Self {
        match (entrance, origin) {
            (Entrance::Admin, ConnectionOrigin::Tcp(address)) => Self::AdminPort(*address),
            (Entrance::Admin, ConnectionOrigin::Unix(_)) => Self::UnixSocket,
            (Entrance::Peer, ConnectionOrigin::Tcp(address)) => {
                Self::PeerPort { address: Some(*address), for_: None }
            }
            (Entrance::Peer, ConnectionOrigin::Unix(_)) => Self::PeerPort { address: None, for_: None },
        }
    }
}

impl Subject {
    /// What it may do of what has a role; `None` for nothing.
    pub(super) fn role(&self) -> Option<Role> {
        match self {
            Self::Unproven | Self::Peer(PeerCaller::Unproven | PeerCaller::Member(_)) => Some(Role::Admin),
            Self::Peer(PeerCaller::Anonymous | PeerCaller::Newer(_) | PeerCaller::Former(_)) => None,
            Self::Known(actor) => Some(actor.role()),
            Self::Stranger(_) => None,
        }
    }
}

impl Caller {
    /// The caller of a request, and its message.
    ///
    /// # Errors
    /// `INTERNAL` for a request that did not pass the interceptor: nothing is answered that nobody has authorised.
    pub(crate) fn take<T>(request: Request<T>) -> Result<(Self, T), Status> {
        let (_, extensions, message) = request.into_parts();
        match extensions.get::<Self>() {
            Some(caller) => Ok((caller.clone(), message)),
            None => Err(Status::internal("the call has no caller")),
        }
    }

    /// The caller of a call that a member has passed on, in place of that member, with the role that it had there; `None` for what the
    /// member had no id for yet.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when the call comes from another member.
    pub(crate) fn on_behalf_of(
        self,
        member: Option<MemberId>,
        client: Option<IpAddr>,
        actor: Option<Actor>,
    ) -> Result<Self, Status> {
        let (Via::PeerPort { address, .. }, Subject::Peer(peer)) = (&self.via, &self.subject) else {
            // Nobody but members passes calls on.
            return Ok(self);
        };
        if let Some(member) = member {
            peer.is(member)?;
        }
        let subject = match (actor, client) {
            (Some(actor), _) => Subject::Known(actor),
            (None, Some(_)) => Subject::Unproven,
            // What the member wants by itself.
            (None, None) => self.subject.clone(),
        };
        let for_ = Some(OnBehalfOf { member: member.unwrap_or(MemberId(0)), client });
        Ok(Self { via: Via::PeerPort { address: *address, for_ }, subject })
    }

    /// Who it has proved to be at the port of the peers.
    pub(crate) fn peer(&self) -> Option<PeerCaller> {
        match self.subject {
            Subject::Peer(peer) => Some(peer),
            Subject::Unproven | Subject::Known(_) | Subject::Stranger(_) => None,
        }
    }

    /// The resource name of the user that calls, if it has shown a certificate.
    pub(super) fn user_name(&self) -> Option<String> {
        match &self.subject {
            Subject::Known(Actor::User { name, .. }) => Some(convert::user_name(name)),
            Subject::Known(_) | Subject::Unproven | Subject::Peer(_) | Subject::Stranger(_) => None,
        }
    }

    /// The member that calls, if it has proved by its key which one it is.
    pub(crate) fn proven_member(&self) -> Option<MemberId> {
        match self.peer() {
            Some(PeerCaller::Member(id)) => Some(id),
            _ => None,
        }
    }

    /// The other member that took the call from its client; `None` for a call that came here itself.
    pub(crate) fn taken_by(&self) -> Option<MemberId> {
        match &self.via {
            Via::PeerPort { for_, .. } => for_.as_ref().map(|caller| caller.member).filter(|id| id.0 != 0),
            Via::AdminPort(_) | Via::UnixSocket => None,
        }
    }

    /// The address of the client that wants what is asked for; `None` for what a member wants by itself and for a client of
    /// the same machine that has none.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        match &self.via {
            Via::AdminPort(address) => Some(address.ip().to_canonical()),
            Via::UnixSocket => None,
            Via::PeerPort { for_, .. } => for_.as_ref().and_then(|caller| caller.client),
        }
    }

    /// Who it is, where it has a role of its own: what the log and other members are told.
    pub(crate) fn actor(&self) -> Option<&Actor> {
        match &self.subject {
            Subject::Known(actor) => Some(actor),
            Subject::Unproven | Subject::Peer(_) | Subject::Stranger(_) => None,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.subject, self.client()) {
            (Subject::Known(actor), _) => actor.fmt(f),
            (Subject::Stranger(_), _) => f.write_str("a user without a role"),
            (Subject::Peer(PeerCaller::Former(id)), _) => write!(f, "the removed member {id}"),
            (Subject::Peer(PeerCaller::Member(id) | PeerCaller::Newer(id)), _) => write!(f, "member {id}"),
            (Subject::Peer(PeerCaller::Anonymous), _) => f.write_str("somebody without a certificate"),
            (Subject::Peer(PeerCaller::Unproven), _) => f.write_str("a member"),
            (Subject::Unproven, Some(address)) => address.fmt(f),
            (Subject::Unproven, None) => f.write_str("a client"),
        }
    }
}
