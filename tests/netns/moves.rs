//! An operator moves the address.

use std::time::{Duration, Instant};

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
    members_rest(&mut bed);
}

/// A thread that waits for a moment that has passed takes a whole processor.
fn members_rest(bed: &mut Bed) {
    bed.settle();
    let (begin, before) = (Instant::now(), used(bed));
    std::thread::sleep(Duration::from_secs(1));
    let most = begin.elapsed() / 4;
    for (member, (before, after)) in before.into_iter().zip(used(bed)).enumerate() {
        let used = after - before;
        assert!(used < most, "{} used {used:?} of a processor with next to nothing to do", bed.name(member));
    }
}

fn used(bed: &mut Bed) -> Vec<Duration> {
    bed.product.members.iter_mut().map(|member| member.usage().cpu).collect()
}
