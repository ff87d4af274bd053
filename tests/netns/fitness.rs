//! The holder should not hold the address any more, and says why.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use trestle_testkit::lab::Lab;
use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

/// A program for each member that ends with the code that is in a file beside it.
fn checks(dir: &Path, members: usize) -> Vec<PathBuf> {
    let make = |member: usize| {
        let path = dir.join(format!("check-{member}"));
        std::fs::write(&path, "#!/bin/sh\nexit \"$(cat \"$0.code\")\"\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        end_with(&path, 0);
        path
    };
    (0..members).map(make).collect()
}

/// From now on the program ends with this code.
fn end_with(check: &Path, code: u8) {
    let file = check.with_extension("code");
    let new = check.with_extension("new");
    // The program never sees half of it.
    std::fs::write(&new, code.to_string()).unwrap();
    std::fs::rename(&new, &file).unwrap();
}

#[test]
fn a_holder_whose_own_check_fails_hands_over_until_it_succeeds() {
    let dir = TempDir::with_prefix("trestle-checks-").unwrap();
    let checks = checks(dir.path(), trestle_testkit::lab::MEMBERS);
    let more = |member: usize| {
        format!(
            "[vip]\ncheck = \"{}\"\ncheck_interval = \"500ms\"\ncheck_rise = 2\ncheck_fall = 2\n",
            checks[member].display()
        )
    };
    let Some(mut bed) = Bed::unhurried_with(more) else { return };
    let holder = bed.settle();
    let (name, watch) = (bed.name(holder), bed.watch());
    end_with(&checks[holder], 3);
    let to = bed.served(bed.lab.target(), |by| by != holder);
    watch.served_by(bed.lab.members[to].ip);
    let why = format!("its own check {} ended with exit status: 3", checks[holder].display());
    bed.handed_over(holder, to, &format!("the holder was unfit: {why}"));
    bed.unfit(holder, &why);
    let status = bed.json(&["status"]);
    let problem = format!("{name} should not hold virtual IPs while another member can: {why}");
    assert!(status["problems"].as_array().unwrap().contains(&problem.into()), "{status}");
    let refusal = bed.refusal(&["vip", "move", "--to", &name]);
    assert!(refusal.contains(&format!("member \"{name}\" cannot take over: ")), "{refusal}");

    end_with(&checks[holder], 0);
    bed.run(&["vip", "move", "--to", &name]);
    watch.served_by(bed.lab.members[holder].ip);
    assert_eq!(bed.status_of(holder)["unfit"].as_array().map(Vec::len), Some(0));
    let failed = watch.end();
    assert!(failed.is_empty(), "{failed:?}");

    // All fail for the same reason: somebody goes on.
    for (member, check) in checks.iter().enumerate() {
        end_with(check, 4);
        bed.unfit(member, "ended with exit status: 4");
    }
    let last = bed.served(bed.lab.target(), |_| true);
    let watch = bed.watch();
    watch.served_by(bed.lab.members[last].ip);
    watch.end();
}

/// Where the second network's virtual address is served.
const SECOND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Lab::SECOND), 80);

#[test]
fn a_holder_hands_over_when_an_interface_is_down_or_in_another_network() {
    let Some(mut bed) = Bed::unhurried() else { return };
    bed.lab.add_second_network();
    bed.run(&["vip", "create", &format!("{}/24", Lab::SECOND), "--name", "second"]);
    bed.run(&["listener", "create", "second", "--bind", "second:80", "--pool", "web"]);
    let holder = bed.settle();
    bed.served(SECOND, |by| by == holder);
    let (name, watch) = (bed.name(holder), bed.watch());

    bed.lab.members[holder].ip("link set eth1 down");
    let to = bed.served(SECOND, |by| by != holder);
    watch.served_by(bed.lab.members[to].ip);
    bed.handed_over(holder, to, "the holder was unfit: interface eth1 is down");
    bed.unfit(holder, "interface eth1 is down");
    bed.lab.members[holder].ip("link set eth1 up");
    bed.run(&["vip", "move", "--to", &name]);
    watch.served_by(bed.lab.members[holder].ip);
    bed.served(SECOND, |by| by == holder);
    watch.end();

    // The only one there is has no place there any more.
    bed.run(&["listener", "delete", "web"]);
    bed.run(&["vip", "delete", "front"]);
    let host = &bed.lab.members[holder];
    host.ip(&format!("address delete 10.78.0.{}/24 dev eth1", host.ip.octets()[3]));
    let to = bed.served(SECOND, |by| by != holder);
    let why = format!("no interface here suits {}", Lab::SECOND);
    bed.handed_over(holder, to, &why);
    bed.unfit(holder, &why);
}

#[test]
fn a_member_without_the_capability_says_so_and_never_holds() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let holder = bed.settle();
    let unable = bed.after(holder, 1);
    let name = bed.name(unable);
    assert!(bed.product.members[unable].stop().success());
    let host = bed.lab.members[unable].clone();
    host.run_without_net_admin(|| bed.product.members[unable].start());
    assert_eq!(bed.settle(), holder);
    bed.unfit(unable, "CAP_NET_ADMIN");
    assert_eq!(bed.status_of(unable)["vip_standing"], "unable");
    let status = bed.run(&["status"]);
    assert!(status.contains(&format!("{name} cannot hold virtual IPs: ")), "{status}");
    let refusal = bed.refusal(&["vip", "move", "--to", &name]);
    assert!(refusal.contains(&format!("member \"{name}\" cannot take over: ")), "{refusal}");

    // Without anything to hold it may lead; then there is something.
    bed.run(&["listener", "delete", "web"]);
    bed.run(&["vip", "delete", "front"]);
    bed.run(&["leader", "transfer", "--to", &name]);
    bed.run(&["vip", "create", "10.77.0.50/24", "--name", "front", "--interface", "eth0"]);
    bed.run(&["listener", "create", "web", "--bind", "front:80", "--pool", "web"]);
    let to = bed.served(bed.lab.target(), |by| by != unable);
    assert_eq!(bed.settle(), to);

    // Nor does it when the others are fewer.
    bed.lab.members[to].kill();
    let last = bed.served(bed.lab.target(), |by| by != to);
    assert_ne!(last, unable);
    wait_for("the former holder's end", LIMIT, || {
        if bed.lab.holders() == [last] { Ok(()) } else { Err(format!("{:?}", bed.lab.holders())) }
    });
}
