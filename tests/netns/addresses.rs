//! Several virtual IPs, of both families and on interfaces of different names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use trestle_testkit::lab::{Lab, MEMBERS, VIP};
use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

const SIX: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x50));
const SECOND: IpAddr = IpAddr::V4(Lab::SECOND);

/// The member whose interface in the second network is a bridge of its own.
const BRIDGED: usize = 1;

/// Adds a network and a family.
fn prepare(lab: &Lab) {
    lab.add_second_network();
    let host = &lab.members[BRIDGED];
    host.ip("link add lan type bridge forward_delay 0 mcast_snooping 0");
    host.ip("link set eth1 master lan");
    host.ip(&format!("address delete 10.78.0.{}/24 dev eth1", host.ip.octets()[3]));
    host.ip(&format!("address add 10.78.0.{}/24 dev lan", host.ip.octets()[3]));
    host.ip("link set lan up");
    for host in lab.members.iter().chain([&lab.client]) {
        host.ip(&format!("address add fd77::1:{}/64 dev eth0 nodad", host.ip.octets()[3]));
    }
}

/// Where this member has an address of the second network.
fn second_on(member: usize) -> &'static str {
    if member == BRIDGED { "lan" } else { "eth1" }
}

/// Waits until one member has all addresses, each where it belongs, and serves them, and no other has any.
fn all_on(bed: &Bed, holder: usize) {
    let wanted = [(IpAddr::V4(VIP), "eth0"), (SECOND, second_on(holder)), (SIX, "eth0")];
    for (address, interface) in wanted {
        wait_for(&format!("{address} on {}", bed.name(holder)), LIMIT, || {
            let found: Vec<_> =
                (0..MEMBERS).map(|member| bed.lab.members[member].interface_with(address)).collect();
            let right = |(member, found): (usize, &Option<String>)| match member == holder {
                true => found.as_deref() == Some(interface),
                false => found.is_none(),
            };
            if found.iter().enumerate().all(right) { Ok(()) } else { Err(format!("{found:?}")) }
        });
        bed.served(SocketAddr::new(address, 80), |by| by == holder);
    }
}

