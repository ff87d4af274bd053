//! What time it is, as far as the clocks of a cluster's voters agree: one clock that is years off, the leader's or another one's, decides
//! nothing.

use std::time::Duration;

use crate::defaults::CLOCK_TOLERANCE;

/// Voters that are more than half of them.
const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The clocks that were read, latest first.
fn latest_first(clocks: &[Option<Duration>]) -> Vec<Duration> {
    let mut read: Vec<Duration> = clocks.iter().flatten().copied().collect();
    read.sort_unstable_by(|one, other| other.cmp(one));
    read
}

/// The latest time that a quorum of the voters' clocks have reached, since the beginning of 1970; `None` when fewer were read. A clock
/// that was not read, `None`, has reached nothing.
pub fn reached_by_quorum(clocks: &[Option<Duration>]) -> Option<Duration> {
    latest_first(clocks).get(quorum(clocks.len()) - 1).copied()
}

/// The time on which a quorum of the voters' clocks agree to [`CLOCK_TOLERANCE`], since the beginning of 1970: the earliest of the latest
/// such ones. `None` where no quorum agrees, or too few were read.
pub fn agreed_by_quorum(clocks: &[Option<Duration>]) -> Option<Duration> {
    let read = latest_first(clocks);
    let agree = |some: &&[Duration]| match (some.first(), some.last()) {
        (Some(latest), Some(earliest)) => *latest - *earliest <= CLOCK_TOLERANCE,
        _ => false,
    };
    read.windows(quorum(clocks.len())).find(agree)?.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn both(clocks: &[Option<Duration>]) -> (Option<Duration>, Option<Duration>) {
        (reached_by_quorum(clocks), agreed_by_quorum(clocks))
    }

    #[test]
    fn one_clock_of_three_decides_nothing() {
        let second = Duration::from_secs(1);
        let fine = [Some(NOW), Some(NOW + second)];
        for wrong in [None, Some(NOW + YEARS), Some(NOW - YEARS), Some(Duration::ZERO)] {
            let (reached, agreed) = both(&[fine[0], wrong, fine[1]]);
            assert!(
                reached.is_some_and(|time| (NOW..=NOW + second).contains(&time)),
                "{wrong:?}: {reached:?}"
            );
            assert!(agreed.is_some_and(|time| (NOW..=NOW + second).contains(&time)), "{wrong:?}: {agreed:?}");
        }
    }

    #[test]
    fn two_of_three_that_differ_agree_on_nothing_and_the_later_one_does_not_count() {
        assert_eq!(both(&[Some(NOW + YEARS), Some(NOW), None]), (Some(NOW), None));
        assert_eq!(both(&[Some(NOW), None, Some(NOW - YEARS)]), (Some(NOW - YEARS), None));
        assert_eq!(both(&[Some(NOW + DAY), Some(NOW), Some(NOW - DAY)]), (Some(NOW), None));
    }

    #[test]
    fn fewer_than_a_quorum_say_nothing() {
        assert_eq!(both(&[Some(NOW), None, None]), (None, None));
        assert_eq!(both(&[Some(NOW), Some(NOW), None, None]), (None, None));
        assert_eq!(both(&[]), (None, None));
    }

    #[test]
    fn the_only_voter_is_believed_and_of_two_the_earlier_one() {
        assert_eq!(both(&[Some(NOW)]), (Some(NOW), Some(NOW)));
        let minute = Duration::from_secs(60);
        assert_eq!(both(&[Some(NOW), Some(NOW + minute)]), (Some(NOW), Some(NOW)));
        assert_eq!(both(&[Some(NOW), Some(NOW + YEARS)]), (Some(NOW), None));
    }
}
