#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use trestle_model::{Bind, ListenerName, PoolName};

use super::*;
use crate::accept::listener::Listener;

fn spec() -> ListenerSpec {
    ListenerSpec::new(vec![Bind::parse("*:80").unwrap()], PoolName::parse("p").unwrap())
}

fn ip(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

#[test]
fn an_address_has_as_many_as_it_may() {
    let admission = Admission::default();
    let spec = ListenerSpec { max_connections_per_source: 2, ..spec() };
    let first = admission.admit_source(ip(1), &spec, usize::MAX).unwrap().unwrap();
    let _second = admission.admit_source(ip(1), &spec, usize::MAX).unwrap();
    assert!(
        admission.admit_source(ip(1), &spec, usize::MAX).is_err()
            && admission.admit_source(ip(2), &spec, usize::MAX).is_ok()
    );
    drop(first);
    assert!(admission.admit_source(ip(1), &spec, usize::MAX).is_ok());
}

#[test]
fn one_address_leaves_a_quarter_of_a_listener_to_others() {
    let admission = Admission::default();
    let spec = ListenerSpec { max_connections: 100, ..spec() };
    let permits: Vec<_> =
        (0..100).map_while(|held| admission.admit_source(ip(1), &spec, 100 - held).ok()).collect();
    assert_eq!(permits.len(), 76);
    assert!(admission.admit_source(ip(2), &spec, 24).is_ok());
    drop(permits);
    assert!(admission.admit_source(ip(1), &spec, 1).is_ok());
}

#[test]
fn a_network_of_64_bits_and_a_mapped_address_count_as_one() {
    let admission = Admission::default();
    let spec = ListenerSpec { max_connections_per_source: 1, ..spec() };
    let admit = |text: &str| admission.admit_source(text.parse().unwrap(), &spec, usize::MAX);
    let _stays = [admit("2001:db8::1"), admit("192.0.2.1")].map(Result::unwrap);
    assert!(admit("2001:db8::ffff:1").is_err() && admit("::ffff:192.0.2.1").is_err());
    assert!(admit("2001:db8:0:1::1").is_ok() && admit("192.0.2.2").is_ok());
}

#[test]
fn a_rate_lets_in_its_number_at_once_and_no_more() {
    let admission = Admission::default();
    // So slow that none comes back while this runs.
    let spec = ListenerSpec { accept_rate_per_source: 3, ..spec() };
    let start = Instant::now();
    let admitted =
        (0..20).filter(|_| admission.admit_source(ip(1), &spec, usize::MAX).is_ok()).count() as u64;
    assert!((3..=4 + 3 * start.elapsed().as_secs()).contains(&admitted), "{admitted}");
    assert!(admission.admit_source(ip(2), &spec, usize::MAX).is_ok());
}

#[test]
fn addresses_that_left_are_forgotten() {
    let admission = Admission::default();
    let spec = ListenerSpec { max_connections_per_source: 1, ..spec() };
    for number in 0..1_000 {
        drop(admission.admit_source(ip(number), &spec, usize::MAX).unwrap());
    }
    assert_eq!(admission.source_permits.get().unwrap().len(), 0);
}

#[test]
fn there_is_room_for_so_many_and_the_idle_give_way() {
    let admission = Admission::default();
    let spec = ListenerSpec { max_connections_per_source: 1, accept_rate_per_source: 1, ..spec() };
    let kept = admission.admit_source(ip(0), &spec, usize::MAX).unwrap();
    for number in 1..200_000 {
        drop(admission.admit_source(ip(number), &spec, usize::MAX));
    }
    assert!(admission.source_permits.get().unwrap().len() <= 65_536);
    assert!(
        kept.is_some() && admission.admit_source(ip(0), &spec, usize::MAX).is_err(),
        "one with a connection stays"
    );
    let all: Vec<_> =
        (1_000_000..1_200_000).map(|number| admission.admit_source(ip(number), &spec, usize::MAX)).collect();
    assert!(all.iter().all(Result::is_ok), "who cannot be counted is let in");
    assert!(admission.source_permits.get().unwrap().len() <= 65_536);
    drop(all);
    drop(kept);
}

fn listener(accept_rate: u32, max_connections: u32) -> Arc<Listener> {
    let spec = ListenerSpec { accept_rate, max_connections, ..spec() };
    let name = ListenerName::parse("l").unwrap();
    let config = trestle_model::Listener { name, spec, binds: Vec::new(), revision: 1, created: 1 };
    Arc::new(Listener {
        config: Arc::new(config),
        binds: Vec::new(),
        counters: Arc::default(),
        admission: Arc::default(),
    })
}

/// Waits to be let in, and says how often that was polled.
async fn polls(listener: Arc<Listener>) -> usize {
    let mut polls = 0;
    let mut entering = Box::pin(listener.admit());
    std::future::poll_fn(|cx| {
        polls += 1;
        entering.as_mut().poll(cx)
    })
    .await;
    polls
}

#[tokio::test]
async fn who_waits_for_the_rate_is_woken_once() {
    let listener = listener(100, 0);
    let start = Instant::now();
    while listener.try_admit() {}
    let inside = listener.counters.active();
    let waiting: Vec<_> = (0..50).map(|_| tokio::spawn(polls(listener.clone()))).collect();
    for task in waiting {
        // The first poll, and the one at its time.
        assert_eq!(task.await.unwrap(), 2);
    }
    assert_eq!(listener.counters.active(), inside + 50);
    // 10 at once, and the others 10 ms apart.
    assert!(
        start.elapsed() >= Duration::from_millis(10) * (inside as u32 + 50 - 11),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_full_listener_wakes_one_for_each_that_ends() {
    let listener = listener(1_000_000, 1);
    assert!(listener.try_admit());
    let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(polls(listener.clone()))).collect();
    while listener.admission.waiting.load(SeqCst) < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut woken = 0;
    for task in waiting {
        listener.release();
        woken += task.await.unwrap();
    }
    // Each: when it comes, when its time by the rate has come, and when there is room.
    assert!(woken <= 20 * 4, "{woken} polls");
    assert_eq!(listener.counters.active(), 1);
    assert_eq!(listener.admission.waiting.load(SeqCst), 0);
}

#[tokio::test]
async fn who_stops_waiting_for_room_gives_back_what_the_rate_gave() {
    let listener = listener(1, 1);
    assert!(listener.admission.rate.take(1).is_some_and(|token| {
        drop(token);
        true
    }));
    listener.counters.try_acquire(0);
    let mut entering = Box::pin(listener.admit());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(entering.as_mut().poll(&mut cx).is_pending() && !listener.try_admit());
    drop(entering);
    listener.release();
    assert!(listener.try_admit(), "the token went with who gave up");
}
