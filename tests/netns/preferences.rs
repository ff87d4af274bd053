//! Leadership goes where the operator wants it, and the virtual IPs with it.

use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

/// Waits until the history says that this member took over from another one for this reason.
fn handed_over(bed: &Bed, from: usize, to: usize, reason: &str) {
    let taken = bed.name(to);
    wait_for(&format!("{taken} as the holder"), LIMIT, || {
        let history = bed.history(1);
        if history.iter().all(|entry| entry.event == "taken" && entry.member == taken) {
            Ok(())
        } else {
            Err(format!("{history:?}"))
        }
    });
    bed.handed_over(from, to, reason);
}

#[test]
fn the_address_follows_leadership_and_preference() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let first = bed.settle();
    let (next, last) = (bed.after(first, 1), bed.after(first, 2));
    let ip = |bed: &Bed, member: usize| bed.lab.members[member].ip;
    let watch = bed.watch();
    bed.run(&["leader", "transfer", "--to", &bed.name(next)]);
    watch.served_by(ip(&bed, next));
    handed_over(&bed, first, next, "the operator moved it");

    bed.run(&["vip", "update", "front", "--prefer", &bed.name(last), "--preference-delay", "0s"]);
    watch.served_by(ip(&bed, last));
    handed_over(&bed, next, last, "a preferred member is there");
    let failed = watch.end();
    assert!(failed.is_empty(), "{failed:?}");

    // It comes back when the one that it prefers does.
    bed.run(&["vip", "update", "front", "--preference-delay", "1s"]);
    bed.lab.members[last].kill();
    let between = bed.served(bed.lab.target(), |by| by != last);
    let watch = bed.watch();
    let host = bed.lab.members[last].clone();
    host.run(|| {
        // The process has ended, though nobody has waited for it yet.
        bed.product.members[last].exited();
        bed.product.members[last].start();
    });
    watch.served_by(ip(&bed, last));
    handed_over(&bed, between, last, "a preferred member is there");
    let failed = watch.end();
    assert!(failed.is_empty(), "{failed:?}");
    bed.run(&["vip", "update", "front", "--no-prefer"]);
    let vip = bed.json(&["vip", "get", "front"]);
    assert_eq!(
        (vip["prefer"].as_array().map(Vec::len), &vip["preference_delay"]),
        (Some(0), &"1s".into()),
        "{vip}"
    );
}
