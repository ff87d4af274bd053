//! What repeats is told a few times, and then counted.

use std::time::{Duration, Instant};

use trestle_engine::Repeats;

const WINDOW: Duration = Duration::from_secs(10);

#[test]
fn a_few_are_told_at_once_and_the_others_are_counted() {
    let (mut repeats, start) = (Repeats::new(WINDOW, 3), Instant::now());
    let told = (0..17).filter(|n| repeats.tell(start + Duration::from_millis(100 * n)).is_some()).count();
    assert_eq!(told, 3);
    assert_eq!(repeats.take_untold(start + WINDOW - Duration::from_millis(1)), None);
    assert_eq!(repeats.take_untold(start + WINDOW), Some(14));
    assert_eq!(repeats.take_untold(start + WINDOW), None, "each is told of once");
}

#[test]
fn the_next_one_tells_of_those_before_it() {
    let (mut repeats, start) = (Repeats::new(WINDOW, 1), Instant::now());
    assert_eq!(repeats.tell(start), Some(0));
    assert_eq!(repeats.tell(start), None);
    assert_eq!(repeats.tell(start + WINDOW), Some(1));
    assert_eq!(repeats.tell(start + WINDOW), None);
    // A clock that went back opens no window.
    assert_eq!(repeats.tell(start), None);
}
