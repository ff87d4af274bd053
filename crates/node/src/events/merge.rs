//! Events of several sources in the order of time, and how far each source was told.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use trestle_api::v1;

/// A moment as messages have it.
pub(crate) fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// Since the beginning of 1970; nothing for a moment before that or that makes no sense.
pub(crate) fn moment(time: &prost_types::Timestamp) -> Option<Duration> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(time.seconds).ok()?, nanos))
}

/// The last event of each source that was told, or passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// By member, with the process's start; the replicated log under an empty name.
    last: BTreeMap<String, (u64, u64)>,
}

impl Position {
    /// What a client says that it had.
    pub(crate) fn of(ids: &[v1::EventId]) -> Self {
        Self { last: ids.iter().map(|id| (id.member.clone(), (id.start, id.number))).collect() }
    }

    pub(crate) fn ids(&self) -> Vec<v1::EventId> {
        let id = |(member, (start, number)): (&String, &(u64, u64))| v1::EventId {
            member: member.clone(),
            start: *start,
            number: *number,
        };
        self.last.iter().map(id).collect()
    }

    /// The start and the number of the last event of a source; zeros for none.
    pub(crate) fn of_source(&self, member: &str) -> (u64, u64) {
        self.last.get(member).copied().unwrap_or_default()
    }

    /// How many events of a source were never told: those between the last one that was and the first of what it says now, which
    /// it has dropped in the meantime. Numbers of a process begin at 1; what an earlier process dropped is not known. The
    /// replicated log's are revisions, which say nothing.
    pub(crate) fn missed(&self, member: &str, events: &[v1::ClusterEvent]) -> u64 {
        let first = events.iter().find_map(|event| event.id.as_ref().filter(|_| !self.has(event)));
        let (Some(first), Some((start, last))) = (first, self.last.get(member)) else { return 0 };
        let last = if *start == first.start { *last } else { 0 };
        if member.is_empty() { 0 } else { first.number.saturating_sub(last + 1) }
    }

    /// Moves a source on; never back within one process.
    pub(crate) fn pass(&mut self, member: &str, start: u64, number: u64) {
        let last = self.last.entry(member.to_owned()).or_insert((start, number));
        *last = if last.0 == start { (start, last.1.max(number)) } else { (start, number) };
    }

    fn pass_event(&mut self, event: &v1::ClusterEvent) {
        if let Some(id) = &event.id {
            self.pass(&id.member, id.start, id.number);
        }
    }

    /// Whether an event was told already.
    fn has(&self, event: &v1::ClusterEvent) -> bool {
        event.id.as_ref().is_some_and(|id| {
            let (start, number) = self.of_source(&id.member);
            start == id.start && id.number <= number
        })
    }
}

/// Those of several sources that were not told yet, in the order of time; each source's in its own order, so that what was told
/// of it is always a part without gaps. Of a source of which nothing was told so far only those that happened at `since` or
/// later: clocks differ, and what comes after something that was told is later whatever its clock says.
pub(crate) fn merge(
    sources: Vec<(String, Vec<v1::ClusterEvent>)>,
    told: &Position,
    since: Option<Duration>,
) -> Vec<v1::ClusterEvent> {
    let mut all = Vec::new();
    for (name, source) in sources {
        let since = since.filter(|_| !told.last.contains_key(&name));
        let mut key = Duration::ZERO;
        for event in source.into_iter().filter(|event| !told.has(event)) {
            let time = event.time.as_ref().and_then(moment);
            key = key.max(time.unwrap_or_default());
            if since.is_none_or(|since| time.unwrap_or(key) >= since) {
                all.push((key, event));
            }
        }
    }
    // Stable: the order within a source stays.
    all.sort_by_key(|(key, _)| *key);
    all.into_iter().map(|(_, event)| event).collect()
}

