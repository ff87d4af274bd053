//! Others interfere: it is noticed and mended.

use std::time::{Duration, Instant};

use trestle_testkit::wait_for;

use super::lab::{LIMIT, Lab, expect_event, lease, vip};
use super::probing::{Prober, Question};
use crate::event::Mac;
use crate::nft::Nft;
use crate::route::RouteSocket;
use crate::sockets::{ArpSocket, NeighborSocket};
use crate::{KernelEvent, frames};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_deleted_address_comes_back() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    for text in ["10.77.0.50/24", "fd77::50/64"] {
        let vip = vip(text);
        kernel.claim(&vip, &lease(LONG)).unwrap();
        for _ in 0..2 {
            lab.members[0].ip(&format!("address del {} dev eth0", vip.address));
            let deleted = Instant::now();
            expect_event(&events, "the loss", |event| *event == KernelEvent::AddressLost(vip.address));
            kernel.restore(vip.address).unwrap();
            expect_event(&events, "the return", |event| *event == KernelEvent::AddressRestored(vip.address));
            println!("{text}: back after {:?}", deleted.elapsed());
            assert!(lab.members[0].has(&vip.address.to_string()));
            Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
        }
        let facts = kernel.facts();
        let facts = facts.vips.iter().find(|facts| facts.vip == vip).unwrap();
        assert_eq!(facts.repairs, 2);
    }
}

#[test]
fn a_cable_that_returns_and_an_interface_that_restarts_serve_again() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let (kernel, events) = member.open("member");
    let vips = ["10.77.0.50/24", "fd77::50/64"].map(vip);
    let lease = lease(LONG);
    for vip in &vips {
        kernel.claim(vip, &lease).unwrap();
    }
    let down = |event: &KernelEvent| *event == KernelEvent::LinkDown("eth0".to_owned());
    let up = |event: &KernelEvent| *event == KernelEvent::LinkUp("eth0".to_owned());
    let before = kernel.facts().vips[0].announcements;
    lab.cable(member, false);
    expect_event(&events, "the loss of the carrier", down);
    assert!(!kernel.facts().vips[0].link_up);
    lab.cable(member, true);
    expect_event(&events, "the carrier", up);
    vips.iter().for_each(|vip| kernel.announce(vip.address).unwrap());
    wait_for("announcements", LIMIT, || {
        let announcements = kernel.facts().vips[0].announcements;
        if announcements > before { Ok(()) } else { Err(format!("{announcements}, before {before}")) }
    });
    for vip in &vips {
        Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
    }
    // This takes the IPv6 addresses off the interface.
    member.ip("link set eth0 down");
    expect_event(&events, "the end of the interface", down);
    member.ip("link set eth0 up");
    expect_event(&events, "the interface", up);
    vips.iter().for_each(|vip| kernel.restore(vip.address).unwrap());
    // The host's own among them, which bring the route to the client.
    member.ip("address replace fd77::1/64 dev eth0 nodad");
    for vip in &vips {
        Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
    }
}

#[test]
fn a_renamed_interface_keeps_its_addresses() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    let vip = vip("10.77.0.50/24");
    kernel.claim(&vip, &lease(LONG)).unwrap();
    lab.members[0].ip("link set eth0 name wan0");
    let renamed = KernelEvent::Renamed { from: "eth0".to_owned(), to: "wan0".to_owned() };
    expect_event(&events, "the new name", |event| *event == renamed);
    lab.members[0].ip("address del 10.77.0.50 dev wan0");
    expect_event(&events, "the loss", |event| *event == KernelEvent::AddressLost(vip.address));
    kernel.restore(vip.address).unwrap();
    expect_event(&events, "the return", |event| *event == KernelEvent::AddressRestored(vip.address));
    Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
}

