//! The host's own addresses beside a virtual IP: they stay, and the host's own connections come from them.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use trestle_testkit::wait_for;

use super::agent::Agent;
use super::lab::{Host, LIMIT, Lab, lease, settings, vip};
use super::probing::{Prober, Question};
use crate::LinuxKernel;
use crate::nft::Nft;

const LONG: Duration = Duration::from_secs(60);
const VIP: &str = "10.77.0.50/24";
/// Destinations by every kind of route that names no source: a gateway of the host's network, one of no network, none at all.
const ROUTES: [(&str, &str); 3] = [
    ("default via 10.77.0.100", "198.51.100.1"),
    ("10.9.0.0/16 via 169.254.1.1 dev eth0 onlink", "10.9.0.1"),
    ("10.8.0.0/16 dev eth0", "10.8.0.1"),
];

fn promote(host: &Host, promote: &str) {
    host.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", promote).unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", promote).unwrap();
    });
}

/// The source that the host gives a connection; `None` when there is no way.
fn source(host: &Host, to: &str) -> Option<IpAddr> {
    host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().unwrap().ip())
    })
}

/// Waits until the host's connections come from `own` wherever they go; routes that went with an address are made again, as
/// network services do.
fn expect_source(host: &Host, own: &str) {
    for (route, _) in ROUTES {
        host.ip(&format!("route replace {route}"));
    }
    let own: IpAddr = own.parse().unwrap();
    for to in ROUTES.map(|(_, to)| to).into_iter().chain(["10.77.0.100", "10.77.0.7"]) {
        wait_for(&format!("the source of a connection to {to}"), LIMIT, || match source(host, to) {
            Some(found) if found == own => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// What a network service does when it applies its file again.
fn readdress(host: &Host, prefix: u8) {
    host.ip(&format!("address add 10.77.0.1/{prefix} dev eth0"));
}

#[test]
fn the_hosts_connections_come_from_its_own_address_whatever_came_first() {
    let Some(lab) = Lab::build(1) else { return };
    let host = &lab.members[0];
    let (kernel, _events) = host.open("member");
    for prefix in [24, 16, 32] {
        for late in [false, true] {
            host.ip("-4 address flush dev eth0 scope global");
            let before = if late { "is late" } else { "was there" };
            println!("/{prefix}, which {before}");
            if !late {
                readdress(host, prefix);
            }
            kernel.claim(&vip(VIP), &lease(LONG)).unwrap();
            if late {
                readdress(host, prefix);
            }
            if prefix == 32 {
                host.ip("route replace 10.77.0.0/24 dev eth0");
            }
            expect_source(host, "10.77.0.1");
            Prober::start(&lab.client, vip(VIP).address, Question::Echo).wait_for_answer();
            Prober::start(&lab.client, vip(VIP).address, Question::Owner).wait_for_answer();
            // Once more while it is held.
            host.ip(&format!("address delete 10.77.0.1/{prefix} dev eth0"));
            readdress(host, prefix);
            if prefix == 32 {
                host.ip("route replace 10.77.0.0/24 dev eth0");
            }
            expect_source(host, "10.77.0.1");
            kernel.release(vip(VIP).address).unwrap();
            wait_for("the removal", LIMIT, || if host.has("10.77.0.50") { Err("there") } else { Ok(()) });
            assert!(host.has("10.77.0.1"));
        }
    }
}

#[test]
fn a_virtual_ip_alone_on_its_interface_is_no_source() {
    let Some(lab) = Lab::build(1) else { return };
    let host = &lab.members[0];
    let (kernel, _events) = host.open("member");
    let kernel_with = |two: bool| {
        kernel.claim(&vip(VIP), &lease(LONG)).unwrap();
        if two {
            kernel.claim(&vip("10.77.0.51/24"), &lease(LONG)).unwrap();
        }
    };
    host.ip("address add 192.0.2.1/32 dev lo");
    host.ip("-4 address flush dev eth0 scope global");
    kernel_with(true);
    host.ip("route replace 10.77.0.0/24 dev eth0");
    expect_source(host, "192.0.2.1");
    Prober::start(&lab.client, vip(VIP).address, Question::Echo).wait_for_answer();
    readdress(host, 24);
    expect_source(host, "10.77.0.1");
    host.ip("address delete 10.77.0.1/24 dev eth0");
    host.ip("route replace 10.77.0.0/24 dev eth0");
    expect_source(host, "192.0.2.1");
    Prober::start(&lab.client, vip(VIP).address, Question::Echo).wait_for_answer();
}

#[test]
fn a_virtual_ip_that_goes_leaves_the_hosts_own_address() {
    let Some(lab) = Lab::build(1) else { return };
    let host = &lab.members[0];
    for setting in ["0", "1"] {
        promote(host, setting);
        for dies in [false, true] {
            host.ip("-4 address flush dev eth0 scope global");
            let mut agent = dies.then(|| Agent::start(host, &[VIP]));
            let kernel = (!dies).then(|| {
                let (kernel, _events) = host.open("member");
                kernel.claim(&vip(VIP), &lease(LONG)).unwrap();
                kernel
            });
            readdress(host, 24);
            if let Some(agent) = &mut agent {
                agent.kill();
            }
            drop(kernel);
            wait_for("the removal", LIMIT, || if host.has("10.77.0.50") { Err("there") } else { Ok(()) });
            assert!(host.has("10.77.0.1"), "promote_secondaries {setting}, killed: {dies}");
        }
    }
}

/// Versions before added it with the prefix of its network.
#[test]
fn an_address_of_an_earlier_version_is_replaced_and_takes_no_other_with_it() {
    let Some(lab) = Lab::build(1) else { return };
    let host = &lab.members[0];
    let earlier = || {
        host.ip("-4 address flush dev eth0 scope global");
        host.ip("address add 10.77.0.50/24 dev eth0 valid_lft 50 preferred_lft 50");
        host.ip("address replace fd77::50/64 dev eth0 nodad valid_lft 50 preferred_lft 0");
        readdress(host, 24);
    };
    let kept = || {
        assert!(host.has("10.77.0.1") && host.has("fd77::1"));
        let setting =
            host.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/promote_secondaries").unwrap());
        assert_eq!(setting.trim(), "0", "the host's own setting");
    };
    promote(host, "0");
    earlier();
    // Its tables say that it is ours.
    let addresses = [VIP, "fd77::50/64"].map(|text| vip(text).address);
    host.run(|| Nft::open("trestle_member").unwrap()).install(&addresses).unwrap();
    let kernel = host.run(|| LinuxKernel::open(settings("member").0).unwrap());
    assert!(!host.has("10.77.0.50") && !host.has("fd77::50"));
    kept();

    // Without tables it is found when it is claimed.
    earlier();
    for text in [VIP, "fd77::50/64"] {
        kernel.claim(&vip(text), &lease(LONG)).unwrap();
        let found = host.run(|| crate::route::RouteSocket::open().unwrap().addresses().unwrap());
        let forms: Vec<u8> =
            found.iter().filter(|a| a.address == vip(text).address).map(|a| a.prefix).collect();
        assert_eq!(forms, [crate::route::whole(vip(text).address)], "{text}");
        Prober::start(&lab.client, vip(text).address, Question::Echo).wait_for_answer();
    }
    kept();
}
