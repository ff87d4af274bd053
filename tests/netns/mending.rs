//! Somebody takes away what a holder needs, and it comes back.

use std::process::Command;
use std::time::Duration;

use trestle_testkit::lab::{Fault, Host};
use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

/// Runs a program on a host; answers what it printed.
fn run(host: &Host, program: &str, arguments: &[&str]) -> String {
    let output = host.run(|| Command::new(program).args(arguments).output().unwrap());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The name of a member's tables.
fn table(bed: &Bed, member: usize) -> String {
    format!("trestle_{}", bed.name(member).replace('-', "_"))
}

#[test]
fn an_address_that_somebody_deletes_comes_back() {
    let Some(mut bed) = Bed::new() else { return };
    for _ in 0..2 {
        bed.endure(Fault::Delete);
    }
}

#[test]
fn a_link_that_goes_down_for_a_moment_comes_back_with_the_address() {
    let Some(mut bed) = Bed::new() else { return };
    for milliseconds in [50, 150, 1000] {
        bed.endure(Fault::Flap(Duration::from_millis(milliseconds)));
    }
}

#[test]
fn what_an_interface_kept_from_being_served_is_told_no_longer_than_it_lacks() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let everywhere = |bed: &Bed, commands: &[&str]| {
        for (host, command) in bed.lab.members.iter().flat_map(|host| commands.iter().map(move |c| (host, c)))
        {
            host.ip(command);
        }
    };
    let add = ["link add lan type bridge", "link set lan up"];
    everywhere(&bed, &add);
    bed.run(&["vip", "create", "10.79.0.50/24", "--name", "second", "--interface", "lan"]);
    let holder = bed.settle();
    let wait = |bed: &Bed, what: &str, done: &dyn Fn(&str) -> bool| {
        wait_for(what, LIMIT, || {
            let told = bed.json(&["vip", "get", "second"])["problems"].to_string();
            if done(&told) { Ok(()) } else { Err(told) }
        });
    };
    wait(&bed, "two that are held", &|told| told == "[]");

    // Nobody can hold it: who leads next tries in vain, and then leads no more.
    everywhere(&bed, &["link delete lan"]);
    wait(&bed, "the word of the interface", &|told| told.contains("interface lan"));
    let tries = bed.after(holder, 1);
    bed.run(&["leader", "transfer", "--to", &bed.name(tries)]);
    let word = format!("{}: 10.79.0.50/24 on lan: no interface has this name", bed.name(tries));
    wait(&bed, "the word of who tries", &|told| told.contains(&word));
    bed.run(&["leader", "transfer", "--to", &bed.name(holder)]);
    everywhere(&bed, &add);
    wait(&bed, "no word any more", &|told| told == "[]");
}

#[test]
fn a_fence_that_somebody_changes_is_put_back_without_a_failed_connection_and_told() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let holder = bed.settle();
    let (host, table) = (bed.lab.members[holder].clone(), table(&bed, holder));
    let watch = bed.watch();
    watch.served_by(host.ip);
    let mut repairs = 0;
    for change in [&["flush", "table", "inet", &table][..], &["flush", "ruleset"]] {
        run(&host, "nft", change);
        let view = wait_for("the word about it", LIMIT, || {
            let vip = bed.json(&["vip", "get", "front"]);
            let views = vip["views"].as_array().unwrap().clone();
            let view = views.into_iter().find(|view| view["member"] == *bed.name(holder)).unwrap();
            if view["fence_repairs"].as_u64().unwrap() > repairs { Ok(view) } else { Err(view.to_string()) }
        });
        repairs = view["fence_repairs"].as_u64().unwrap();
        assert!(view["fence_change"].as_str().unwrap().contains(&table), "{view}");
        assert_eq!(view["holds"], true, "{view}");
        watch.served_by(host.ip);
    }
    assert!(bed.run(&["vip", "get", "front"]).contains("another program changed its fence"));
    let repaired = |event: &serde_json::Value| {
        event["event"] == "fence-repaired" && event["member"] == *bed.name(holder)
    };
    assert!(bed.json(&["events"]).as_array().unwrap().iter().any(repaired));
    let log = bed.product.members[holder].output();
    let told: Vec<_> =
        log.lines().filter(|line| line.contains("fence changed by someone else, put back")).collect();
    assert!(!told.is_empty() && told.iter().all(|line| line.contains(" WARN ")), "{told:?}");
    let word =
        format!("problem: {}: its fence was changed by another program and put back, ", bed.name(holder));
    assert!(bed.run(&["status"]).contains(&word), "{}", bed.run(&["status"]));
    let failed = watch.end();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn what_a_killed_member_left_is_scrubbed_and_what_lives_is_not() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let Some(trial) = bed.endure(Fault::Kill) else { return };
    let scrub = |member: usize| run(&bed.lab.members[member], env!("CARGO_BIN_EXE_trestled"), &["scrub"]);
    let done = scrub(trial.holder);
    assert!(done.contains(&format!("removed: table {}\n", table(&bed, trial.holder))), "{done}");
    assert_eq!(scrub(trial.holder), "nothing was left here\n");
    let serving = trial.after.unwrap();
    let done = scrub(serving);
    assert!(done.starts_with(&format!("left alone: table {} ", table(&bed, serving))), "{done}");
    bed.served(bed.lab.target(), |by| by == serving);
}
