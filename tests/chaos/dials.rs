//! What a client that connects to the virtual IP all the time has seen, and what it should not have.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use trestle_testkit::lab::{Attempt, Lab, Prober};

use crate::findings::{Findings, Invariant};

/// Time between two connections.
const PACE: Duration = Duration::from_millis(10);
/// How long a connection is given: a lost SYN is sent again after one second and after three (RFC 6298, section 2.1).
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the client.
pub(crate) fn start(lab: &Lab) -> Prober {
    Prober::start(&lab.client, lab.target(), PACE, PATIENCE)
}

/// A time in which nothing is broken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calm {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// What became of all attempts.
#[derive(Debug, Default)]
pub(crate) struct DialSummary {
    pub(crate) served: usize,
    pub(crate) failed: usize,
    /// Changes of the member that serves.
    pub(crate) moves: usize,
    /// Of those, the ones while nothing was broken.
    pub(crate) moves_in_calm: usize,
    /// From one answer to the next.
    pub(crate) longest_gap: Duration,
}

/// Judges attempts, which are in the order in which they ended.
pub(crate) fn judge(attempts: &[Attempt], calms: &[Calm], findings: &mut Findings) -> DialSummary {
    let mut summary = DialSummary::default();
    let mut last: Option<(Instant, IpAddr)> = None;
    for attempt in attempts {
        let Ok(member) = attempt.outcome else {
            summary.failed += 1;
            continue;
        };
        summary.served += 1;
        if let Some((end, before)) = last {
            summary.longest_gap = summary.longest_gap.max(attempt.end - end);
            if before != member {
                summary.moves += 1;
                summary.moves_in_calm += usize::from(calms.iter().any(|calm| calm.has(attempt)));
            }
        }
        last = Some((attempt.end, member));
    }
    for calm in calms {
        let failed: Vec<_> = attempts
            .iter()
            .enumerate()
            .filter(|(_, attempt)| attempt.outcome.is_err() && calm.has(attempt))
            .filter(|(place, _)| !is_moving(attempts, *place))
            .map(|(_, attempt)| (attempt.start - calm.from, attempt.outcome))
            .collect();
        if !failed.is_empty() {
            let what = format!("{} attempts failed while nothing was broken: {failed:?}", failed.len());
            findings.add(Invariant::CalmServes, what);
        }
    }
    summary
}

impl Calm {
    fn has(&self, attempt: &Attempt) -> bool {
        self.from <= attempt.start && attempt.end <= self.to
    }
}

/// Whether the members that served before and after this attempt are different ones. A move resets connections and is no fault of
/// theirs; on a machine that does other things members lose elections without anything being broken.
fn is_moving(attempts: &[Attempt], place: usize) -> bool {
    let before = attempts[..place].iter().rev().find_map(|attempt| attempt.outcome.ok());
    let after = attempts[place..].iter().find_map(|attempt| attempt.outcome.ok());
    matches!((before, after), (Some(before), Some(after)) if before != after)
}

#[cfg(test)]
mod tests {
    use trestle_testkit::lab::ProbeFailure;

    use super::*;

    #[test]
    fn failures_in_calm_are_found_unless_the_address_moves() {
        let zero = Instant::now();
        let attempts = |text: &str| -> Vec<Attempt> {
            let attempt = |(number, letter): (usize, char)| {
                let start = zero + Duration::from_millis(number as u64 * 10);
                let outcome = match letter {
                    '-' => Err(ProbeFailure::Reset),
                    letter => Ok(IpAddr::from([10, 0, 0, letter as u8])),
                };
                Attempt { start, end: start + Duration::from_millis(1), outcome }
            };
            text.chars().enumerate().map(attempt).collect()
        };
        // The third to the sixth of ten.
        let calm = Calm { from: zero + Duration::from_millis(20), to: zero + Duration::from_millis(60) };
        for (seen, expected, moves) in [
            ("aaaaaaaaaa", 0, 0),
            ("aa-aaaaaaa", 1, 0),
            ("aaa--aaaaa", 1, 0),
            ("a-aaaa-aaa", 0, 0),
            ("aa--bbbbbb", 0, 1),
            ("aaa-b-bbbb", 1, 1),
            ("----------", 1, 0),
            ("aaaa------", 1, 0),
        ] {
            let mut findings = Findings::default();
            let summary = judge(&attempts(seen), &[calm], &mut findings);
            assert_eq!((findings.0.len(), summary.moves), (expected, moves), "{seen}");
        }
    }
}
