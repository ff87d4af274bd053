//! The holder dies, in one way or another, or a part of it.

use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use trestle_testkit::lab::{Fault, MEMBERS, VIP, break_thread, hang_threads};
use trestle_testkit::{get, wait_for};

use crate::Bed;
use crate::bed::LIMIT;

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

/// Threads of which a holder has one each.
const THREADS: [&str; 6] =
    ["vip owner", "vip upkeep", "vip watch", "vip lease", "trestle-probe", "trestle-names"];

/// Members that have a service manager: what they tell it comes to a socket beside their file.
const MANAGED: &str = "export NOTIFY_SOCKET=\"$2.notify\" WATCHDOG_USEC=2000000 WATCHDOG_PID=$$";

/// Whether a member tells its service manager within three seconds that it is well, which it does each second.
fn is_well(manager: &UnixDatagram) -> bool {
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 256]).is_ok() {}
    manager.set_nonblocking(false).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut told = [0; 256];
    manager.recv(&mut told).is_ok_and(|length| told[..length].starts_with(b"WATCHDOG=1"))
}

#[test]
fn each_part_of_a_member_that_hangs_is_named_and_keeps_the_watchdog_from_being_fed() {
    let Some(mut bed) = Bed::unhurried_by(MANAGED) else { return };
    let member = bed.settle();
    let manager =
        UnixDatagram::bind(bed.product.members[member].config().with_extension("toml.notify")).unwrap();
    wait_for("a watchdog that is fed", LIMIT, || is_well(&manager).then_some(()).ok_or_else(String::new));
    let ready =
        |bed: &Bed| bed.lab.members[member].run(|| get(bed.product.members[member].http(), "/readyz"));
    for together in [&THREADS[1..2], &THREADS] {
        let Some(hung) = hang_threads(bed.product.members[member].process().id(), together) else { return };
        wait_for("all that hangs in the readiness", LIMIT, || {
            let page = ready(&bed)?;
            let named = |name: &&&str| page.body.contains(&format!("{name} has given no sign of life"));
            let missing: Vec<_> = together.iter().filter(|name| !named(name)).collect();
            if page.status == 503 && missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{missing:?}: {}", page.body))
            }
        });
        assert!(!is_well(&manager), "the watchdog is fed while {together:?} hang");
        let told = bed.json(&["status"])["problems"].to_string();
        assert!(told.contains("has given no sign of life"), "{told}");
        drop(hung);
        wait_for("readiness", LIMIT, || match ready(&bed)? {
            page if page.status == 200 => Ok(()),
            page => Err(page.body),
        });
        wait_for("a watchdog that is fed", LIMIT, || is_well(&manager).then_some(()).ok_or_else(String::new));
    }
}

#[test]
fn a_part_that_panics_ends_its_member_after_the_virtual_ips_were_let_go_of() {
    let Some(mut bed) = Bed::unhurried() else { return };
    for thread in ["trestle-table", "trestle-probe"] {
        let holder = bed.settle();
        if !break_thread(bed.product.members[holder].process().id(), thread) {
            return;
        }
        assert_eq!(bed.product.members[holder].exited().code(), Some(74));
        assert_eq!(
            bed.lab.members[holder].interface_with(IpAddr::V4(VIP)),
            None,
            "the address is still there"
        );
        let log = bed.product.members[holder].output();
        let why = format!("thread {thread} panicked");
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(&why)), "{log}");
        assert!(log.contains("released"), "{log}");
        bed.served(bed.lab.target(), |by| by != holder && by < MEMBERS);
    }
}
