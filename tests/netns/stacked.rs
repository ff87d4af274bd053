//! Virtual IPs on interfaces that are stacked upon others, as in a network of several VLANs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use trestle_testkit::lab::{Lab, MEMBERS};
use trestle_testkit::wait_for;

use crate::Bed;
use crate::bed::LIMIT;

/// Found by its subnet.
const FOUR: IpAddr = IpAddr::V4(Lab::SECOND);
/// Its interface is named.
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 0x50));
const UPPER: &str = "eth0.10";

/// Gives a machine an interface of this kind upon its `eth0`, with an address of each family.
fn stack(lab: &Lab, member: Option<usize>, kind: &str) {
    let host = member.map_or(&lab.client, |member| &lab.members[member]);
    let number = host.ip.octets()[3];
    // Both interfaces may be on one network, and Linux would answer on each for addresses of the other: two members, as the
    // capture sees it (arp_ignore, Documentation/networking/ip-sysctl.rst).
    host.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap());
    host.ip(&format!("link add link eth0 name {UPPER} type {kind}"));
    host.ip(&format!("link set {UPPER} up"));
    host.ip(&format!("address add 10.78.0.{number}/24 dev {UPPER}"));
    host.ip(&format!("address add fd78::1:{number}/64 dev {UPPER} nodad"));
}

/// Waits until this member, and no other, has both addresses on its upper interface and serves them.
fn all_on(bed: &Bed, holder: usize) {
    for address in [FOUR, SIX] {
        wait_for(&format!("{address} on {} alone", bed.name(holder)), LIMIT, || {
            let found: Vec<_> =
                (0..MEMBERS).map(|member| bed.lab.members[member].interface_with(address)).collect();
            let right = |(member, found): (usize, &Option<String>)| {
                found.as_deref() == (member == holder).then_some(UPPER)
            };
            if found.iter().enumerate().all(right) { Ok(()) } else { Err(format!("{found:?}")) }
        });
        bed.served(SocketAddr::new(address, 80), |by| by == holder);
    }
}

fn virtual_ips_live_upon(kind: &str) {
    let Some(mut bed) = Bed::unhurried() else { return };
    for machine in (0..MEMBERS).map(Some).chain([None]) {
        stack(&bed.lab, machine, kind);
    }
    bed.run(&["vip", "create", &format!("{FOUR}/24"), "--name", "four"]);
    bed.run(&["vip", "create", &format!("{SIX}/64"), "--name", "six", "--interface", UPPER]);
    for name in ["four", "six"] {
        bed.run(&["listener", "create", name, "--bind", &format!("{name}:80"), "--pool", "web"]);
    }
    let first = bed.settle();
    all_on(&bed, first);
    let watch = bed.watch();
    for places in 1..=MEMBERS {
        let to = bed.after(first, places);
        bed.run(&["vip", "move", "--to", &bed.name(to)]);
        all_on(&bed, to);
    }

    // Taken away by hand, it comes back.
    let holder = &bed.lab.members[first];
    for address in [FOUR, SIX] {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let shown = holder.ip(&format!("-oneline address show dev {UPPER} to {address}/{whole}"));
        let with_prefix = shown.split_whitespace().nth(3).expect("the address is there");
        holder.ip(&format!("address delete {with_prefix} dev {UPPER}"));
    }
    all_on(&bed, first);

    // With the interface itself gone, whoever can holds all.
    holder.ip(&format!("link delete {UPPER}"));
    let second = bed.served(SocketAddr::new(FOUR, 80), |by| by != first);
    all_on(&bed, second);
    stack(&bed.lab, Some(first), kind);
    wait_for("a member that can hold again", LIMIT, || {
        let status = bed.status_of(first);
        if status["unfit"] == serde_json::json!([]) { Ok(()) } else { Err(status.to_string()) }
    });
    bed.run(&["vip", "move", "--to", &bed.name(first)]);
    all_on(&bed, first);
    watch.end();

    for name in ["four", "six"] {
        bed.run(&["listener", "delete", name]);
        bed.run(&["vip", "delete", name]);
    }
    wait_for("the end of the addresses", LIMIT, || {
        let left: Vec<_> = bed
            .lab
            .members
            .iter()
            .flat_map(|host| [FOUR, SIX].map(|one| host.interface_with(one)))
            .flatten()
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn virtual_ips_live_upon_a_macvlan() {
    virtual_ips_live_upon("macvlan mode bridge");
}

#[test]
#[ignore = "takes a kernel with 802.1Q (CONFIG_VLAN_8021Q), which small virtual machines often lack"]
fn virtual_ips_live_upon_a_vlan() {
    virtual_ips_live_upon("vlan id 10");
}
