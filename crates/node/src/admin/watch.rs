//! Watching the cluster: what exists, then every change, each once.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::{convert, status, v1};
use trestle_consensus::DEFAULT_WAIT;
use trestle_model::{Invalid, Revision, Violation};

use super::Admin;

/// Silence after which a bookmark says that nothing was missed.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// Events of what exists are sent in messages of this many, to stay far below the 4 MiB that clients take.
const CURRENT_PER_MESSAGE: usize = 1000;
/// Messages that wait for a slow watcher before the watch itself waits.
const QUEUED_MAX: usize = 64;

pub(super) type Stream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::WatchClusterResponse, Status>> + Send>>;

fn bookmark(revision: Revision) -> v1::WatchClusterResponse {
    v1::WatchClusterResponse { revision, events: Vec::new() }
}

impl Admin {
    pub(super) async fn watch(&self, request: v1::WatchClusterRequest) -> Result<Stream, Status> {
        if request.include_current && request.start_revision > 0 {
            let found = Violation::new("include_current", "true", "goes only with start_revision 0");
            return Err(status::invalid(&Invalid(vec![found])));
        }
        // A watch that starts now must see every write that was acknowledged before, or say that it came earlier.
        let view = self.member.consensus.read(DEFAULT_WAIT).await?;
        let revision = view.state.revision;
        let from = if request.start_revision > 0 { request.start_revision } else { revision + 1 };
        let subscription = self.member.consensus.history().subscribe(from);
        let mut subscription = subscription.map_err(|failure| status::failure(&failure))?;

        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        let current = if request.include_current { convert::current_events(&view.state) } else { Vec::new() };
        drop(view);
        tokio::spawn(async move {
            for events in current.chunks(CURRENT_PER_MESSAGE) {
                let message = v1::WatchClusterResponse { revision, events: events.to_vec() };
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            // With a start in the past, what is behind `revision` is yet to come.
            let mut sent = if from > revision { revision } else { from - 1 };
            if sender.send(Ok(bookmark(sent))).await.is_err() {
                return;
            }
            loop {
                let next = tokio::select! {
                    next = tokio::time::timeout(BOOKMARK_INTERVAL, subscription.next()) => next,
                    () = sender.closed() => return,
                };
                let message = match next {
                    Err(_) => Ok(bookmark(sent)),
                    Ok(Ok(batch)) => {
                        sent = batch.revision;
                        let events = batch.changes.iter().map(convert::event).collect();
                        Ok(v1::WatchClusterResponse { revision: batch.revision, events })
                    }
                    Ok(Err(failure)) => Err(status::failure(&failure)),
                };
                let over = message.is_err();
                if sender.send(message).await.is_err() || over {
                    return;
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}
