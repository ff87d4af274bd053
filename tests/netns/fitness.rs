//! The holder should not hold the address any more, and says why.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use trestle_testkit::lab::{Lab, MEMBERS};
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
    let problem = format!(
        "{name} should not hold virtual IPs while another member can: {why}; \"trestle vip list\" shows each"
    );
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

/// Every change of who holds the virtual IPs so far.
fn moves(bed: &Bed) -> usize {
    bed.json(&["vip", "history"]).as_array().unwrap().len()
}

#[test]
fn a_mistake_in_something_new_moves_nothing_while_all_members_share_it() {
    let Some(mut bed) = Bed::unhurried() else { return };
    let holder = bed.settle();
    let exception = bed.after(holder, 1);
    // One has the interface, but without a cable; the others do not.
    bed.lab.members[exception].ip("link add nowhere0 type veth peer name nowhere1");
    let take = |member: usize| bed.lab.members[member].run(|| TcpListener::bind("0.0.0.0:8443").unwrap());
    let mut taken: Vec<Option<TcpListener>> = (0..MEMBERS).map(|member| Some(take(member))).collect();
    let before = moves(&bed);
    let vip = ["vip", "create", "10.77.0.60/24", "--name", "second", "--interface", "nowhere0"];
    let listener = ["listener", "create", "taken", "--bind", "front:8443", "--pool", "web"];
    for _ in 0..8 {
        bed.run(&vip);
        bed.run(&listener);
        for member in 0..MEMBERS {
            bed.unfit(member, "nowhere0");
            bed.unfit(member, "listener taken");
        }
        bed.run(&["listener", "delete", "taken"]);
        bed.run(&["vip", "delete", "second"]);
        for member in 0..MEMBERS {
            bed.fit(member);
        }
    }
    assert_eq!(moves(&bed), before, "{:?}", bed.history(usize::MAX));
    assert_eq!(bed.served(bed.lab.target(), |_| true), holder);

    // A mistake stops nothing else, and what one of them has mended is a reason to go there.
    bed.run(&vip);
    bed.run(&listener);
    (0..MEMBERS).for_each(|member| bed.unfit(member, "listener taken"));
    let next = bed.after(holder, 2);
    bed.run(&["vip", "move", "--to", &bed.name(next)]);
    bed.served(bed.lab.target(), |by| by == next);
    taken[exception] = None;
    let to = bed.served(bed.lab.target(), |by| by != next);
    assert_eq!(to, exception);
    bed.handed_over(
        next,
        to,
        "the holder was unfit: its data plane does not accept connections: listener taken: ",
    );
}

#[test]
fn clients_that_use_up_the_descriptors_move_nothing() {
    let Some(mut bed) = Bed::unhurried_with_descriptors(1024) else { return };
    let holder = bed.settle();
    let before = moves(&bed);
    let target = bed.lab.target();
    // From more than one address, because each has at most three quarters of what is left.
    let hosts =
        [&bed.lab.client, &bed.lab.members[bed.after(holder, 1)], &bed.lab.members[bed.after(holder, 2)]];
    let silent = hosts.map(|host| {
        host.run(|| -> Vec<TcpStream> {
            (0..600)
                .filter_map(|_| TcpStream::connect_timeout(&target, Duration::from_millis(100)).ok())
                .collect()
        })
    });
    wait_for("a member with next to no free descriptor", LIMIT, || {
        let status = bed.status_of(holder);
        let (used, max) = (status["descriptors_used"].as_u64(), status["descriptors_max"].as_u64());
        if used.zip(max).is_some_and(|(used, max)| used * 20 >= max * 19) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    // As long as it took to be called a fault, and some more.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(bed.status_of(holder)["unfit"].as_array().map(Vec::len), Some(0));
    assert_eq!(moves(&bed), before, "{:?}", bed.history(usize::MAX));
    drop(silent);
    assert_eq!(bed.served(target, |_| true), holder);
}

#[test]
fn a_fault_that_follows_the_virtual_ips_goes_round_once() {
    let dir = TempDir::with_prefix("trestle-checks-").unwrap();
    // It fails where the address is, as a check does that the holder's load makes fail.
    let check = dir.path().join("check");
    let script = "#!/bin/sh\n! ip -oneline address show | grep -q ' 10.77.0.50/'\n";
    std::fs::write(&check, script).unwrap();
    std::fs::set_permissions(&check, PermissionsExt::from_mode(0o755)).unwrap();
    let more = |_| {
        format!(
            "[vip]\ncheck = \"{}\"\ncheck_interval = \"500ms\"\ncheck_rise = 1\ncheck_fall = 1\n",
            check.display()
        )
    };
    let Some(bed) = Bed::unhurried_with(more) else { return };
    let given_up = |bed: &Bed| bed.history(usize::MAX).iter().filter(|e| e.event == "released").count();
    wait_for("a round", LIMIT, || match given_up(&bed) {
        count if count >= MEMBERS - 1 => Ok(()),
        count => Err(format!("{count} moves")),
    });
    let last = bed.served(bed.lab.target(), |_| true);
    let waiting: Vec<usize> = (0..MEMBERS).filter(|member| *member != last).collect();
    waiting.iter().for_each(|member| bed.unfit(*member, "counts as fit again in "));
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(given_up(&bed), MEMBERS - 1, "{:?}", bed.history(usize::MAX));
    // Whoever asks for a member gets it.
    bed.run(&["vip", "move", "--to", &bed.name(waiting[0])]);
}
