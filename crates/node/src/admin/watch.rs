//! Watching the cluster: what exists, then every change, each once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::{convert, status, v1};
use trestle_consensus::{ClusterView, DEFAULT_WAIT, RevisionChanges, Subscription};
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
        Some(v1::WatchClusterResponse { revision, events: full, more, facts: None })
    })
}

/// A watch that has been sent what exists, and goes on with what changes.
struct RunningWatch {
    sender: mpsc::Sender<Result<v1::WatchClusterResponse, Status>>,
    subscription: Subscription,
    known: watch::Receiver<Arc<ClusterView>>,
    /// What was told last beside the changes.
    facts: v1::ClusterFacts,
    /// The revision up to which all was sent.
    sent: Revision,
}

/// What comes next in a watch.
enum WatchNews {
    Changes(RevisionChanges),
    /// Something that is agreed on beside the resources may have changed.
    Known,
    Silence,
}

/// The watcher is gone.
struct WatchEnded;

impl RunningWatch {
    async fn send(&self, message: v1::WatchClusterResponse) -> Result<(), WatchEnded> {
        self.sender.send(Ok(message)).await.map_err(|_| WatchEnded)
    }

    async fn send_facts(&self) -> Result<(), WatchEnded> {
        self.send(v1::WatchClusterResponse { facts: Some(self.facts.clone()), ..bookmark(self.sent) }).await
    }

    async fn next(&mut self) -> Result<WatchNews, WatchEnded> {
        let next = tokio::select! {
            // A change comes before what is known once it is made: a member before where it listens.
            biased;
            () = self.sender.closed() => return Err(WatchEnded),
            next = self.subscription.next() => next,
            changed = self.known.changed() => return changed.map(|()| WatchNews::Known).map_err(|_| WatchEnded),
            () = tokio::time::sleep(BOOKMARK_INTERVAL) => return Ok(WatchNews::Silence),
        };
        match next {
            Ok(batch) => Ok(WatchNews::Changes(batch)),
            Err(failure) => {
                let _ = self.sender.send(Err(status::failure(&failure))).await;
                Err(WatchEnded)
            }
        }
    }

    /// Sends what changes, until the watcher is gone or misses something.
    async fn run(mut self) -> Result<(), WatchEnded> {
        self.send_facts().await?;
        loop {
            match self.next().await? {
                WatchNews::Silence => self.send(bookmark(self.sent)).await?,
                WatchNews::Known => {
                    let now = convert::cluster_facts(&self.known.borrow_and_update().state);
                    if now != self.facts {
                        self.facts = now;
                        self.send_facts().await?;
                    }
                }
                WatchNews::Changes(batch) => {
                    self.sent = batch.revision;
                    let events = batch.changes.iter().map(convert::event);
                    for message in messages(batch.revision, events, false) {
                        self.send(message).await?;
                    }
                }
            }
        }
    }
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
        let subscription = subscription.map_err(|failure| status::failure(&failure))?;

        let mut known = self.local.consensus.view();
        let facts = convert::cluster_facts(&known.borrow_and_update().state);
        // With a start in the past, what is behind `revision` is yet to come.
        let sent = if from > revision { revision } else { from - 1 };
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        let current =
            if request.include_current { ClusterState::default().diff(&view.state) } else { Vec::new() };
        drop(view);
        let watch = RunningWatch { sender, subscription, known, facts, sent };
        tokio::spawn(async move {
            let current = current.into_iter().map(|change| convert::current_event(&change));
            for message in messages(revision, current, true) {
                watch.send(message).await?;
            }
            watch.run().await
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
