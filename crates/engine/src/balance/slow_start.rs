//! Slow start: how much of its weight a backend has that came back a moment ago.

use std::time::Duration;

/// Steps in which a backend's share grows to its weight. So weights of 1 have something in between, and a pool is
/// prepared anew this often and not for each connection.
const STEPS: u64 = 20;

/// How much of its weight counts for a backend: some of [`STEPS`] parts, at least one.
///
/// It counts for the algorithms that go by weights in each pick. It does not for a hash of the source, whose clients
/// would move with each step, to the backend and away from others, and most of them twice; nor for the first by name,
/// which goes by no weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlowStartRamp(u64);

impl SlowStartRamp {
    /// All of it.
    pub const FULL: Self = Self(STEPS);

    /// That of a backend that became healthy again `since` ago, in a pool in which a share takes `whole` to grow; and
    /// how long it stays so, or `None` when it is full. It grows linearly from one twentieth.
    pub fn at(since: Duration, whole: Duration) -> (Self, Option<Duration>) {
        // In nanoseconds: an hour is below 2^42.
        let (since, whole) = (since.as_nanos(), whole.as_nanos());
        if since >= whole {
            return (Self::FULL, None);
        }
        let steps = u128::from(STEPS);
        let done = since * steps / whole;
        let next = ((done + 1) * whole).div_ceil(steps) - since;
        let (done, next) = (u64::try_from(done).unwrap_or(STEPS), u64::try_from(next).unwrap_or(u64::MAX));
        (Self((done + 1).min(STEPS)), Some(Duration::from_nanos(next)))
    }

    /// A weight in parts, of which a warm backend has [`STEPS`] for each 1.
    pub(super) fn of(self, weight: u16) -> u64 {
        u64::from(weight) * self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: Duration = Duration::from_secs(60);

    #[test]
    fn warmth_grows_from_a_twentieth_to_all() {
        let at = |secs| SlowStartRamp::at(Duration::from_secs(secs), WHOLE);
        let left = |secs| Some(Duration::from_secs(secs));
        assert_eq!(at(0), (SlowStartRamp(1), left(3)));
        assert_eq!(at(2), (SlowStartRamp(1), left(1)));
        assert_eq!(at(3), (SlowStartRamp(2), left(3)));
        assert_eq!(at(30), (SlowStartRamp(11), left(3)));
        assert_eq!(at(59), (SlowStartRamp(20), left(1)));
        assert_eq!(at(60), (SlowStartRamp::FULL, None));
        assert_eq!(SlowStartRamp::at(Duration::ZERO, Duration::ZERO), (SlowStartRamp::FULL, None));
    }

    proptest! {
        #[test]
        fn every_wait_ends_with_the_next_step(whole in 1u64..3_600_000_000_000) {
            let whole = Duration::from_nanos(whole);
            let (mut since, mut before) = (Duration::ZERO, SlowStartRamp(0));
            let mut steps = 0;
            while let (ramp, Some(next)) = SlowStartRamp::at(since, whole) {
                prop_assert!(next > Duration::ZERO && ramp >= before);
                (since, before, steps) = (since + next, ramp, steps + 1);
            }
            prop_assert!(since == whole && steps <= STEPS);
        }
    }
}
