//! Keeps the log small: openraft counts entries, and one of them may have a MiB.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftMetrics;
use tokio::sync::watch;

use crate::raft_types::TypeConfig;
use crate::replica::RaftHandle;
use crate::store::LogReader;

/// Bytes of log entries that are left below a snapshot, for members that lag a little.
const KEPT: u64 = 8 << 20;

/// How long a snapshot may take that nobody waits for but the next one.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(60);

/// Least time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes a snapshot and drops what it contains each time that the log has too many bytes, until Raft ends.
pub(crate) async fn bound_log_size(raft: RaftHandle, log: LogReader, mut ended: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = log.oversized() => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        if let Err(error) = shrink(&raft, &log).await {
            tracing::warn!(%error, bytes = log.bytes(), "the log is large and could not be made smaller");
        }
        // openraft may still send what is to be dropped.
        tokio::time::sleep(PAUSE).await;
    }
}

async fn shrink(raft: &RaftHandle, log: &LogReader) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let applied = raft.metrics().borrow_watched().last_applied;
    raft.trigger().snapshot().await?;
    let reaches = |metrics: &RaftMetrics<TypeConfig>| metrics.snapshot >= applied;
    let metrics = raft.wait(Some(SNAPSHOT_WAIT)).metrics(reaches, "a snapshot of a large log").await?;
    let last = metrics.snapshot.map_or(0, |id| id.index);
    if let Some(excess) = log.excess(KEPT) {
        raft.trigger().purge_log(excess.min(last)).await?;
    }
    Ok(())
}
