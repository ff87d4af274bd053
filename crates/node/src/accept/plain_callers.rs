//! Who has called without TLS lately: what is to be told before TLS is required.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ClientSource;

/// How long a call is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Most callers that are remembered: more are told apart by nobody.
const CALLERS_MAX: usize = 256;

/// The ports and addresses from which calls came without TLS, and when they last did.
#[derive(Debug, Default)]
pub(crate) struct PlainCallers(Mutex<BTreeMap<(&'static str, ClientSource), Instant>>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlainCallerSeen {
    pub(crate) port: &'static str,
    pub(crate) source: ClientSource,
    pub(crate) ago: Duration,
}

impl PlainCallers {
    pub(super) fn note(&self, port: &'static str, source: ClientSource, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CALLERS_MAX && !seen.contains_key(&(port, source)) {
            seen.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED_FOR);
            if seen.len() >= CALLERS_MAX {
                return;
            }
        }
        seen.insert((port, source), now);
    }

    /// Those of the last ten minutes.
    pub(crate) fn recent(&self, now: Instant) -> Vec<PlainCallerSeen> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED_FOR);
        let told = seen.iter().map(|((port, source), at)| PlainCallerSeen {
            port,
            source: *source,
            ago: now.saturating_duration_since(*at),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn callers_are_forgotten_and_bounded() {
        let callers = PlainCallers::default();
        let start = Instant::now();
        let source = |number: u32| ClientSource::Address(Ipv4Addr::from(number).into());
        for number in 0..1000 {
            callers.note("peer", source(number), start);
        }
        assert_eq!(callers.recent(start).len(), CALLERS_MAX);
        let later = start + REMEMBERED_FOR;
        callers.note("admin", source(7), later);
        let seen = PlainCallerSeen { port: "admin", source: source(7), ago: Duration::ZERO };
        assert_eq!(callers.recent(later), [seen]);
    }
}
