//! Telling events to a client: those that there are, and then those that come.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::{convert, v1};
use trestle_model::{Member, MemberId};

use super::merge::{Position, cut, merge, timestamp};
use super::sources::{EventSources, Told, gathered};

/// Bytes of events from which on a message is full.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Messages that wait for a slow reader before it is waited for.
const QUEUED_MAX: usize = 2;
/// How long a reader may leave a message unread. Then it loses its place, and goes on where it was with another call.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// How long news are gathered, so that those of several members are in the order of time.
const GATHER: Duration = Duration::from_millis(50);
/// Silence after which a watch says that nothing was missed.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// How long another member may wait with its answer until it has one.
const ASK_WAIT: Duration = Duration::from_secs(10);
/// Pause before a member that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;
/// The answer of `ListEvents`.
pub(crate) type List = Stream<v1::ListEventsResponse>;
/// The answer of `WatchEvents`.
pub(crate) type Watch = Stream<v1::WatchEventsResponse>;

/// Sends a message; false when nobody takes it.
async fn send<T>(sender: &mpsc::Sender<Result<T, Status>>, message: T) -> bool {
    matches!(timeout(UNREAD_MAX, sender.send(Ok(message))).await, Ok(Ok(())))
}

impl EventSources {
    fn event_reader(&self) -> Result<OwnedSemaphorePermit, Status> {
        let full = |_| {
            let max = super::READERS_MAX;
            Status::resource_exhausted(format!(
                "this member tells {max} clients its events already; try again later, or on another member"
            ))
        };
        self.journal.0.readers.clone().try_acquire_owned().map_err(full)
    }

