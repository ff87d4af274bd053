//! The holder dies, in one way or another, or a part of it.

use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use trestle_testkit::lab::{Fault, MEMBERS, VIP, break_thread, hang_threads, panic_thread};
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
const THREADS: [&str; 7] = [
    "vip owner",
    "vip maintenance",
    "vip watch",
    "vip lease",
    "trestle-probe",
    "trestle-names",
    "trestle-log",
];

/// Members that have a service manager: what they tell it comes to a socket beside their file.
const MANAGED: &str = "export NOTIFY_SOCKET=\"$2.notify\" WATCHDOG_USEC=2000000 WATCHDOG_PID=$$";

/// Whether a member tells its service manager within two seconds that it is well, which it does each second.
fn is_well(manager: &UnixDatagram) -> bool {
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 256]).is_ok() {}
    manager.set_nonblocking(false).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut told = [0; 256];
    manager.recv(&mut told).is_ok_and(|length| told[..length].starts_with(b"WATCHDOG=1"))
}

/// The answer of a member's readiness, once it names all of these as silent.
fn not_ready(bed: &Bed, member: usize, named: &[&str]) -> String {
    wait_for("what hangs in the readiness", LIMIT, || {
        let page = bed.lab.members[member].run(|| get(bed.product.members[member].http(), "/readyz"))?;
        let silent = |name: &&&str| page.body.contains(&format!("{name} has given no sign of life"));
        let missing: Vec<_> = named.iter().filter(|name| !silent(name)).collect();
        if page.status == 503 && missing.is_empty() {
            Ok(page.body)
        } else {
            Err(format!("{missing:?}: {}", page.body))
        }
    })
}

#[test]
fn a_part_that_hangs_is_named_and_unfed_to_the_watchdog_and_another_member_serves_in_its_place() {
    let Some(mut bed) = Bed::unhurried_by(MANAGED) else { return };
    let member = bed.settle();
    let manager =
        UnixDatagram::bind(bed.product.members[member].config().with_extension("toml.notify")).unwrap();
    wait_for("a watchdog that is fed", LIMIT, || is_well(&manager).then_some(()).ok_or_else(String::new));
    let process = bed.product.members[member].process().id();
    let watch = bed.watch();
    // Nothing ends this member: its manager is a test.
    let Some(owner) = hang_threads(process, &THREADS[..1]) else { return };
    let to = bed.served(bed.lab.target(), |by| by != member && by < MEMBERS);
    not_ready(&bed, member, &THREADS[..1]);
    assert!(!is_well(&manager), "the watchdog is fed while {} hangs", THREADS[0]);
    bed.unfit(member, "the thread that holds them has given no sign of life");
    let Some(others) = hang_threads(process, &THREADS[1..]) else { return };
    not_ready(&bed, member, &THREADS);
    let told = bed.json(&["status"])["problems"].to_string();
    assert!(told.contains("has given no sign of life"), "{told}");
    drop((owner, others));
    ready(&bed, member);
    wait_for("a watchdog that is fed", LIMIT, || is_well(&manager).then_some(()).ok_or_else(String::new));
    // What the owner had in its queue brings nothing back.
    assert_eq!(bed.served(bed.lab.target(), |by| by < MEMBERS), to);
    watch.end();
}

#[test]
fn a_part_that_panics_ends_its_member_after_the_virtual_ips_were_let_go_of() {
    let Some(mut bed) = Bed::new() else { return };
    type Break = fn(u32, &str) -> bool;
    // Those that keep the virtual IPs wait for others to tell them, and have no descriptor to break. Without them the kernel lets go.
    let parts: [(&str, Break, &str, &str); 9] = [
        ("trestle-table", break_thread, "thread trestle-table panicked", "released"),
        ("trestle-probe", break_thread, "thread trestle-probe panicked", "released"),
        ("trestle-names", break_thread, "thread trestle-names panicked", "released"),
        ("trestle-data-0", panic_thread, "thread trestle-data-0 panicked", "released"),
        ("vip owner", panic_thread, "part=\"vip owner\" why=\"it panicked", "ended"),
        ("vip lease", panic_thread, "part=\"vip lease\"", "the kernel has closed the fence"),
        ("vip maintenance", panic_thread, "part=\"vip maintenance\"", "released"),
        ("vip watch", panic_thread, "part=\"vip watch\"", "released"),
        (LOG, panic_thread, "part=\"trestle-log\"", "released"),
    ];
    for (thread, broken, why, how) in parts {
        let holder = bed.settle();
        if !broken(bed.product.members[holder].process().id(), thread) {
            return;
        }
        assert_eq!(bed.product.members[holder].exited().code(), Some(74));
        assert_eq!(
            bed.lab.members[holder].interface_with(IpAddr::V4(VIP)),
            None,
            "the address is still there"
        );
        let log = bed.product.members[holder].output();
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(why)), "{log}");
        assert!(log.contains(how), "{how:?} is not in {log}");
        bed.served(bed.lab.target(), |by| by != holder && by < MEMBERS);
    }
}

/// Waits until a member is ready.
fn ready(bed: &Bed, member: usize) {
    wait_for("readiness", LIMIT, || {
        match bed.lab.members[member].run(|| get(bed.product.members[member].http(), "/readyz"))? {
            page if page.status == 200 => Ok(()),
            page => Err(page.body),
        }
    });
}

/// The thread that writes the log: it hangs with its disk.
const LOG: &str = "trestle-log";

#[test]
fn a_leader_whose_log_is_not_written_gives_leadership_away_and_is_no_successor() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let member = bed.settle();
    let watch = bed.watch();
    let Some(hung) = hang_threads(bed.product.members[member].process().id(), &[LOG]) else { return };
    let to = bed.served(bed.lab.target(), |by| by != member && by < MEMBERS);
    bed.run(&["pool", "create", "after", "--if-absent"]);
    bed.unfit(member, "the thread that writes its log, or the disk, has hung");
    not_ready(&bed, member, &[LOG]);
    let refusal = bed.refusal(&["vip", "move", "--to", &bed.name(member)]);
    assert!(refusal.contains("has hung"), "{refusal}");
    assert_eq!(bed.served(bed.lab.target(), |_| true), to);
    drop(hung);
    ready(&bed, member);
    watch.end();
}

#[test]
fn a_holder_serves_on_while_the_logs_of_all_others_hang() {
    let Some(mut bed) = Bed::new() else { return };
    let member = bed.settle();
    let others = (0..MEMBERS).filter(|other| *other != member);
    let hang = |other: usize| hang_threads(bed.product.members[other].process().id(), &[LOG]);
    let hung: Vec<_> = others.map(hang).collect();
    if hung.iter().any(Option::is_none) {
        return;
    }
    let watch = bed.watch();
    // Something is to be written, and none of them can.
    let refused =
        bed.product.try_run(&bed.lab, &["--timeout", "3s", "pool", "create", "after", "--if-absent"]);
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(bed.served(bed.lab.target(), |_| true), member);
    let failed = watch.end();
    assert!(failed.is_empty(), "{failed:?}");
    drop(hung);
    bed.run(&["pool", "create", "after", "--if-absent"]);
}
