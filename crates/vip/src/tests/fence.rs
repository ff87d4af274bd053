//! The fence alone: what the kernel lets pass.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use trestle_testkit::wait_for;

use super::lab::{LIMIT, Lab};
use super::probing::{Prober, Question};
use crate::frames;
use crate::nft::{FenceTimeout, Nft};
use crate::route::RouteSocket;
use crate::sockets::{ArpSocket, NeighborSocket};

const TABLE: &str = "trestle_fence";

#[test]
fn an_announcement_of_a_closed_address_does_not_leave() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    let (v4, v6): (IpAddr, IpAddr) = ("10.77.0.50".parse().unwrap(), "fd77::50".parse().unwrap());
    let (index, mac) = member.run(|| {
        let interface = RouteSocket::open().unwrap().interface("eth0").unwrap().unwrap();
        (interface.index, interface.mac.unwrap())
    });
    member.ip("address add fd77::50/128 dev eth0 nodad");
    let mut nft = member.run(|| Nft::open(TABLE).unwrap());
    nft.install(&[v4, v6]).unwrap();
    nft.guard_egress(index, "eth0");
    assert!(nft.fences_announcements());
    let socket = member.run(|| ArpSocket::open(index).unwrap());
    // What the fence drops counts as sent for packet sockets, and is refused (EPERM) for others.
    let announce = || {
        for frame in frames::announcements(mac, "10.77.0.50".parse().unwrap()) {
            let _ = socket.send(&frame);
        }
        let six = "fd77::50".parse().unwrap();
        let _ = member.run(|| {
            NeighborSocket::send_from(
                six,
                &frames::advertisement(mac, six),
                ALL_NODES.parse().unwrap(),
                index,
            )
        });
    };
    let (heard_arp, heard_discovery) = lab.client.run(|| {
        let index = RouteSocket::open().unwrap().interface("eth0").unwrap().unwrap().index;
        (ArpSocket::open(index).unwrap(), NeighborSocket::open().unwrap())
    });
    let mut arp = Vec::new();
    let mut wait_for_marker = |marker: &str| {
        let ip = marker.parse().unwrap();
        let marker = IpAddr::V4(ip);
        wait_for("the marker", LIMIT, || {
            // Not fenced: shows that what was sent before has arrived, or never will.
            for frame in frames::announcements(mac, ip) {
                socket.send(&frame).unwrap();
            }
            arp.extend(std::iter::from_fn(|| heard_arp.heard()).map(|heard| heard.address));
            if arp.contains(&marker) { Ok(()) } else { Err("not yet") }
        });
        std::mem::take(&mut arp)
    };
    // A port of the switch may take a moment to forward.
    wait_for_marker("10.77.0.59");
    announce();
    assert!(!wait_for_marker("10.77.0.60").contains(&v4), "a closed address was announced");
    assert_eq!(heard_discovery.heard(), None);

    let until = Instant::now() + LIMIT;
    nft.arm(&[FenceTimeout { address: v4, until }, FenceTimeout { address: v6, until }]).unwrap();
    announce();
    assert!(wait_for_marker("10.77.0.61").contains(&v4));
    wait_for("the advertisement", LIMIT, || heard_discovery.heard().ok_or("nothing heard"));
}

const ALL_NODES: &str = "ff02::1";

#[test]
fn a_thread_that_is_stopped_while_it_arms_arms_nothing() {
    let Some(lab) = Lab::build(1) else { return };
    let member = &lab.members[0];
    member.ip("address add 10.77.0.50/24 dev eth0");
    let address: IpAddr = "10.77.0.50".parse().unwrap();
    let mut nft = member.run(|| Nft::open(TABLE).unwrap());
    nft.install(&[address]).unwrap();
    // Stopped each time after it has read the clock, for longer than the guard lives.
    let stopped = || {
        let now = Instant::now();
        std::thread::sleep(Duration::from_millis(30));
        now
    };
    let until = Instant::now() + LIMIT;
    let refused = nft.arm_by(&[FenceTimeout { address, until }], stopped).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOENT), "{refused}");
    let prober = Prober::start(&lab.client, address, Question::Owner);
    prober.wait_for_questions(20);
    assert!(prober.finish().iter().all(|asked| !asked.answered), "the fence was opened");
    nft.arm(&[FenceTimeout { address, until }]).unwrap();
    Prober::start(&lab.client, address, Question::Echo).wait_for_answer();
}

#[test]
fn other_addresses_of_the_machine_are_not_touched() {
    let Some(lab) = Lab::build(1) else { return };
    let mut nft = lab.members[0].run(|| Nft::open(TABLE).unwrap());
    nft.install(&["10.77.0.50".parse().unwrap(), "fd77::50".parse().unwrap()]).unwrap();
    for own in ["10.77.0.1", "fd77::1"] {
        for question in [Question::Echo, Question::Owner] {
            Prober::start(&lab.client, own.parse().unwrap(), question).wait_for_answer();
        }
    }
}

#[test]
fn what_a_machine_forwards_to_another_holder_passes() {
    let Some(lab) = Lab::build(2) else { return };
    let (router, holder) = (&lab.members[0], &lab.members[1]);
    let mut nft = router.run(|| Nft::open(TABLE).unwrap());
    nft.install(&["10.77.0.50".parse().unwrap(), "fd77::50".parse().unwrap()]).unwrap();
    for (kind, vip, gateway, file) in [
        ("-4", "10.77.0.50/24", "10.77.0.1", "/proc/sys/net/ipv4/ip_forward"),
        ("-6", "fd77::50/64", "fd77::1", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ] {
        router.run(|| std::fs::write(file, "1").unwrap());
        holder.ip(&format!("address add {vip} dev eth0"));
        let address = vip.split('/').next().unwrap();
        lab.client.ip(&format!("{kind} route add {address} via {gateway}"));
        Prober::start(&lab.client, address.parse().unwrap(), Question::Echo).wait_for_answer();
    }
}
