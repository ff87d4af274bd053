//! How many connections in what time: a token bucket.

use std::time::Duration;

/// Parts of a token in a whole one. Credit counts in these, so that nanoseconds times a rate is credit without a rest
/// and a rate of 3 a second is just that, however often it is asked for.
const TOKEN: i64 = 1_000_000_000;

/// So many tokens each second, of which so many may be saved up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come each second. With 0 none ever do.
    pub per_second: u32,
    /// Most tokens that are there at a time. With 0 there never is one.
    pub burst: u32,
}

impl Rate {
    fn full(self) -> i64 {
        i64::from(self.burst) * TOKEN
    }
}

/// The tokens of one listener or source; 16 bytes, as there may be very many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Parts of tokens at `at`; below zero while tokens are reserved that have not come yet.
    credit: i64,
    /// Nanoseconds on the caller's clock; enough for 584 years.
    at: u64,
}

impl Bucket {
    /// A full bucket at `now`, on the monotonic clock of all later calls.
    pub fn new(rate: Rate, now: Duration) -> Self {
        Self { credit: rate.full(), at: nanos(now) }
    }

    /// Takes a token if there is one. The rate may be another one than before: what was saved up to now counts, as far
    /// as the new burst goes. A time before that of an earlier call is taken as that one.
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        self.settle(rate, now);
        let there = self.credit >= TOKEN;
        if there {
            self.credit -= TOKEN;
        }
        there
    }

    /// Takes the next token that nobody has taken or reserved, and says how long from `now` until it is there: zero if it
    /// is, `None`, and none is taken, if there never will be one. So each of those who wait has a time of its own, in the
    /// order in which they came, and none has to ask again.
    pub fn reserve(&mut self, rate: Rate, now: Duration) -> Option<Duration> {
        self.settle(rate, now);
        let left = self.credit.checked_sub(TOKEN)?;
        let wait = match left {
            _ if rate.burst == 0 => return None,
            0.. => Duration::ZERO,
            _ if rate.per_second == 0 => return None,
            debt => {
                let after = Duration::from_nanos(debt.unsigned_abs().div_ceil(u64::from(rate.per_second)));
                // Counted from the last call, if that was later than `now`.
                after.saturating_add(Duration::from_nanos(self.at).saturating_sub(now))
            }
        };
        self.credit = left;
        Some(wait)
    }

    /// Puts a token back that was taken or reserved, and is not used.
    pub fn give_back(&mut self, rate: Rate) {
        self.credit = self.credit.saturating_add(TOKEN).min(rate.full());
    }

    /// Whether the bucket is as a new one would be, so that it may be forgotten.
    pub fn is_full(&self, rate: Rate, now: Duration) -> bool {
        self.credit_at(rate, now) >= rate.full()
    }

    fn settle(&mut self, rate: Rate, now: Duration) {
        self.credit = self.credit_at(rate, now);
        self.at = self.at.max(nanos(now));
    }

    fn credit_at(&self, rate: Rate, now: Duration) -> i64 {
        let passed = nanos(now).saturating_sub(self.at);
        let gained = passed.saturating_mul(u64::from(rate.per_second));
        self.credit.saturating_add(i64::try_from(gained).unwrap_or(i64::MAX)).min(rate.full())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    fn at(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    /// How long the next one waits who comes, if nobody does.
    fn wait(mut bucket: Bucket, rate: Rate, now: Duration) -> Option<Duration> {
        bucket.reserve(rate, now)
    }

    #[test]
    fn those_who_wait_have_times_of_their_own() {
        let rate = Rate { per_second: 2, burst: 1 };
        let mut bucket = Bucket::new(rate, at(0));
        let times: Vec<_> = (0..4).map(|_| bucket.reserve(rate, at(0)).unwrap().as_millis()).collect();
        assert_eq!(times, [0, 500, 1000, 1500]);
        // Who comes now waits behind them, and one of them who goes makes room for one.
        let second = Duration::from_secs(1);
        assert!(!bucket.take(rate, second));
        bucket.give_back(rate);
        assert_eq!(wait(bucket, rate, second), Some(Duration::from_millis(500)));
        assert!(bucket.take(rate, Duration::from_millis(1500)) && !bucket.take(rate, second));
    }

    #[test]
    fn a_token_that_was_put_back_can_be_taken_again() {
        let rate = Rate { per_second: 1, burst: 2 };
        let mut bucket = Bucket::new(rate, at(0));
        bucket.give_back(rate);
        assert!(bucket.take(rate, at(0)) && bucket.take(rate, at(0)) && !bucket.take(rate, at(0)));
        bucket.give_back(rate);
        assert!(bucket.take(rate, at(0)) && !bucket.take(rate, at(0)));
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate { per_second: 2, burst: 3 };
        let mut bucket = Bucket::new(rate, at(0));
        let taken: Vec<bool> = (0..4).map(|_| bucket.take(rate, at(0))).collect();
        assert_eq!(taken, [true, true, true, false]);
        assert_eq!(wait(bucket, rate, at(0)), Some(Duration::from_millis(500)));
        assert!(!bucket.take(rate, Duration::from_nanos(499_999_999)));
        assert!(bucket.take(rate, Duration::from_millis(500)));
        assert!(!bucket.take(rate, Duration::from_millis(999)));
        assert!(bucket.take(rate, Duration::from_secs(1)));
    }

    #[test]
    fn zeros_give_nothing() {
        for rate in [Rate { per_second: 0, burst: 0 }, Rate { per_second: 5, burst: 0 }] {
            let mut bucket = Bucket::new(rate, at(0));
            assert!(!bucket.take(rate, Duration::MAX));
            assert_eq!(wait(bucket, rate, at(0)), None);
        }
        let rate = Rate { per_second: 0, burst: 1 };
        let mut bucket = Bucket::new(rate, at(0));
        assert!(bucket.take(rate, at(0)) && !bucket.take(rate, Duration::MAX));
        assert_eq!(wait(bucket, rate, Duration::MAX), None);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let rate = Rate { per_second: 1, burst: 1 };
        let mut bucket = Bucket::new(rate, Duration::from_secs(10));
        assert!(bucket.take(rate, Duration::from_secs(10)));
        assert!(!bucket.take(rate, Duration::from_secs(5)));
        assert_eq!(wait(bucket, rate, Duration::from_secs(5)), Some(Duration::from_secs(6)));
        assert!(!bucket.take(rate, Duration::from_millis(10_999)));
        assert!(bucket.take(rate, Duration::from_secs(11)));
    }

    #[test]
    fn a_smaller_burst_counts_at_once() {
        let mut bucket = Bucket::new(Rate { per_second: 1, burst: 100 }, at(0));
        let rate = Rate { per_second: 1, burst: 1 };
        assert!(bucket.take(rate, at(0)) && !bucket.take(rate, at(0)));
    }

    proptest! {
        /// Asked at every time at which a token is due, the bucket gives exactly rate x time, to the nanosecond.
        #[test]
        fn nothing_drifts(per_second in 1u32..2_000_000, tokens in 1u64..2_000) {
            // With a burst of 1, what is left of a nanosecond is lost when a token is there.
            let rate = Rate { per_second, burst: 2 };
            let mut bucket = Bucket::new(rate, at(0));
            prop_assert!(bucket.take(rate, at(0)) && bucket.take(rate, at(0)));
            for n in 1..=tokens {
                let due = (n * TOKEN.unsigned_abs()).div_ceil(u64::from(per_second));
                prop_assert!(!bucket.take(rate, at(due - 1)), "token {n} came early");
                prop_assert_eq!(wait(bucket, rate, at(due - 1)), Some(at(1)));
                prop_assert!(bucket.take(rate, at(due)), "token {n} came late");
            }
        }

        #[test]
        fn never_more_than_burst_and_rate(
            per_second in any::<u32>(), burst in any::<u32>(), steps in prop::collection::vec(0u64..TOKEN.unsigned_abs(), 1..300),
        ) {
            let rate = Rate { per_second, burst };
            let mut bucket = Bucket::new(rate, at(0));
            let (mut now, mut taken) = (0, 0u128);
            for step in steps {
                now += step;
                taken += u128::from(bucket.take(rate, at(now)));
                let most = u128::from(burst) + u128::from(per_second) * u128::from(now) / TOKEN.unsigned_abs() as u128;
                prop_assert!(taken <= most);
            }
        }

        #[test]
        fn after_the_wait_there_is_a_token(
            per_second in any::<u32>(), burst in any::<u32>(), first in any::<u64>(), later in any::<u64>(),
        ) {
            let rate = Rate { per_second, burst };
            let mut bucket = Bucket::new(rate, at(first));
            while burst < 1_000 && bucket.take(rate, at(first)) {}
            match wait(bucket, rate, at(later)) {
                // Beyond the end of the clock nothing is promised.
                Some(wait) if u128::from(later) + wait.as_nanos() < u128::from(u64::MAX) => {
                    prop_assert!(bucket.take(rate, at(later) + wait));
                }
                Some(_) => {}
                None => prop_assert!(burst == 0 || per_second == 0),
            }
        }

        #[test]
        fn a_full_bucket_is_a_new_one(per_second in 1u32..1_000, burst in 1u32..1_000, wait in 0u64..TOKEN.unsigned_abs() * 10) {
            let rate = Rate { per_second, burst };
            let mut bucket = Bucket::new(rate, at(0));
            bucket.take(rate, at(0));
            let full = bucket.is_full(rate, at(wait));
            prop_assert_eq!(full, u128::from(wait) * u128::from(per_second) >= TOKEN.unsigned_abs() as u128);
            let tokens = (0..=burst).filter(|_| bucket.take(rate, at(wait))).count();
            prop_assert!(!full || tokens == burst as usize);
        }
    }
}