/// Cuts events into messages of some bytes, each with the position that is reached with it.
pub(crate) fn cut(
    events: Vec<v1::ClusterEvent>,
    told: &mut Position,
    bytes_max: usize,
) -> Vec<(Vec<v1::ClusterEvent>, Position)> {
    let (mut messages, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for event in events {
        let size = prost::Message::encoded_len(&event);
        if !part.is_empty() && bytes + size > bytes_max {
            messages.push((std::mem::take(&mut part), told.clone()));
            bytes = 0;
        }
        bytes += size;
        told.pass_event(&event);
        part.push(event);
    }
    if !part.is_empty() {
        messages.push((part, told.clone()));
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(member: &str, start: u64, number: u64, seconds: u64) -> v1::ClusterEvent {
        v1::ClusterEvent {
            id: Some(v1::EventId { member: member.to_owned(), start, number }),
            time: Some(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))),
            ..Default::default()
        }
    }

    fn names(events: &[v1::ClusterEvent]) -> Vec<String> {
        let name = |event: &v1::ClusterEvent| {
            let id = event.id.clone().unwrap_or_default();
            format!("{}{}", id.member, id.number)
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn sources_are_merged_in_the_order_of_time_and_each_stays_in_its_own() {
        let a = vec![event("a", 1, 1, 10), event("a", 1, 2, 30)];
        // Its clock was put back between the two.
        let log = vec![event("", 0, 8, 20), event("", 0, 9, 5), event("", 0, 12, 40)];
        let sources = || vec![("a".to_owned(), a.clone()), (String::new(), log.clone())];
        let merged = merge(sources(), &Position::default(), None);
        assert_eq!(names(&merged), ["a1", "8", "9", "a2", "12"]);
        let since = Some(Duration::from_secs(20));
        assert_eq!(names(&merge(sources(), &Position::default(), since)), ["8", "a2", "12"]);
        // What comes after something that was told is told, though the clock there is late.
        let mut told = Position::default();
        told.pass("", 0, 8);
        assert_eq!(names(&merge(sources(), &told, since)), ["9", "a2", "12"]);
    }

    #[test]
    fn what_a_source_has_dropped_before_it_was_told_is_counted() {
        let mut told = Position::default();
        let ring = |start, numbers: std::ops::RangeInclusive<u64>| {
            numbers.map(|number| event("a", start, number, number)).collect::<Vec<_>>()
        };
        assert_eq!(told.missed("a", &ring(1, 5..=9)), 0, "nobody was there for those");
        told.pass("a", 1, 9);
        assert_eq!(told.missed("a", &ring(1, 10..=11)), 0);
        assert_eq!(told.missed("a", &ring(1, 8..=11)), 0, "what was told is not missed");
        assert_eq!(told.missed("a", &ring(1, 14..=20)), 4);
        assert_eq!(told.missed("a", &[]), 0);
        assert_eq!(told.missed("a", &ring(2, 1..=3)), 0);
        assert_eq!(told.missed("a", &ring(2, 3..=3)), 2);
        told.pass("", 0, 7);
        assert_eq!(told.missed("", &[event("", 0, 12, 1)]), 0);
    }

    #[test]
    fn what_was_told_is_not_told_again_whoever_tells_it() {
        let a = vec![event("a", 1, 1, 1), event("a", 1, 2, 2)];
        let all = || vec![("a".to_owned(), a.clone()), ("b".to_owned(), vec![event("b", 5, 1, 3)])];
        let mut told = Position::default();
        let merged = merge(all(), &told, None);
        let messages = cut(merged, &mut told, 1);
        assert_eq!(messages.len(), 3, "one event at least is in each");
        // The client lost the answering member after the second message.
        let had = Position::of(&messages[1].1.ids());
        assert_eq!(names(&merge(all(), &had, None)), ["b1"]);
        assert!(merge(all(), &told, None).is_empty());
        // A process that starts anew counts from 1 again.
        assert_eq!(names(&merge(vec![("a".to_owned(), vec![event("a", 2, 1, 9)])], &told, None)), ["a1"]);
    }
}
