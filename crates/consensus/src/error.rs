//! What can go wrong, in the terms of the one table of errors.

use tonic::Status;
use trestle_api::status::{self, Failure};
use trestle_model::Refusal;

/// Why a proposal, a read or a membership operation did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The state refused the command; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be tried, or its outcome is unknown.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Another member's answer, for the client as it is.
    #[error("{}", .0.message())]
    Relayed(Box<Status>),
}

impl Error {
    /// The status that a client gets.
    pub fn to_status(&self) -> Status {
        match self {
            Error::Refused(refusal) => status::refusal(refusal),
            Error::Failed(failure) => status::failure(failure),
            Error::Relayed(status) => Status::clone(status),
        }
    }

    pub(crate) fn no_leader(why: impl Into<String>) -> Self {
        Error::Failed(Failure::NoLeader(why.into()))
    }

    pub(crate) fn unknown(why: impl Into<String>) -> Self {
        Error::Failed(Failure::Unknown(why.into()))
    }

    pub(crate) fn membership(why: impl Into<String>) -> Self {
        Error::Failed(Failure::Membership(why.into()))
    }

    pub(crate) fn internal(why: impl ToString) -> Self {
        Error::Failed(Failure::Internal(why.to_string()))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.to_status()
    }
}

/// Why Raft did not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftStartError {
    /// The member belongs to no cluster, was removed from it, or is stopping.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The times contradict one another.
    #[error("timing is not valid: {0}")]
    Timing(String),
    /// Raft refuses what is on disk.
    #[error("raft cannot start from what is on disk: {0}")]
    Raft(String),
}

impl From<RaftStartError> for Error {
    fn from(error: RaftStartError) -> Self {
        match error {
            RaftStartError::Failed(failure) => Error::Failed(failure),
            other => Error::internal(other),
        }
    }
}
