//! The holder stands still while its kernel goes on: it answers ARP and accepts connections without its daemon.

use std::time::Duration;

use trestle_testkit::lab::Fault;

use crate::Bed;

#[test]
fn a_stopped_holder_does_not_answer_beside_its_successor() {
    let Some(mut bed) = Bed::new() else { return };
    // Within the lease, around its end, while a successor is elected, after that, and after the address has gone.
    for milliseconds in [100, 270, 300, 450, 1000, 4000] {
        bed.endure(Fault::Stop(Duration::from_millis(milliseconds)));
    }
}

#[test]
fn a_frozen_holder_does_not_answer_beside_its_successor() {
    let Some(mut bed) = Bed::new() else { return };
    for milliseconds in [300, 2000] {
        bed.endure(Fault::Freeze(Duration::from_millis(milliseconds)));
    }
}

#[test]
#[ignore = "takes more than a minute"]
fn a_holder_that_is_stopped_for_a_minute_does_not_answer_beside_its_successor() {
    let Some(mut bed) = Bed::new() else { return };
    bed.endure(Fault::Stop(Duration::from_secs(60)));
}
