//! Members do not hear one another, while clients hear all of them.

use std::time::Duration;

use trestle_testkit::lab::{Cut, Fault};

use crate::Bed;

/// Long enough for a successor on a machine that does other things.
const TIME: Duration = Duration::from_secs(2);

#[test]
fn a_holder_that_is_cut_off_does_not_answer_beside_its_successor() {
    let Some(mut bed) = Bed::new() else { return };
    for _ in 0..2 {
        bed.endure(Fault::Cut(Cut::Both(0), TIME));
    }
}

#[test]
fn a_holder_that_is_heard_but_hears_nothing_does_not_answer_beside_its_successor() {
    let Some(mut bed) = Bed::new() else { return };
    bed.endure(Fault::Cut(Cut::To(0), TIME));
    bed.endure(Fault::Cut(Cut::From(0), TIME));
}

#[test]
fn members_that_only_a_third_one_hears_do_not_both_answer() {
    let Some(mut bed) = Bed::new() else { return };
    bed.endure(Fault::Cut(Cut::Between(0, 1), TIME));
    bed.endure(Fault::Cut(Cut::Between(0, 2), TIME));
    // The others lose each other; the holder hears both.
    bed.endure(Fault::Cut(Cut::Between(1, 2), TIME));
}
