//! Watching the cluster: what exists, then every change, each once.

use std::pin::Pin;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::{convert, status, v1};
use trestle_consensus::DEFAULT_WAIT;
use trestle_model::{ClusterState, Invalid, Revision, Violation};

use super::Admin;

/// Silence after which a bookmark says that nothing was missed.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of events from which on a message is full: far below the 4 MiB that clients take, and little enough to be held for
/// each watcher that does not read.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Messages that wait for a slow watcher before the watch itself waits.
const QUEUED_MAX: usize = 2;

pub(super) type Stream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::WatchClusterResponse, Status>> + Send>>;

fn bookmark(revision: Revision) -> v1::WatchClusterResponse {
    v1::WatchClusterResponse { revision, ..Default::default() }
}

/// Events of one revision in messages; `more` of all but the last, and of the last too if more is to come after them.
fn messages(
    revision: Revision,
    events: impl Iterator<Item = v1::Event>,
    more: bool,
) -> impl Iterator<Item = v1::WatchClusterResponse> {
    let mut events = events.peekable();
    std::iter::from_fn(move || {
        events.peek()?;
        let (mut full, mut bytes) = (Vec::new(), 0);
        while let Some(event) =
            events.next_if(|event| bytes == 0 || bytes + event.encoded_len() <= MESSAGE_BYTES)
        {
            bytes += event.encoded_len();
            full.push(event);
        }
        let more = more || events.peek().is_some();
        Some(v1::WatchClusterResponse { revision, events: full, more })
    })
}

impl Admin {
    pub(super) async fn watch(&self, request: v1::WatchClusterRequest) -> Result<Stream, Status> {
        if request.include_current && request.start_revision > 0 {
            let found = Violation::new("include_current", "true", "goes only with start_revision 0");
            return Err(status::invalid(&Invalid(vec![found])));
        }
        // A watch that starts now must see every write that was acknowledged before, or say that it came earlier.
        let view = self.local.consensus.read(DEFAULT_WAIT).await?;
        let revision = view.state.revision;
        let from = if request.start_revision > 0 { request.start_revision } else { revision + 1 };
        let subscription = self.local.consensus.history().subscribe(from);
        let mut subscription = subscription.map_err(|failure| status::failure(&failure))?;

        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        let current =
            if request.include_current { ClusterState::default().diff(&view.state) } else { Vec::new() };
        drop(view);
        tokio::spawn(async move {
            let current = current.into_iter().map(|change| convert::current_event(&change));
            for message in messages(revision, current, true) {
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
                let batch = match next {
                    Err(_) => {
                        if sender.send(Ok(bookmark(sent))).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Ok(Ok(batch)) => batch,
                    Ok(Err(failure)) => {
                        let _ = sender.send(Err(status::failure(&failure))).await;
                        return;
                    }
                };
                sent = batch.revision;
                for message in messages(batch.revision, batch.changes.iter().map(convert::event), false) {
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(size: usize) -> v1::Event {
        let pool = v1::Pool { name: "p".repeat(size), ..Default::default() };
        v1::Event { r#type: 1, resource: Some(v1::event::Resource::Pool(pool)) }
    }

    fn cut(sizes: &[usize], more: bool) -> Vec<(usize, bool)> {
        let messages = messages(7, sizes.iter().map(|size| event(*size)), more);
        messages.map(|message| (message.events.len(), message.more)).collect()
    }

    #[test]
    fn events_are_cut_by_their_bytes_and_none_is_lost() {
        let sizes = [200; 1000];
        let cut_up = cut(&sizes, false);
        assert!(cut_up.len() > 3, "{cut_up:?}");
        assert_eq!(cut_up.iter().map(|(events, _)| events).sum::<usize>(), 1000);
        let last = cut_up.len() - 1;
        assert!(cut_up.iter().enumerate().all(|(at, (_, more))| *more == (at != last)), "{cut_up:?}");
        assert_eq!(cut(&[1, 100_000, 1], false), [(1, true), (1, true), (1, false)]);
        assert_eq!(cut(&[1, 1], true), [(2, true)]);
        assert_eq!(cut(&[], false), []);
    }
}
