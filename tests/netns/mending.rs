//! Somebody takes away what a holder needs, and it comes back.

use std::time::Duration;

use trestle_testkit::lab::Fault;

use crate::Bed;

#[test]
fn an_address_that_somebody_deletes_comes_back() {
    let Some(mut bed) = Bed::new() else { return };
    for _ in 0..2 {
        bed.endure(Fault::Delete);
    }
}

#[test]
fn a_link_that_goes_down_for_a_moment_comes_back_with_the_address() {
    let Some(mut bed) = Bed::new() else { return };
    for milliseconds in [50, 150, 1000] {
        bed.endure(Fault::Flap(Duration::from_millis(milliseconds)));
    }
}
