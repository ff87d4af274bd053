//! The holder dies, in one way or another.

use trestle_testkit::lab::Fault;

use crate::Bed;

#[test]
fn another_member_serves_when_the_holder_is_killed_and_its_kernel_gives_the_address_up() {
    let Some(mut bed) = Bed::new() else { return };
    for _ in 0..2 {
        let Some(trial) = bed.endure(Fault::Kill) else { return };
        assert_ne!(trial.after, Some(trial.holder), "{trial:?}");
        // Nobody starts the daemon again while this is watched.
        assert!(trial.gone.is_some(), "the address stays: {trial:?}");
    }
}

#[test]
fn another_member_serves_when_the_holder_is_out_of_reach() {
    let Some(mut bed) = Bed::new() else { return };
    for fault in [Fault::Cable, Fault::PowerOff, Fault::Cable] {
        let Some(trial) = bed.endure(fault) else { return };
        assert_ne!(trial.after, Some(trial.holder), "{trial:?}");
    }
}
