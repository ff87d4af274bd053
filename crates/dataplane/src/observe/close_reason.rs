//! Why a connection ended.

use std::fmt;

use trestle_engine::CloseCause;

/// Why a connection ended. The list is closed: each has its own counter and its own name in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CloseReason {
    /// Both sides finished; the client was first. Or it closed before it was connected to a backend, and had sent nothing.
    ClientClosed,
    /// Both sides finished; the backend was first.
    BackendClosed,
    /// The client reset the connection, and so the backend's side was reset.
    ClientReset,
    /// The backend reset the connection, and so the client's side was reset.
    BackendReset,
    /// The client stopped answering (keepalive or retransmissions ran out, or the network reports it unreachable).
    ClientLost,
    /// The backend stopped answering, as above.
    BackendLost,
    /// No backend was usable; the client was reset at once.
    NoBackend,
    /// Every usable backend had all the connections that it may have, and as many clients waited as may; the client was
    /// reset at once.
    QueueFull,
    /// No backend had a free slot for the client in the time that the pool lets it wait; it was reset.
    QueueTimeout,
    /// Every backend that was tried refused or timed out; the client was reset.
    ConnectFailed,
    /// This member had no file descriptor, local port or memory left for the connection to the backend; the client was reset.
    NoResources,
    /// The backend was removed.
    BackendRemoved,
    /// The backend was disabled.
    BackendDisabled,
    /// This member found the backend unhealthy, and its pool closes connections then.
    BackendDown,
    /// The backend is a backup, a primary was usable again, and its pool closes connections then.
    PrimaryUp,
    /// The backend was drained and the deadline passed, or would have soon.
    Drained,
    /// This member stopped and its grace time passed, or would have soon.
    MemberShutdown,
    /// Somebody asked for it, by number or with a filter.
    ClosedByOperator,
    /// No byte came from either side for as long as the pool allows.
    IdleTimeout,
    /// It was open for as long as the pool allows, or nearly so.
    Expired,
    /// The listener's networks do not allow the client's address.
    Denied,
    /// The client's address had as many connections, or opened them as fast, as the listener allows for one address.
    SourceLimit,
    /// The PROXY header that the client's network must send first was missing, malformed or late.
    BadHeader,
    /// The backend's address belongs to a listener of this cluster, or is a port of a member itself.
    Loop,
    /// The TLS hello that the listener's routes go by was malformed or late, or nothing came.
    BadHello,
    /// The backend's address is in none of the networks that this member's file names.
    BackendDenied,
}

impl CloseReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [CloseReason; 26] = [
        Self::ClientClosed,
        Self::BackendClosed,
        Self::ClientReset,
        Self::BackendReset,
        Self::ClientLost,
        Self::BackendLost,
        Self::NoBackend,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ConnectFailed,
        Self::NoResources,
        Self::BackendRemoved,
        Self::BackendDisabled,
        Self::BackendDown,
        Self::PrimaryUp,
        Self::Drained,
        Self::MemberShutdown,
        Self::ClosedByOperator,
        Self::IdleTimeout,
        Self::Expired,
        Self::Denied,
        Self::SourceLimit,
        Self::BadHeader,
        Self::Loop,
        Self::BadHello,
        Self::BackendDenied,
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
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ConnectFailed => "connect_failed",
            Self::NoResources => "no_resources",
            Self::BackendRemoved => "backend_removed",
            Self::BackendDisabled => "backend_disabled",
            Self::BackendDown => "backend_down",
            Self::PrimaryUp => "primary_up",
            Self::Drained => "drained",
            Self::MemberShutdown => "member_shutdown",
            Self::ClosedByOperator => "closed_by_operator",
            Self::IdleTimeout => "idle_timeout",
            Self::Expired => "expired",
            Self::Denied => "denied",
            Self::SourceLimit => "source_limit",
            Self::BadHeader => "bad_header",
            Self::Loop => "loop",
            Self::BadHello => "bad_hello",
            Self::BackendDenied => "backend_denied",
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
    fn every_reason_is_explained() {
        let text = include_str!("../../README.md");
        for reason in CloseReason::ALL {
            assert!(text.contains(&format!("\n| `{reason}` | ")), "README.md says nothing of {reason}");
        }
    }

    #[test]
    fn every_reason_is_at_the_place_of_its_counter() {
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason}");
        }
    }
}