#[test]
fn an_interface_that_is_made_anew_gets_its_address_back() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let make = || {
        member.ip("link add link eth0 name upper0 type macvlan mode bridge");
        member.ip("link set upper0 up");
    };
    make();
    let (kernel, events) = member.open("member");
    let mut vip = vip("10.77.0.50/24");
    vip.interface = "upper0".to_owned();
    kernel.claim(&vip, &lease(LONG)).unwrap();
    member.ip("link del upper0");
    expect_event(&events, "the loss", |event| *event == KernelEvent::InterfaceGone("upper0".to_owned()));
    kernel.restore(vip.address).unwrap();
    make();
    kernel.restore(vip.address).unwrap();
    expect_event(&events, "the return", |event| *event == KernelEvent::AddressRestored(vip.address));
    Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
    assert!(kernel.facts().vips[0].link_up);
}

#[test]
fn a_flushed_ruleset_is_put_back() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    let vip = vip("10.77.0.50/24");
    let lease = lease(LONG);
    kernel.claim(&vip, &lease).unwrap();
    let other = || lab.members[0].run(|| Nft::open("trestle_member").unwrap());
    // What `nft flush ruleset` does to our tables.
    other().uninstall().unwrap();
    lease.extend(Instant::now() + LONG);
    expect_event(&events, "the rebuilding", |event| matches!(event, KernelEvent::FenceRebuilt(_)));
    assert_eq!(other().leftovers().unwrap(), [vip.address]);
    Prober::start(&lab.client, vip.address, Question::Echo).wait_for_answer();
    other().uninstall().unwrap();
    kernel.release(vip.address).unwrap();
    wait_for("the end of its fence", LIMIT, || {
        let left = other().leftovers().unwrap();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn another_owner_is_noticed_and_told() {
    let Some(lab) = Lab::build(1) else { return };
    let (kernel, events) = lab.members[0].open("member");
    let (v4, v6) = (vip("10.77.0.50/24"), vip("fd77::50/64"));
    let lease = lease(LONG);
    kernel.claim(&v4, &lease).unwrap();
    kernel.claim(&v6, &lease).unwrap();
    let foreign = Mac([2, 0xba, 0xd0, 0, 0, 1]);
    let heard = lab.client.run(|| {
        let index = RouteSocket::open().unwrap().interface("eth0").unwrap().unwrap().index;
        let arp = ArpSocket::open(index).unwrap();
        arp.send(&frames::announcements(foreign, "10.77.0.50".parse().unwrap())[0]).unwrap();
        let all_nodes = "ff02::1".parse().unwrap();
        let advertisement = frames::advertisement(foreign, "fd77::50".parse().unwrap());
        NeighborSocket::open().unwrap().send(&advertisement, all_nodes, index).unwrap();
        wait_for("the defence", LIMIT, || {
            kernel.announce(v4.address).unwrap();
            arp.heard().ok_or("nothing heard")
        })
    });
    assert_ne!(heard.mac, foreign);
    for address in [v4.address, v6.address] {
        let conflict = KernelEvent::Conflict { address, mac: foreign };
        expect_event(&events, "the conflict", |event| *event == conflict);
    }
    for facts in kernel.facts().vips {
        assert_eq!(facts.conflicts, 1);
        assert_eq!(facts.last_conflict.map(|(mac, _)| mac), Some(foreign));
    }
}

#[test]
fn an_owner_who_was_there_before_answers_the_probe() {
    let Some(lab) = Lab::build(2) else { return };
    lab.members[1].ip("address add 10.77.0.50/24 dev eth0");
    lab.members[1].ip("address add fd77::50/64 dev eth0 nodad");
    let (kernel, events) = lab.members[0].open("member");
    for text in ["10.77.0.50/24", "fd77::50/64"] {
        let vip = vip(text);
        kernel.claim(&vip, &lease(LONG)).unwrap();
        let conflict = |event: &KernelEvent| matches!(event, KernelEvent::Conflict { address, .. } if *address == vip.address);
        expect_event(&events, "the conflict", conflict);
    }
}
