//! Why a member did not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use trestle_consensus::OpenError;

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address of the member itself could not be bound.
    #[error("{key} {address} cannot be bound: {why}")]
    Bind {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why, and what to do.
        why: String,
    },
    /// The UNIX socket of the admin API could not be made.
    #[error("admin_socket {} cannot be made: {why}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The data directory could not be opened.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// A thread or runtime could not be made.
    #[error("the member's threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
    /// Whoever reaches this member's ports would rule its cluster, and other machines do.
    #[error(
        "this member's cluster accepts plain connections from whoever reaches its ports, and other machines reach {}: set insecure = \
         true in its file and keep everybody else out of that network; \"trestle cluster secure\" then takes the cluster to TLS step by \
         step, and insecure out of the file again", .ports.join(" and ")
    )]
    Exposed {
        /// Keys and addresses of these ports.
        ports: Vec<String>,
    },
    /// Raft did not start.
    #[error("{0}")]
    Raft(String),
}

impl StartError {
    /// The process's exit code, as in sysexits.h. A service manager starts the member again after all of them but 64 and 70, which are
    /// only for what stays as it is until somebody changes the member's file or what is on the disk.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Bind { .. } | StartError::Socket { .. } => 69, // EX_UNAVAILABLE
            StartError::Exposed { .. } => 64,                          // EX_USAGE
            StartError::Storage(error) => open_exit_code(error),
            StartError::Threads(_) | StartError::Raft(_) => 71, // EX_OSERR
        }
    }
}

/// The exit code for a data directory that cannot be opened.
pub(crate) fn open_exit_code(error: &OpenError) -> u8 {
    match error {
        error if error.is_damage() => 70, // EX_SOFTWARE
        OpenError::Locked(_) => 75,       // EX_TEMPFAIL
        _ => 74,                          // EX_IOERR
    }
}
