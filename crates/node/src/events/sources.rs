//! Where events come from: this member's ring, the rings of the others, and what this member has of the replicated log.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tonic::Status;
use trestle_api::{convert, peer, v1};
use trestle_model::Member;

use super::merge::Position;
use super::{Journal, detail};
use crate::peers::{Peers, REPORT_TIMEOUT};
use crate::this_member::ThisMember;

/// Bytes of events in one answer between members.
const ANSWER_BYTES: usize = 64 * 1024;
/// Longest wait for news that another member may ask for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Changes of the configuration that are told of before now.
const CHANGES_MAX: usize = 4096;
/// Answers that another member is asked for at a time, which is more than it keeps.
const ROUNDS_MAX: usize = 64;

/// What one source says.
#[derive(Default)]
pub(super) struct Told {
    pub(super) events: Vec<v1::ClusterEvent>,
    /// Its process and the number of its last event.
    pub(super) last: (u64, u64),
}

/// What each source says, in one piece where it was heard several times: what a later piece begins with was not missed because
/// the piece before is not told yet.
pub(super) fn gathered(heard: Vec<(String, Told)>) -> Vec<(String, Told)> {
    let mut whole: Vec<(String, Told)> = Vec::new();
    for (name, told) in heard {
        match whole.iter_mut().find(|(known, _)| *known == name) {
            Some((_, before)) => {
                before.events.extend(told.events);
                before.last = told.last;
            }
            None => whole.push((name, told)),
        }
    }
    whole
}

/// Where events come from. Clones share it.
#[derive(Clone)]
pub(crate) struct EventSources {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
    pub(crate) journal: Journal,
}

impl EventSources {
    /// This member's own events after a position.
    pub(super) fn own_events(&self, after: (u64, u64)) -> Told {
        let (start, last, events) = self.journal.after(after, usize::MAX);
        let name = &self.local.config.name;
        let event = |event: &Arc<peer::MemberEvent>| convert::cluster_event(name, start, (**event).clone());
        Told { events: events.iter().map(event).collect(), last: (start, last) }
    }

    /// What the replicated log says after an index, as far as this member has applied it.
    pub(super) fn logged_events(&self, (_, after): (u64, u64)) -> Told {
        // The view first: what was applied after it is told the next time.
        let view = self.local.consensus.view().borrow().clone();
        let state = &view.state;
        let name_of = |id| state.members.get(&id).map(|member| member.spec.name.clone());
        let batches = self.local.consensus.history().newest(after, CHANGES_MAX);
        let batches = batches.iter().filter(|batch| batch.revision <= view.applied);
        let mut events: Vec<_> = batches.map(|batch| detail::of_batch(batch, name_of)).collect();
        let vips = state.vip_events.iter().filter(|event| event.revision > after);
        events.extend(vips.map(|event| detail::of_vips(event)));
        events.sort_by_key(|event| event.id.as_ref().map(|id| id.number));
        Told { events, last: (0, view.applied.max(after)) }
    }

    /// Asks another member for its events after a position, and waits for one if it has none.
    pub(super) async fn events_of(
        &self,
        other: &Member,
        after: (u64, u64),
        wait: Duration,
    ) -> Result<Told, Status> {
        let mut told = Told { events: Vec::new(), last: after };
        for round in 0..ROUNDS_MAX {
            let wait = if round == 0 { wait } else { Duration::ZERO };
            let mut client = self.peers.client(&other.spec.peer_address)?;
            let ask = peer::AwaitEventsRequest {
                to: self.local.destination(Some(other.id)),
                start: told.last.0,
                after: told.last.1,
                wait: Some(convert::duration(wait)),
            };
            let answer = tokio::time::timeout(wait + REPORT_TIMEOUT, client.await_events(ask)).await;
            let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner();
            let reached = answer.events.last().map_or(answer.last, |event| event.number);
            told.last = (answer.start, reached);
            let name = &other.spec.name;
            let event = |event| convert::cluster_event(name, answer.start, event);
            told.events.extend(answer.events.into_iter().map(event));
            if reached >= answer.last {
                break;
            }
        }
        Ok(told)
    }

    /// Answers another member.
    pub(crate) async fn answer(&self, ask: &peer::AwaitEventsRequest) -> peer::AwaitEventsResponse {
        let wait = ask.wait.and_then(|given| Duration::try_from(given).ok()).unwrap_or_default();
        let after = (ask.start, ask.after);
        self.journal.news(after, wait.min(WAIT_MAX)).await;
        let (start, last, events) = self.journal.after(after, ANSWER_BYTES);
        let events = events.iter().map(|event| peer::MemberEvent::clone(event)).collect();
        peer::AwaitEventsResponse { start, last, events }
    }

    /// What all sources say after a position, by source, and who does not answer.
    pub(super) async fn all_events(&self, told: &Position) -> (Vec<(String, Told)>, Vec<String>) {
        let others = self.local.others();
        let ask = |other: &Arc<Member>| {
            let (other, name) = (other.clone(), convert::member_name(&other.spec.name));
            let after = told.of_source(&name);
            async move { (name, self.events_of(&other, after, Duration::ZERO).await) }
        };
        let answers = join_all(others.iter().map(ask)).await;
        let me = convert::member_name(&self.local.config.name);
        let own = self.own_events(told.of_source(&me));
        let mut sources = vec![(String::new(), self.logged_events(told.of_source(""))), (me, own)];
        let mut unreachable = Vec::new();
        for (name, answer) in answers {
            match answer {
                Ok(told) => sources.push((name, told)),
                Err(_) => unreachable.push(name),
            }
        }
        (sources, unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(numbers: std::ops::RangeInclusive<u64>) -> (String, Told) {
        let last = (1, *numbers.end());
        let event = |number| v1::ClusterEvent {
            id: Some(v1::EventId { member: "a".to_owned(), start: 1, number }),
            ..Default::default()
        };
        ("a".to_owned(), Told { events: numbers.map(event).collect(), last })
    }

    #[test]
    fn what_was_heard_in_pieces_is_not_missed() {
        let mut told = Position::default();
        told.pass("a", 1, 3);
        let whole = gathered(vec![heard(4..=8), heard(9..=9)]);
        let counts: Vec<_> = whole.iter().map(|(name, said)| told.missed(name, &said.events)).collect();
        assert_eq!(counts, [0]);
        assert_eq!((whole[0].1.events.len(), whole[0].1.last), (6, (1, 9)));
    }
}
