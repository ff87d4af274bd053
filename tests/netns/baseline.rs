//! The lab sees what it is made for: nothing fences keepalived, so two members answer there.

use std::time::Duration;

use trestle_testkit::lab::{Fault, Keepalived, Lab, Trial};

use crate::bed::alone;

#[test]
fn a_killed_keepalived_leaves_two_holders() {
    let _alone = alone();
    let Some(lab) = Lab::build() else { return };
    let Some(mut product) = Keepalived::new(&lab) else { return };
    let trial = Trial::run(&lab, &mut product, Fault::Kill, Duration::from_millis(5)).unwrap();
    assert!(trial.dual.answers > 0 && !trial.dual.time.is_zero(), "{trial:?}");
    assert_eq!(trial.gone, None, "the address went: {trial:?}");
    assert_ne!(trial.after, Some(trial.holder), "{trial:?}");
}
