//! An operator moves the address.

use trestle_testkit::lab::Fault;

use crate::Bed;

#[test]
fn a_planned_move_fails_no_new_connection() {
    let Some(mut bed) = Bed::new() else { return };
    for _ in 0..4 {
        let Some(trial) = bed.endure(Fault::Move) else { return };
        assert_ne!(trial.after, Some(trial.holder), "{trial:?}");
        assert!(trial.failed.is_empty(), "{trial:?}");
    }
}
