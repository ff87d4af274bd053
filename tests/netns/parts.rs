//! A part of the holder dies while its process goes on.

use std::net::TcpStream;
use std::process::Command;

use trestle_testkit::lab::VIP;
use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

#[test]
fn a_holder_whose_log_cannot_be_written_releases_before_it_ends() {
    // Writes beyond a limit on the size of files are errors instead of signals (setrlimit(2)).
    let Some(mut bed) = Bed::unhurried_by("trap '' XFSZ") else { return };
    let holder = bed.settle();
    let own = bed.own(holder, 8081);
    bed.run(&["listener", "create", "own", "--bind", "0.0.0.0:8081", "--pool", "web"]);
    bed.served(own, |by| by == holder);
    let kept = bed.lab.client.run(|| TcpStream::connect(own).unwrap());
    let process = bed.product.members[holder].process().id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &process, "--fsize=16384"]).status().unwrap().success());
    let mut count = 0;
    let to = wait_for("another holder", LIMIT, || {
        for _ in 0..20 {
            count += 1;
            let _ = bed.product.try_run(&bed.lab, &["pool", "create", &format!("pool-{count}")]);
        }
        match bed.lab.served_by() {
            Ok(member) if member != holder => Ok(member),
            other => Err(format!("{other:?}")),
        }
    });
    assert_ne!(to, holder);
    assert!(!bed.lab.members[holder].has(VIP), "it has the address still");
    assert!(bed.product.members[holder].is_running(), "it waits for what is open");
    drop(kept);
    let status = bed.product.members[holder].exited();
    assert_eq!(status.code(), Some(74), "{}", bed.product.members[holder].output());
}
