//! What holds for every answer of rtnetlink, and for every frame in which somebody claims an address.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use trestle_fuzz::{FuzzTarget, Repair, fuzz};

use super::*;
use crate::frames::{self, read_advertisement, read_arp};
use crate::nft::fuzz::{messages_are_within, repair, seeds};

/// Kind of the message, and what was read of it.
fn outcome(input: &[u8]) -> Vec<(u16, u8)> {
    messages_are_within(input);
    let mut told = Vec::new();
    for message in messages(input) {
        let read = match parsed(message.whole) {
            None => 0,
            Some(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
                let interface = Interface::read(&link);
                assert!(interface.name.len() + interface.alternative_names.len() <= message.payload.len());
                assert!(interface.name.is_empty() || interface.is_called(&interface.name));
                1 + u8::from(interface.mac.is_some()) + 2 * u8::from(interface.up)
            }
            Some(RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address)) => {
                let assigned = Assigned::read(&address);
                assigned.map_or(10, |found| {
                    // The kernel has no longer prefixes; with one, nothing shares the network.
                    let sound = found.prefix <= whole(found.address);
                    assert_eq!(found.shares_network(found.address), sound, "{found:?}");
                    assert!(found.address.is_ipv4() || !found.secondary, "{found:?}");
                    11 + u8::from(found.lasting) + 2 * u8::from(found.is_virtual())
                })
            }
            Some(_) => 20,
        };
        told.push((message.kind, read));
    }
    told.truncate(4);
    told
}

#[test]
fn fuzz_route_answers() {
    let words: &[&[u8]] =
        &[b"\x05\0\x03\0lo\0", b"\x08\0\x01\0\x0a\0\x03\x64", b"\x08\0\x02\0\x0a\0\x03\x64"];
    let target = FuzzTarget {
        name: "route_answers",
        seeds: seeds("route"),
        words,
        len_max: 2500,
        repair: Some(repair as Repair),
    };
    let summary = fuzz(&target, outcome);
    assert!(summary.outcomes > 40, "{summary:?}");
}

/// A claim is read as it is written, and what was read is in the frame.
fn frame_outcome(input: &[u8]) -> (Option<bool>, Option<bool>) {
    let arp = read_arp(input).map(|heard| {
        let IpAddr::V4(ip) = heard.address else { panic!("{heard:?}") };
        let frame = frames::announcements(heard.mac, ip)[0];
        assert_eq!(read_arp(&frame), Some(heard));
        assert!(input.windows(4).any(|part| part == ip.octets()) && !ip.is_unspecified());
        ip.is_loopback()
    });
    let discovery = read_advertisement(input).map(|heard| {
        let IpAddr::V6(ip) = heard.address else { panic!("{heard:?}") };
        assert_eq!(read_advertisement(&frames::advertisement(heard.mac, ip)), Some(heard));
        assert_eq!(input.get(8..24), Some(&ip.octets()[..]));
        input.len() > 32
    });
    (arp, discovery)
}

#[test]
fn fuzz_claims() {
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    let mut seeds: Vec<Vec<u8>> =
        frames::announcements(mac, [192, 0, 2, 7].into()).iter().map(|frame| frame.to_vec()).collect();
    seeds.push(frames::probe(mac, [192, 0, 2, 7].into()).to_vec());
    seeds.push(frames::advertisement(mac, "2001:db8::7".parse().unwrap()).to_vec());
    seeds.push(frames::solicitation(mac, "2001:db8::7".parse().unwrap()).to_vec());
    let words: &[&[u8]] = &[b"\x02\x01\x02\0\0\0\0\x07", b"\x01\0", b"\x08\x06\0\x01\x08\0\x06\x04\0\x02"];
    let target = FuzzTarget { name: "claims", seeds, words, len_max: 100, repair: None };
    let summary = fuzz(&target, frame_outcome);
    assert!(summary.outcomes >= 4, "{summary:?}");
}
