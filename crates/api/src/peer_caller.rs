//! Who has called at the port of the peers, as far as the connection has proved it: left with each request by whoever accepts connections,
//! and read by the services.

use tonic::{Request, Status};
use trestle_model::MemberId;

use crate::status::{self, Failure};

/// Who has called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCaller {
    /// Whoever reaches the port: without TLS, where that is let in.
    Unproven,
    /// Somebody without a certificate, as a process that wants to join.
    Anonymous,
    /// A member.
    Member(MemberId),
    /// A member by its certificate alone: the log here does not have it yet.
    Newer(MemberId),
    /// One that was a member.
    Former(MemberId),
}

impl PeerCaller {
    /// The caller of a request.
    ///
    /// # Errors
    /// `INTERNAL` for a request that nobody has left one with: nothing is answered that nobody has authorised.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let known = request.extensions().get().copied();
        known.ok_or_else(|| Status::internal("the call has no caller"))
    }

    /// Whether the caller may be the member that a call is made in the name of.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when it has proved to be another one, or nobody.
    pub fn is(self, claimed: MemberId) -> Result<(), Status> {
        let proved = match self {
            Self::Unproven => return Ok(()),
            Self::Member(id) | Self::Newer(id) | Self::Former(id) if id == claimed => return Ok(()),
            Self::Member(id) | Self::Newer(id) | Self::Former(id) => format!("member {id}"),
            Self::Anonymous => "somebody without a certificate".to_owned(),
        };
        let why = format!("{proved} calls in the name of member {claimed}");
        Err(status::failure(&Failure::Denied(why)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tonic::Code;

    use super::*;

    #[test]
    fn only_a_member_itself_calls_in_its_name() {
        let (one, two) = (MemberId(1), MemberId(2));
        for caller in
            [PeerCaller::Unproven, PeerCaller::Member(one), PeerCaller::Newer(one), PeerCaller::Former(one)]
        {
            caller.is(one).unwrap();
        }
        for caller in
            [PeerCaller::Anonymous, PeerCaller::Member(two), PeerCaller::Newer(two), PeerCaller::Former(two)]
        {
            assert_eq!(caller.is(one).unwrap_err().code(), Code::PermissionDenied, "{caller:?}");
        }
        assert_eq!(PeerCaller::of(&Request::new(())).unwrap_err().code(), Code::Internal);
    }
}
