//! The largest answers that there can be, by the documented bounds: gRPC's clients take 4 MiB.

#![allow(clippy::unwrap_used)]

use prost::Message;
use trestle_api::v1;
use trestle_model::defaults::{LISTENER_PORTS_MAX, MEMBERS_MAX, VIP_EVENTS_KEPT, VIPS_MAX};

use super::{cluster, vips};

/// What clients of gRPC take unless they are told otherwise.
const CLIENT_MAX: usize = 4 << 20;

fn name(kind: &str) -> String {
    format!("{kind}/{}", "n".repeat(63))
}

/// A text that somebody else's error is part of.
fn words() -> String {
    "w".repeat(10_000)
}

fn host() -> String {
    format!("{}:65535", "h".repeat(253))
}

fn long() -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MAX })
}

fn member() -> v1::Member {
    v1::Member {
        name: name("members"),
        id: u64::MAX,
        peer_address: host(),
        admin_address: host(),
        role: 2,
        leader: true,
        revision: u64::MAX,
        draining: true,
        drain_timeout: long(),
        feature_level_max: u32::MAX,
        keys: vec!["f".repeat(64); 2],
    }
}

fn unbound() -> v1::ListenerView {
    let failure = v1::BindFailure { addresses: vec!["a".repeat(50); 8], more: 1, reason: words() };
    v1::ListenerView {
        listener: name("listeners"),
        errors: vec![words(); 8],
        bind_failures: vec![failure; 8],
        ..Default::default()
    }
}

fn trouble() -> v1::PoolTrouble {
    let example = v1::UnhealthyBackend { backend: name("pools") + &name("/backends"), reason: words() };
    v1::PoolTrouble { pool: name("pools"), examples: vec![example; 4], ..Default::default() }
}

fn member_status() -> v1::MemberStatus {
    let fault = v1::VipFault { kind: 3, subject: name("listeners"), recovering: true };
    v1::MemberStatus {
        member: Some(member()),
        reachable: true,
        error: words(),
        digest: "d".repeat(64),
        unfit: vec![words(); 10_000],
        dead_pools: vec![name("pools"); 10_000],
        dead_pools_total: u32::MAX,
        problems: vec![words(); 100],
        vip_faults: vec![fault; 20_000],
        vip_faults_total: u32::MAX,
        uptime: long(),
        unbound_listeners: vec![unbound(); 64],
        troubled_pools: vec![trouble(); 64],
        held_vips: vec![name("vips"); VIPS_MAX],
        ..Default::default()
    }
}

fn assert_fits(what: &str, answer: &impl Message) {
    let bytes = answer.encoded_len();
    assert!(bytes < CLIENT_MAX, "{what}: {bytes} bytes");
}

#[test]
fn every_client_takes_the_largest_status() {
    let mut status = member_status();
    assert!(status.encoded_len() > CLIENT_MAX, "this is what one member says");
    cluster::shorten(&mut status);
    assert_fits("status", &v1::ClusterStatus { members: vec![status; MEMBERS_MAX], ..Default::default() });
}

#[test]
fn every_client_takes_the_largest_answers_about_virtual_ips() {
    let mut view = v1::VipView {
        vip: name("vips"),
        member: name("members"),
        interface: "i".repeat(15),
        problems: vec![words(); 8],
        fence_change: words(),
        fence_open_for: long(),
        announced_ago: long(),
        foreign_ago: long(),
        fence_repaired_ago: long(),
        foreign_mac: "00:00:00:00:00:00".to_owned(),
        ..Default::default()
    };
    vips::shorten(&mut view);
    assert_fits(
        "kernels",
        &v1::VipStatus { views: vec![view; VIPS_MAX * MEMBERS_MAX], ..Default::default() },
    );
    let event = v1::VipEvent {
        time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX }),
        member: name("members"),
        term: u64::MAX,
        reason: "r".repeat(trestle_model::defaults::VIP_REASON_MAX),
        vips: vec![name("vips"); VIPS_MAX],
        ..Default::default()
    };
    assert_fits("events", &v1::ListVipEventsResponse { events: vec![event; VIP_EVENTS_KEPT], read: None });
    let place = v1::InterfaceOverride { member: name("members"), interface: "i".repeat(15) };
    let vip = v1::Vip {
        name: name("vips"),
        address: "2001:db8:1111:2222:3333:4444:5555:6666/128".to_owned(),
        interface_overrides: vec![place; MEMBERS_MAX],
        preferred: vec![name("members"); MEMBERS_MAX],
        ..Default::default()
    };
    assert_fits("settings", &v1::ListVipsResponse { vips: vec![vip; VIPS_MAX], ..Default::default() });
}

#[test]
fn every_client_takes_the_largest_page_of_connections() {
    let address = || "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".to_owned();
    let connection = v1::Connection {
        name: format!("{}/connections/{}", name("members"), u64::MAX),
        client_address: address(),
        listener: name("listeners"),
        local_address: address(),
        pool: name("pools"),
        backend: format!("{}/{}", name("pools"), name("backends")),
        backend_address: address(),
        server_name: "s".repeat(255),
        age: long(),
        connect_time: long(),
        bytes_in: u64::MAX,
        bytes_out: u64::MAX,
        ..Default::default()
    };
    let page = v1::ListConnectionsResponse { connections: vec![connection; 1000], ..Default::default() };
    assert_fits("connections", &page);
}

/// Pages end at 1 MiB, but for a first item that is larger.
#[test]
fn every_client_takes_the_largest_single_item_of_a_page() {
    let change = v1::VerdictChange { verdict: 3, reason: "r".repeat(1000), ago: long() };
    let view = v1::MemberView {
        member: name("members"),
        reason: "r".repeat(1000),
        history: vec![change; 16],
        other_addresses: vec!["2001:db8:1111:2222:3333:4444:5555:6666".to_owned(); 15],
        ..Default::default()
    };
    assert_fits("a backend", &v1::BackendHealth { views: vec![view; MEMBERS_MAX], ..Default::default() });
    // Every other port is taken by another program.
    let bound = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".to_owned();
    let view = v1::ListenerView {
        listener: name("listeners"),
        member: name("members"),
        bound: vec![bound; LISTENER_PORTS_MAX / 2],
        errors: vec!["e".repeat(1000); 8],
        ..Default::default()
    };
    assert_fits("a listener", &v1::ListenerHealth { views: vec![view; MEMBERS_MAX], ..Default::default() });
}
