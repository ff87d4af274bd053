//! What a member runs on: the system, or a simulation that has the disk, the network and the time of several members in its hands.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tonic::body::Body;
use tonic::codegen::{StdError, http};

use crate::network::Lane;
use crate::raft_config::LogBounds;
use crate::store::{LogDisk, MarkFile};

/// A simulation's side. A member that is opened with it starts no thread, opens no socket, and has its log and the mark where the
/// simulation says; identity and snapshots stay files, which are durable once they are written.
pub trait SimulatedPlatform: Send + Sync + 'static {
    /// Whether the member has a log.
    fn has_log(&self) -> bool;

    /// The member's log, created if there is none.
    fn open_log(&self) -> Box<dyn LogDisk>;

    /// Whether the member has a mark.
    fn has_mark(&self) -> bool;

    /// The content of the mark.
    ///
    /// # Errors
    /// When there is none, or the disk refuses.
    fn read_mark(&self) -> io::Result<Vec<u8>>;

    /// The mark, created if there is none.
    fn open_mark(&self) -> Box<dyn MarkFile>;

    /// Resolves when the disk has taken what the writer has applied and is about to sync.
    fn wait_for_disk(&self) -> BoxFuture<'static, ()>;

    /// Entries after which a snapshot is made, and entries that are kept below it.
    fn log_bounds(&self) -> LogBounds;

    /// Carries a call to whoever is at an address.
    fn call(
        &self,
        address: &str,
        lane: Lane,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, StdError>>;
}

/// What a member runs on.
#[derive(Clone, Default)]
pub(crate) enum Platform {
    /// Threads, files and sockets.
    #[default]
    System,
    /// Everything on the runtime that the member was opened on.
    Simulated(Arc<dyn SimulatedPlatform>),
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Platform::System => "System",
            Platform::Simulated(_) => "Simulated",
        })
    }
}

impl Platform {
    /// Runs what blocks off the runtime's own threads. A simulation has no others, and no time passes in it meanwhile.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        runtime: &Handle,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Platform::System => runtime.spawn_blocking(run).await,
            Platform::Simulated(_) => Ok(run()),
        }
    }

    /// When the log is made smaller.
    pub(crate) fn log_bounds(&self) -> LogBounds {
        match self {
            Platform::System => LogBounds::default(),
            Platform::Simulated(simulated) => simulated.log_bounds(),
        }
    }

    /// Whether there is a log at `db`.
    pub(crate) fn has_log(&self, db: &Path) -> bool {
        match self {
            Platform::System => db.exists(),
            Platform::Simulated(simulated) => simulated.has_log(),
        }
    }
}
