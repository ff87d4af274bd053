//! Containers that are made anew have other addresses: members and backends are known by name.

use std::time::{Duration, Instant};

use trestle_testkit::containers::MEMBERS;
use trestle_testkit::{fetch_http, wait_for};

use crate::Bed;
use crate::bed::{LIMIT, OUTAGE};

/// Containers that take the addresses that were given up.
fn take_addresses(bed: &Bed, count: usize) -> Vec<String> {
    let name = |number: usize| format!("{}_taker{number}", bed.stack.name);
    let run = |number: usize| {
        let (name, network) = (name(number), &bed.stack.name);
        let image = crate::bed::image();
        trestle_testkit::containers::docker(&[
            "run",
            "--detach",
            "--no-healthcheck",
            "--name",
            &name,
            "--network",
            network,
            image,
            "sample-backend",
            "taker",
            // What has a backend's old address is no backend.
            "0.0.0.0:9",
        ])
        .unwrap()
    };
    (0..count).map(run).collect()
}

#[test]
fn members_that_are_made_anew_with_other_addresses_are_the_members_that_they_were() {
    let Some(bed) = Bed::new() else { return };
    bed.stack.trestle(&["pool", "create", "kept", "--health", "none"]).unwrap();
    let before: Vec<_> = MEMBERS.map(|member| bed.stack.address(member)).into();
    let watch = bed.watch();
    let fault = Instant::now();
    bed.stack.shell("docker compose rm --stop --force m1 m2 m3").unwrap();
    take_addresses(&bed, before.len());
    bed.stack.shell("docker compose up --detach --no-deps m1 m2 m3").unwrap();
    let after: Vec<_> = MEMBERS.map(|member| bed.stack.address(member)).into();
    assert!(after.iter().all(|address| !before.contains(address)), "{before:?} {after:?}");
    bed.settle();
    watch.end("members made anew", fault, OUTAGE + Duration::from_secs(80));
    let pools = bed.json(&["pool", "list"]).unwrap();
    assert!(pools.as_array().unwrap().iter().any(|pool| pool["name"] == "kept"), "{pools:#}");
}

#[test]
fn a_backend_that_is_made_anew_with_another_address_serves_under_its_name() {
    let Some(bed) = Bed::new() else { return };
    let before = bed.stack.address("b1");
    let both = |what: &str| {
        wait_for(what, LIMIT, || {
            let answers: Vec<_> =
                (0..10).map(|_| fetch_http(bed.stack.target())).collect::<Result<_, _>>()?;
            let from = |name: &str| answers.iter().any(|answer: &String| answer.contains(name));
            if from("backend b1") && from("backend b2") { Ok(()) } else { Err(format!("{answers:?}")) }
        });
    };
    both("answers of both backends");
    let watch = bed.watch();
    bed.stack.shell("docker compose rm --stop --force b1").unwrap();
    take_addresses(&bed, 1);
    bed.stack.shell("docker compose up --detach --no-deps b1").unwrap();
    assert_ne!(bed.stack.address("b1"), before);
    let begin = Instant::now();
    both("answers of the backend that was made anew");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "it took {took:?}");
    // There was another backend all the while. Until the check finds the old address dead, a client may wait for the pool's connect timeout.
    watch.end("a backend made anew", begin, OUTAGE);
}
