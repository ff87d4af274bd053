//! Who makes a call, and by what way it came.

use std::net::{IpAddr, SocketAddr};

use tonic::{Request, Status};
use trestle_model::MemberId;

use super::Entrance;
use crate::accept::{CallingUser, ConnectionOrigin, UnixCredentials};

/// Who makes a call. Only [`intercept`](super::intercept) makes one for a call that comes over a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// By what way the call came.
    pub(crate) via: Via,
    /// The user that has shown its certificate, with the role that it has now; `None` without TLS.
    pub(crate) user: Option<CallingUser>,
}

/// By what way a call came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Via {
    /// Over the admin port, from this address.
    AdminPort(SocketAddr),
    /// Over a UNIX socket of the admin API, from a process that the kernel describes so, if it does.
    UnixSocket(Option<UnixCredentials>),
    /// Over the peer port, from this address: what a member wants by itself, or what it was asked for.
    PeerPort {
        /// Where the connection comes from.
        address: Option<SocketAddr>,
        /// For whom the member calls; `None` for itself.
        for_: Option<OnBehalfOf>,
    },
}

/// The caller whose call another member has passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnBehalfOf {
    /// The member that took the call.
    pub(crate) member: MemberId,
    /// The address of its caller, if it has one.
    pub(crate) client: Option<IpAddr>,
}

impl Via {
    pub(super) fn new(entrance: Entrance, origin: ConnectionOrigin) -> Self {
        match (entrance, origin) {
            (Entrance::Admin, ConnectionOrigin::Tcp(address)) => Self::AdminPort(address),
            (Entrance::Admin, ConnectionOrigin::Unix(credentials)) => Self::UnixSocket(credentials),
            (Entrance::Peer, ConnectionOrigin::Tcp(address)) => {
                Self::PeerPort { address: Some(address), for_: None }
            }
            (Entrance::Peer, ConnectionOrigin::Unix(_)) => Self::PeerPort { address: None, for_: None },
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

    /// The caller of a call that a member has passed on, in place of that member.
    pub(crate) fn on_behalf_of(self, member: MemberId, client: Option<IpAddr>) -> Self {
        match self.via {
            Via::PeerPort { address, .. } => {
                let via = Via::PeerPort { address, for_: Some(OnBehalfOf { member, client }) };
                Self { via, ..self }
            }
            // Nobody but members passes calls on.
            via => Self { via, ..self },
        }
    }

    /// The other member that took the call from its client; `None` for a call that came here itself.
    pub(crate) fn taken_by(&self) -> Option<MemberId> {
        match &self.via {
            Via::PeerPort { for_, .. } => for_.as_ref().map(|caller| caller.member).filter(|id| id.0 != 0),
            Via::AdminPort(_) | Via::UnixSocket(_) => None,
        }
    }

    /// The address of the client that wants what is asked for; `None` for what a member wants by itself and for a client of
    /// the same machine that has none.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        match &self.via {
            Via::AdminPort(address) => Some(address.ip().to_canonical()),
            Via::UnixSocket(_) => None,
            Via::PeerPort { for_, .. } => for_.as_ref().and_then(|caller| caller.client),
        }
    }
}
