//! A member's network is taken away and given back; its interface has another name then.

use std::time::Instant;

use trestle_testkit::containers::docker;

use crate::Bed;
use crate::bed::OUTAGE;

#[test]
fn a_holder_that_loses_its_network_does_not_answer_beside_its_successor_and_is_well_when_it_is_back() {
    let Some(bed) = Bed::new() else { return };
    for _ in 0..2 {
        let holder = bed.settle();
        let id = bed.stack.container(holder);
        let watch = bed.watch();
        watch.served_by(bed.stack.address(holder));
        let fault = Instant::now();
        docker(&["network", "disconnect", &bed.stack.name, &id]).unwrap();
        let next = bed.served(|member| member != holder);
        watch.served_by(bed.stack.address(next));
        docker(&["network", "connect", "--alias", holder, &bed.stack.name, &id]).unwrap();
        // Nothing is wrong any more, with its virtual IP neither.
        bed.settle();
        watch.end("docker network disconnect and connect", fault, OUTAGE);
        let vips = bed.json(&["vip", "list"]).unwrap().to_string();
        assert!(!vips.contains("no interface"), "{vips}");
    }
    // It can hold it again, on the interface that it has now.
    let holder = bed.settle();
    let other = if holder == "m1" { "m2" } else { "m1" };
    bed.stack.trestle(&["vip", "move", "--to", other, "--wait"]).unwrap();
    bed.served(|member| member == other);
}
