//! The last events of this member, bounded by their number and their bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use prost::Message;
use trestle_api::peer;

use super::merge::timestamp;

/// Events that are kept.
const EVENTS_MAX: usize = 4096;
/// Bytes of all of them, as they are sent.
const BYTES_MAX: usize = 1 << 20;

/// The last events, numbered from 1 on.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<Arc<peer::MemberEvent>>,
    bytes: usize,
    last: u64,
    /// When the last one was; the clock may have been put back since.
    at: Option<SystemTime>,
}

impl Ring {
    /// Adds an event that happened at `now`, under the next number. The oldest ones give way. Answers its number.
    pub(super) fn push(&mut self, mut event: peer::MemberEvent, now: SystemTime) -> u64 {
        let at = self.at.map_or(now, |at| at.max(now));
        self.at = Some(at);
        self.last += 1;
        event.number = self.last;
        event.time = Some(timestamp(at));
        self.bytes += event.encoded_len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.encoded_len());
        }
        self.last
    }

    /// The number of the last event; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Those after `number` that are still kept, the oldest first, up to so many bytes, but one at least.
    pub(super) fn after(&self, number: u64, bytes_max: usize) -> Vec<Arc<peer::MemberEvent>> {
        let first = self.last - self.events.len() as u64 + 1;
        let skipped = usize::try_from(number.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let fits = |event: &&Arc<peer::MemberEvent>| {
            let is_first = bytes == 0;
            bytes += event.encoded_len();
            is_first || bytes <= bytes_max
        };
        self.events.iter().skip(skipped).take_while(fits).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> peer::MemberEvent {
        peer::MemberEvent { text: "x".repeat(bytes), ..Default::default() }
    }

    fn numbers(events: &[Arc<peer::MemberEvent>]) -> Vec<u64> {
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn the_oldest_give_way_by_number_and_by_bytes() {
        let (mut ring, now) = (Ring::default(), SystemTime::UNIX_EPOCH);
        for _ in 0..EVENTS_MAX + 10 {
            ring.push(event(10), now);
        }
        assert_eq!(numbers(&ring.after(0, usize::MAX)), (11..=EVENTS_MAX as u64 + 10).collect::<Vec<_>>());
        assert!(ring.bytes < BYTES_MAX);
        for _ in 0..100 {
            ring.push(event(BYTES_MAX / 16), now);
        }
        assert!(
            ring.bytes <= BYTES_MAX && ring.events.len() >= 15,
            "{} of {}",
            ring.bytes,
            ring.events.len()
        );
        // Even one that is larger than everything that is kept costs no more than that.
        ring.push(event(2 * BYTES_MAX), now);
        assert!(ring.events.is_empty() && ring.bytes == 0);
        assert_eq!(numbers(&ring.after(0, usize::MAX)), [0; 0]);
        let number = ring.push(event(1), now);
        assert_eq!(numbers(&ring.after(0, usize::MAX)), [number]);
    }

    #[test]
    fn what_comes_after_a_number_is_cut_by_bytes() {
        let (mut ring, now) = (Ring::default(), SystemTime::UNIX_EPOCH);
        for _ in 0..10 {
            ring.push(event(1000), now);
        }
        assert_eq!(numbers(&ring.after(4, usize::MAX)), [5, 6, 7, 8, 9, 10]);
        assert_eq!(numbers(&ring.after(4, 2500)), [5, 6]);
        assert_eq!(numbers(&ring.after(4, 1)), [5]);
        assert_eq!(numbers(&ring.after(10, usize::MAX)), [0; 0]);
        assert_eq!(numbers(&ring.after(99, usize::MAX)), [0; 0]);
    }

    #[test]
    fn a_clock_that_is_put_back_turns_no_order_round() {
        let (mut ring, noon) =
            (Ring::default(), SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(43_200));
        ring.push(event(1), noon);
        ring.push(event(1), SystemTime::UNIX_EPOCH);
        let times: Vec<_> = ring.after(0, usize::MAX).iter().map(|event| event.time).collect();
        assert_eq!(times, [Some(timestamp(noon)); 2]);
    }
}