/// Checks what the list says of three virtual IPs that a member holds.
fn listed(bed: &Bed, holder: usize) {
    let (list, name) = (bed.json(&["vip", "list"]), bed.name(holder));
    let vips = list.as_array().unwrap();
    let names: Vec<_> = vips.iter().map(|vip| vip["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["front", "second", "six"], "{list}");
    for vip in vips {
        assert_eq!(
            (&vip["holder"], vip["holders"].as_array().unwrap().len()),
            (&Value::from(&*name), 1),
            "{vip}"
        );
        assert_eq!(vip["problems"].as_array().map(Vec::len), Some(0), "{vip}");
        let views = vip["views"].as_array().unwrap();
        assert_eq!(views.len(), MEMBERS, "{vip}");
        for view in views {
            let holds = view["member"] == *name;
            assert_eq!((&view["holds"], &view["address_present"]), (&holds.into(), &holds.into()), "{vip}");
            assert_eq!(view["fence_open_for"].is_string(), holds, "{vip}");
            assert!(!holds || view["announced_ago"].is_string(), "{vip}");
            let second = if view["member"] == *bed.name(BRIDGED) { second_on(BRIDGED) } else { "eth1" };
            assert_eq!(view["interface"], if vip["name"] == "second" { second } else { "eth0" }, "{vip}");
        }
    }
    assert_eq!((&vips[2]["address"], &vips[2]["interface"]), (&"fd77::50/64".into(), &().into()), "{list}");
}

#[test]
fn several_addresses_of_both_families_move_together() {
    let Some(mut bed) = Bed::unhurried() else { return };
    prepare(&bed.lab);
    let lan = format!("{}=lan", bed.name(BRIDGED));
    let second = format!("{SECOND}/24");
    bed.run(&["vip", "create", &second, "--name", "second", "--interface", "eth1", "--interface-on", &lan]);
    bed.run(&["vip", "create", &format!("{SIX}/64"), "--name", "six"]);
    for name in ["second", "six"] {
        bed.run(&["listener", "create", name, "--bind", &format!("{name}:80"), "--pool", "web"]);
    }
    let first = bed.settle();
    all_on(&bed, first);
    let watch = bed.watch();
    for places in 1..MEMBERS {
        let to = bed.after(first, places);
        bed.run(&["vip", "move", "--to", &bed.name(to)]);
        all_on(&bed, to);
        listed(&bed, to);
    }
    // The network tells the interface as well.
    bed.run(&["vip", "update", "second", "--no-interface", "--no-interface-on"]);
    bed.run(&["vip", "move", "--to", &bed.name(BRIDGED)]);
    all_on(&bed, BRIDGED);
    listed(&bed, BRIDGED);
    watch.end();
}

#[test]
fn an_address_that_no_member_can_have_takes_no_other_away_and_can_be_mended_or_deleted() {
    let Some(mut bed) = Bed::unhurried() else { return };
    prepare(&bed.lab);
    let holder = bed.settle();
    let watch = bed.watch();
    let create = ["vip", "create", &format!("{SECOND}/24"), "--name", "second", "--interface", "nowhere0"];
    let refusal = bed.refusal(&create);
    let named = format!("vip.interface \"nowhere0\": must be one that a member could hold {SECOND}/24 on");
    assert!(refusal.contains(&named), "{refusal}");
    for member in 0..MEMBERS {
        let there = if member == BRIDGED { "eth0, eth1, lan" } else { "eth0, eth1" };
        // Members that say the same stand together.
        let (name, words) = (bed.name(member), format!(": there is no interface nowhere0, but {there}"));
        let mut parts = refusal.split("; ");
        assert!(parts.any(|part| part.contains(&name) && part.contains(&words)), "{name}{words}: {refusal}");
    }
    // What one member has may be meant.
    bed.lab.members[holder].ip("link add nowhere0 type veth peer name nowhere1");
    bed.run(&create);
    bed.lab.members[holder].ip("link delete nowhere0");
    bed.run(&["listener", "create", "second", "--bind", "second:80", "--pool", "web"]);
    for member in 0..MEMBERS {
        bed.unfit(member, "there is no interface nowhere0");
    }
    assert_eq!(bed.served(bed.lab.target(), |_| true), holder, "it moved for what all have");
    watch.served_by(bed.lab.members[holder].ip);
    let vip = bed.json(&["vip", "get", "second"]);
    assert!(
        vip["holder"].is_null() && vip["problems"][0].as_str().unwrap().starts_with("no member holds it"),
        "{vip}"
    );

    let lan = format!("{}=lan", bed.name(BRIDGED));
    let refusal = bed.refusal(&["vip", "update", "second", "--interface", "nowhere2"]);
    assert!(refusal.contains("there is no interface nowhere2"), "{refusal}");
    bed.run(&["vip", "update", "second", "--interface", "eth1", "--interface-on", &lan]);
    bed.served(SocketAddr::new(SECOND, 80), |_| true);

    let refusal = bed.refusal(&["vip", "delete", "second"]);
    assert!(refusal.contains("listener"), "{refusal}");
    bed.run(&["listener", "delete", "second"]);
    bed.run(&["vip", "delete", "second"]);
    wait_for("the end of the address", LIMIT, || {
        let found: Vec<_> = bed.lab.members.iter().filter_map(|host| host.interface_with(SECOND)).collect();
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let holder = bed.served(bed.lab.target(), |_| true);
    watch.served_by(bed.lab.members[holder].ip);
    watch.end();
    assert_eq!(bed.json(&["vip", "list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn an_address_that_cannot_be_a_virtual_ip_is_refused_with_the_reason() {
    let Some(mut bed) = Bed::unhurried() else { return };
    bed.settle();
    let refused = |address: &str, words: &str| {
        let said = bed.refusal(&["vip", "create", address, "--name", "oops"]);
        assert!(said.contains(words), "{address}: {said}");
    };
    for member in 0..MEMBERS {
        let words = format!("must not be the peer address of member \"{}\"", bed.name(member));
        refused(&format!("{}/24", bed.lab.members[member].ip), &words);
    }
    // One that nothing but its host knows of, with and without an interface.
    bed.lab.members[1].ip("address add 10.77.0.77/24 dev eth0");
    let words =
        format!("must not be an address that member \"{}\" has: it is an address of its host", bed.name(1));
    refused("10.77.0.77/24", &words);
    let said = bed.refusal(&["vip", "create", "10.77.0.77/24", "--name", "oops", "--interface", "eth0"]);
    assert!(said.contains(&words), "{said}");
    refused("10.77.0.0/24", "it is the network address of its network");
    refused("10.77.0.255/24", "it is the broadcast address of its network");
    refused("192.0.2.7/24", "no interface has an address in the network of 192.0.2.7/24");
    let said = bed.refusal(&["vip", "create", "192.0.2.7/24", "--name", "oops", "--dry-run"]);
    assert!(said.contains("must be one that a member could hold"), "{said}");
    assert_eq!(bed.json(&["vip", "list"]).as_array().map(Vec::len), Some(1));

    // Where one could, the others are named.
    bed.lab.members[2].ip("address add 192.0.2.3/24 dev eth0");
    bed.run(&["vip", "create", "192.0.2.7/24", "--name", "some"]);
    bed.unfit(0, "no interface here suits 192.0.2.7");
    bed.unfit(1, "no interface here suits 192.0.2.7");
    bed.served(bed.lab.target(), |_| true);
}
