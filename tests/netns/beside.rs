//! The members' own addresses beside the virtual one: they stay, and everything that members open comes from them.

use std::time::Duration;

use trestle_testkit::lab::{Fault, Host, VIP};
use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

fn promote_secondaries(host: &Host, promote: &str) {
    host.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", promote).unwrap());
}

/// What a network service does when it applies its file again, here or with another prefix.
fn readdress(host: &Host, prefix: u8) {
    host.delete_address(host.ip);
    host.ip(&format!("address add {}/{prefix} dev eth0", host.ip));
}

/// Waits until the virtual address is gone from a host, and checks that its own is not.
fn keeps_its_own(host: &Host) {
    wait_for("the end of the virtual address there", LIMIT, || match host.has(VIP) {
        true => Err("it is there"),
        false => Ok(()),
    });
    assert!(host.has(host.ip), "{} went with the virtual address", host.ip);
}

#[test]
fn a_virtual_ip_that_was_there_first_takes_no_address_with_it() {
    let Some(mut bed) = Bed::unhurried() else { return };
    for (promote, prefix) in [("0", 24), ("1", 24), ("0", 16)] {
        bed.lab.members.iter().for_each(|host| promote_secondaries(host, promote));
        let holder = bed.settle();
        readdress(&bed.lab.members[holder], prefix);
        // Its backend tells who it sees: the member's own address, and no other.
        bed.served(bed.lab.target(), |by| by == holder);
        let to = bed.after(holder, 1);
        bed.run(&["vip", "move", "--to", &bed.name(to)]);
        bed.served(bed.lab.target(), |by| by == to);
        keeps_its_own(&bed.lab.members[holder]);
    }
    let holder = bed.settle();
    readdress(&bed.lab.members[holder], 24);
    bed.served(bed.lab.target(), |by| by == holder);
    let Some(trial) = bed.endure(Fault::Kill) else { return };
    assert!(trial.gone.is_some_and(|gone| gone < Duration::from_secs(10)), "{trial:?}");
    keeps_its_own(&bed.lab.members[trial.holder]);
}
