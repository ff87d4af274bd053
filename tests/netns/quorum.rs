//! The holder is alone.

use trestle_testkit::lab::Fault;

use crate::Bed;

#[test]
fn a_holder_without_a_quorum_gives_the_address_up() {
    let Some(mut bed) = Bed::new() else { return };
    let Some(trial) = bed.one_holder(Fault::Alone) else { return };
    assert!(trial.gone.is_some(), "{trial:?}");
    assert_eq!(bed.lab.holders(), [0_usize; 0], "{trial:?}");
    assert!(bed.lab.served_by().is_err(), "somebody serves: {trial:?}");
}

#[test]
fn a_holder_that_is_told_to_hold_on_serves_without_a_quorum() {
    let Some(mut bed) = Bed::new() else { return };
    bed.product.run(&bed.lab, &["vip", "update", "front", "--on-quorum-loss", "hold"]);
    let Some(trial) = bed.endure(Fault::Alone) else { return };
    assert_eq!(trial.gone, None, "{trial:?}");
    assert_eq!(trial.after, Some(trial.holder), "{trial:?}");
}
