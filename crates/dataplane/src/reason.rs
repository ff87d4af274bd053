//! Why a connection ended.

use std::fmt;

use trestle_engine::CloseCause;

/// Why a connection ended. The list is closed: each has its own counter and its own name in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CloseReason {
    /// Both sides finished; the client was first.
    ClientClosed,
    /// Both sides finished; the backend was first.
    BackendClosed,
    /// The client reset the connection, and so the backend's leg was reset.
    ClientReset,
    /// The backend reset the connection, and so the client's leg was reset.
    BackendReset,
    /// The client stopped answering (keepalive or retransmissions ran out, or the network reports it unreachable).
    ClientLost,
    /// The backend stopped answering, as above.
    BackendLost,
    /// No backend was usable; the client was reset at once.
    NoBackend,
    /// Every backend that was tried refused or timed out; the client was reset.
    ConnectFailed,
    /// This member had no file descriptor, local port or memory left for the backend's leg; the client was reset.
    NoResources,
    /// The backend was removed.
    BackendRemoved,
    /// The backend was disabled.
    BackendDisabled,
    /// This member found the backend unhealthy, and its pool closes connections then.
    BackendDown,
    /// The backend was drained and the deadline passed.
    Drained,
    /// This member stopped and its grace time passed.
    MemberShutdown,
}

impl CloseReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [CloseReason; 14] = [
        Self::ClientClosed,
        Self::BackendClosed,
        Self::ClientReset,
        Self::BackendReset,
        Self::ClientLost,
        Self::BackendLost,
        Self::NoBackend,
        Self::ConnectFailed,
        Self::NoResources,
        Self::BackendRemoved,
        Self::BackendDisabled,
        Self::BackendDown,
        Self::Drained,
        Self::MemberShutdown,
    ];

    /// The name in metrics and logs, in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::BackendClosed => "backend_closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::ClientLost => "client_lost",
            Self::BackendLost => "backend_lost",
            Self::NoBackend => "no_backend",
            Self::ConnectFailed => "connect_failed",
            Self::NoResources => "no_resources",
            Self::BackendRemoved => "backend_removed",
            Self::BackendDisabled => "backend_disabled",
            Self::BackendDown => "backend_down",
            Self::Drained => "drained",
            Self::MemberShutdown => "member_shutdown",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<CloseCause> for CloseReason {
    fn from(cause: CloseCause) -> Self {
        match cause {
            CloseCause::Removed => Self::BackendRemoved,
            CloseCause::Disabled => Self::BackendDisabled,
            CloseCause::Drained => Self::Drained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_at_the_place_of_its_counter() {
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason}");
        }
    }
}
