#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::Ipv4Addr;

use trestle_model::{Bind, PoolName};

use super::*;

fn spec() -> ListenerSpec {
    ListenerSpec::new(vec![Bind::parse("*:80").unwrap()], PoolName::parse("p").unwrap())
}

fn ip(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

#[test]
fn an_address_has_as_many_as_it_may() {
    let gate = Gate::default();
    let spec = ListenerSpec { max_connections_per_source: 2, ..spec() };
    let first = gate.let_in(ip(1), &spec).unwrap().unwrap();
    let _second = gate.let_in(ip(1), &spec).unwrap();
    assert!(gate.let_in(ip(1), &spec).is_err() && gate.let_in(ip(2), &spec).is_ok());
    drop(first);
    assert!(gate.let_in(ip(1), &spec).is_ok());
}

#[test]
fn a_network_of_64_bits_and_a_mapped_address_count_as_one() {
    let gate = Gate::default();
    let spec = ListenerSpec { max_connections_per_source: 1, ..spec() };
    let enter = |text: &str| gate.let_in(text.parse().unwrap(), &spec);
    let _stays = [enter("2001:db8::1"), enter("192.0.2.1")].map(Result::unwrap);
    assert!(enter("2001:db8::ffff:1").is_err() && enter("::ffff:192.0.2.1").is_err());
    assert!(enter("2001:db8:0:1::1").is_ok() && enter("192.0.2.2").is_ok());
}

#[test]
fn a_rate_lets_in_its_number_at_once_and_no_more() {
    let gate = Gate::default();
    // So slow that none comes back while this runs.
    let spec = ListenerSpec { accept_rate_per_source: 3, ..spec() };
    let start = Instant::now();
    let let_in = (0..20).filter(|_| gate.let_in(ip(1), &spec).is_ok()).count() as u64;
    assert!((3..=4 + 3 * start.elapsed().as_secs()).contains(&let_in), "{let_in}");
    assert!(gate.let_in(ip(2), &spec).is_ok());
}

#[test]
fn addresses_that_left_are_forgotten() {
    let gate = Gate::default();
    let spec = ListenerSpec { max_connections_per_source: 1, ..spec() };
    for number in 0..1_000 {
        drop(gate.let_in(ip(number), &spec).unwrap());
    }
    assert_eq!(gate.clients.get().unwrap().len(), 0);
}

#[test]
fn there_is_room_for_so_many_and_the_idle_give_way() {
    let gate = Gate::default();
    let spec = ListenerSpec { max_connections_per_source: 1, accept_rate_per_source: 1, ..spec() };
    let kept = gate.let_in(ip(0), &spec).unwrap();
    for number in 1..200_000 {
        drop(gate.let_in(ip(number), &spec));
    }
    assert!(gate.clients.get().unwrap().len() <= 65_536);
    assert!(kept.is_some() && gate.let_in(ip(0), &spec).is_err(), "one with a connection stays");
    let all: Vec<_> = (1_000_000..1_200_000).map(|number| gate.let_in(ip(number), &spec)).collect();
    assert!(all.iter().all(Result::is_ok), "who cannot be counted is let in");
    assert!(gate.clients.get().unwrap().len() <= 65_536);
    drop(all);
    drop(kept);
}