    /// Lists what happened at `since` or later.
    pub(crate) async fn list(&self, since: Option<Duration>) -> Result<List, Status> {
        let place = self.event_reader()?;
        let mut told = Position::default();
        let (sources, unreachable_members) = self.all_events(&told).await;
        let sources = sources.into_iter().map(|(name, told)| (name, told.events)).collect();
        let parts = cut(merge(sources, &told, since), &mut told, MESSAGE_BYTES);
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        tokio::spawn(async move {
            let _place = place;
            let first = v1::ListEventsResponse { events: Vec::new(), unreachable_members };
            let parts =
                parts.into_iter().map(|(events, _)| v1::ListEventsResponse { events, ..Default::default() });
            for message in [first].into_iter().chain(parts) {
                if !send(&sender, message).await {
                    return;
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// Tells what happened at `since` or later and after a position, and then what happens; without `since` what happens from
    /// now on.
    pub(crate) async fn watch(
        &self,
        since: Option<prost_types::Timestamp>,
        told: Position,
    ) -> Result<Watch, Status> {
        let place = self.event_reader()?;
        let from_now = since.is_none();
        let since = since.unwrap_or_else(|| timestamp(SystemTime::now()));
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        let follower = Follower {
            from: self.clone(),
            since,
            told,
            unreachable: Vec::new(),
            missed: Vec::new(),
            sender,
            said: Instant::now(),
        };
        tokio::spawn(async move {
            let _place = place;
            follower.run(from_now).await;
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// What another member says, or that it says nothing.
type News = (String, Option<Told>);

struct Follower {
    from: EventSources,
    since: prost_types::Timestamp,
    told: Position,
    unreachable: Vec<String>,
    /// What was lost to the reader, and is to be told with what comes next.
    missed: Vec<v1::MissedEvents>,
    sender: mpsc::Sender<Result<v1::WatchEventsResponse, Status>>,
    /// When the last message was sent.
    said: Instant,
}

impl Follower {
    /// Tells until nobody listens; `from_now` nothing of before.
    async fn run(mut self, from_now: bool) {
        let (sources, unreachable) = self.from.all_events(&self.told).await;
        self.unreachable = unreachable;
        if from_now {
            sources.iter().for_each(|(name, Told { last, .. })| self.told.pass(name, last.0, last.1));
        }
        if !self.tell(sources).await || !self.say().await {
            return;
        }
        let (news, mut heard) = mpsc::channel(16);
        let (mut asking, mut asked) = (JoinSet::new(), BTreeMap::new());
        let mut view = self.from.local.consensus.view();
        let closed = self.sender.clone();
        loop {
            self.ask_others(&mut asking, &mut asked, &news);
            let me = convert::member_name(&self.from.local.config.name);
            let after = self.told.of_source(&me);
            let journal = self.from.journal.clone();
            let first = tokio::select! {
                () = closed.closed() => return,
                news = heard.recv() => news,
                changed = view.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                () = journal.news(after, BOOKMARK_INTERVAL) => None,
            };
            sleep(GATHER).await;
            view.borrow_and_update();
            let mut sources = vec![
                (String::new(), self.from.logged_events(self.told.of_source(""))),
                (me, self.from.own_events(after)),
            ];
            let mut said = self.unreachable.clone();
            for (name, told) in first.into_iter().chain(std::iter::from_fn(|| heard.try_recv().ok())) {
                said.retain(|silent| *silent != name);
                match told {
                    Some(told) => sources.push((name, told)),
                    None => said.push(name),
                }
            }
            said.sort();
            let other = std::mem::replace(&mut self.unreachable, said) != self.unreachable;
            if !self.tell(sources).await || (other || self.is_silent()) && !self.say().await {
                return;
            }
        }
    }

    /// Sends what is new of what sources say.
    async fn tell(&mut self, sources: Vec<(String, Told)>) -> bool {
        let (mut lasts, mut events) = (Vec::new(), Vec::new());
        for (name, told) in gathered(sources) {
            let count = self.told.missed(&name, &told.events);
            if count > 0 {
                self.missed.push(v1::MissedEvents { member: name.clone(), count });
            }
            lasts.push((name.clone(), told.last));
            events.push((name, told.events));
        }
        let events = merge(events, &self.told, super::moment(&self.since));
        for (events, position) in cut(events, &mut self.told, MESSAGE_BYTES) {
            let missed = std::mem::take(&mut self.missed);
            let message = v1::WatchEventsResponse { missed, ..self.message(events, &position) };
            if !send(&self.sender, message).await {
                return false;
            }
            self.said = Instant::now();
        }
        for (name, (start, number)) in lasts {
            self.told.pass(&name, start, number);
        }
        true
    }

    /// Whether nothing was sent for long.
    fn is_silent(&self) -> bool {
        self.said.elapsed() >= BOOKMARK_INTERVAL
    }

    /// Says how far everything was told, and who does not answer.
    async fn say(&mut self) -> bool {
        self.said = Instant::now();
        send(&self.sender, self.message(Vec::new(), &self.told)).await
    }

    fn message(&self, events: Vec<v1::ClusterEvent>, position: &Position) -> v1::WatchEventsResponse {
        v1::WatchEventsResponse {
            events,
            position: position.ids(),
            since: Some(self.since),
            unreachable_members: self.unreachable.clone(),
            missed: Vec::new(),
        }
    }

    /// Asks each other member that is not asked yet, from where it was told.
    fn ask_others(
        &self,
        asking: &mut JoinSet<()>,
        asked: &mut BTreeMap<MemberId, tokio::task::AbortHandle>,
        news: &mpsc::Sender<News>,
    ) {
        let others = self.from.local.others();
        asked.retain(|id, task| {
            let stays = others.iter().any(|other| other.id == *id);
            if !stays {
                task.abort();
            }
            stays && !task.is_finished()
        });
        for other in others {
            if asked.contains_key(&other.id) {
                continue;
            }
            let after = self.told.of_source(&convert::member_name(&other.spec.name));
            let (from, news, id) = (self.from.clone(), news.clone(), other.id);
            asked.insert(id, asking.spawn(ask(from, other, after, news)));
        }
    }
}

/// Asks one member for as long as somebody listens.
async fn ask(from: EventSources, other: Arc<Member>, mut after: (u64, u64), news: mpsc::Sender<News>) {
    let name = convert::member_name(&other.spec.name);
    let mut silent = false;
    loop {
        // Who was silent is told as soon as it answers, and not only when something happens there.
        let wait = if silent { Duration::ZERO } else { ASK_WAIT };
        let told = from.events_of(&other, after, wait).await.ok();
        let was_silent = std::mem::replace(&mut silent, told.is_none());
        let is_news = told.as_ref().map_or(!was_silent, |told| was_silent || !told.events.is_empty());
        if let Some(told) = &told {
            after = told.last;
        }
        if is_news && news.send((name.clone(), told)).await.is_err() {
            return;
        }
        if silent {
            sleep(ASK_AGAIN).await;
        }
    }
}
