//! Ends that would come together and are spread over a time, so that those who connect again do not come together either.

use std::time::Duration;

use crate::mix::mix;

/// The last `percent` of `whole`.
pub fn last_part(whole: Duration, percent: u32) -> Duration {
    whole.mul_f64(f64::from(percent.min(100)) / 100.0)
}

/// Where between two moments the one with this number ends. It is the same whenever asked, and numbers in a row lie anywhere,
/// as if drawn at random.
pub fn moment(number: u64, from: Duration, to: Duration) -> Duration {
    let mut state = number;
    // 53 bits are what a float holds exactly.
    let drawn = (mix(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
    from + to.saturating_sub(from).mul_f64(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn numbers_in_a_row_end_evenly_over_the_time() {
        // Also those of every third, or every 21st connection, as backends get them in turn.
        for step in [1, 2, 3, 21, 1024] {
            let mut places = [0; 10];
            for number in (1..=1000).map(|n| n * step) {
                let at = moment(number, ms(7200), ms(8000));
                assert!((ms(7200)..=ms(8000)).contains(&at), "{at:?}");
                let place = (at - ms(7200)).as_millis() as usize / 80;
                places[place.min(9)] += 1;
            }
            assert!(places.iter().all(|count| (65..=135).contains(count)), "{step}: {places:?}");
        }
    }

    #[test]
    fn one_number_ends_at_one_moment() {
        assert_eq!(moment(7, ms(5), ms(5)), ms(5));
        assert_eq!(moment(7, ms(9), ms(5)), ms(9));
        assert_eq!(moment(7, ms(0), ms(1000)), moment(7, ms(0), ms(1000)));
    }

    #[test]
    fn a_part_is_of_the_whole() {
        assert_eq!(last_part(ms(8000), 10), ms(800));
        assert_eq!(last_part(ms(8000), 0), Duration::ZERO);
        assert_eq!(last_part(Duration::MAX, 0), Duration::ZERO);
        assert!(last_part(Duration::from_secs(10 * 365 * 86_400), 50) > Duration::from_secs(86_400));
    }
}
