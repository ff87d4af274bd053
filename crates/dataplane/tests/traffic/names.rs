//! Backends that are known by name: what the name stands for.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use trestle_dataplane::Verdict;

use crate::harness::*;
use crate::name_server::*;

#[tokio::test]
async fn a_name_is_looked_up_checked_and_dialled_and_followed_when_it_moves() {
    let (a, b) = (Server::start("a").await, ip());
    let b = Server::start_at("b", (b, a.address.port()).into()).await;
    let names = NameServer::start();
    names.point("web.example", &[a.address.ip()]);
    let mut plane = Plane::with(names.settings());
    plane.pool("p", checked(), &[("w", named("web.example", a.address.port()))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    let mut old = Client::connect(front).await.unwrap();
    assert_eq!((&*old.server, dialled(&plane, "w")), ("a", Some(a.address.ip())));
    names.point("web.example", &[b.address.ip()]);
    until_dialled(&plane, "w", b.address.ip()).await;
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    assert_eq!(servers(front, 2).await, "bb");
    assert!(old.works().await, "a connection to the former address goes on");
    // Until the backend is found down at the next one: what is left of it anywhere ends.
    let dead = ip();
    names.point("web.example", &[dead]);
    until_dialled(&plane, "w", dead).await;
    plane.until_verdict("p", "w", Verdict::Unhealthy).await;
    assert_eq!(old.end().await, Some(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_name_without_an_address_is_not_used_and_says_why() {
    let (a, other) = (Server::start("a").await, Server::start("b").await);
    let names = NameServer::start();
    let mut plane = Plane::with(names.settings());
    let backends = [("b", at(other.address)), ("w", named("web.example", a.address.port()))];
    plane.pool("p", unchecked(), &backends).await;
    let front = plane.listener("l", "p").await;
    let said = |reason: &str| (Verdict::Unknown, format!("name web.example: {reason}"));
    until("the name is looked up", || plane.verdict("p", "w") == said("no such name")).await;
    assert_eq!(servers(front, 3).await, "bbb");
    names.point("web.example", &[]);
    until("there is no address", || plane.verdict("p", "w") == said("has no address")).await;
    names.set("web.example", Answer::Failure);
    let failed = said("the name server answered: Server Failure");
    until("the server fails", || plane.verdict("p", "w") == failed).await;
    names.set("web.example", Answer::Silence);
    until("the server is silent", || plane.verdict("p", "w") == said("no answer from a name server")).await;
    assert_eq!(servers(front, 3).await, "bbb");
    names.point("web.example", &[a.address.ip()]);
    until_dialled(&plane, "w", a.address.ip()).await;
    assert_eq!(count(&servers(front, 4).await, 'a'), 2);
}

#[tokio::test]
async fn the_last_answer_is_kept_while_there_is_no_other() {
    let a = Server::start("a").await;
    let names = NameServer::start();
    names.point("web.example", &[a.address.ip()]);
    let mut plane = Plane::with(names.settings());
    plane.pool("p", checked(), &[("w", named("WEB.example", a.address.port()))]).await;
    let front = plane.listener("l", "p").await;
    plane.until_verdict("p", "w", Verdict::Healthy).await;
    names.set("web.example", Answer::Failure);
    names.until_asked_again("web.example").await;
    names.forget_all();
    names.until_asked_again("web.example").await;
    assert_eq!(plane.verdict("p", "w"), (Verdict::Healthy, "connected".to_owned()));
    assert_eq!(servers(front, 1).await, "a");
}

#[tokio::test]
async fn of_several_addresses_the_first_is_taken_and_then_kept() {
    let (low, middle, high) = (ip(), ip(), ip());
    assert!(low < middle && middle < high, "addresses are counted up");
    let names = NameServer::start();
    names.point("web.example", &[high, middle]);
    let mut plane = Plane::with(names.settings());
    // One lookup serves every backend of that name, with whatever port.
    let backends = [("v", named("web.example", 1)), ("w", named("web.example", 2))];
    plane.pool("p", unchecked(), &backends).await;
    until_dialled(&plane, "w", middle).await;
    until_dialled(&plane, "v", middle).await;
    names.point("web.example", &[low, high, middle]);
    names.until_asked_again("web.example").await;
    assert_eq!(dialled(&plane, "w"), Some(middle));
    names.point("web.example", &[high, low]);
    until_dialled(&plane, "w", low).await;
    plane.remove_backend("p", "v").await;
    names.point("web.example", &[high]);
    until_dialled(&plane, "w", high).await;
}

#[tokio::test]
async fn names_of_the_hosts_file_are_not_asked_for_and_followed_when_it_changes() {
    let (a, b) = (Server::start("a").await, ip());
    let b = Server::start_at("b", (b, a.address.port()).into()).await;
    let (names, port) = (NameServer::start(), a.address.port());
    names.point("web_1.example", &[b.address.ip()]);
    names.hosts(&format!("{} other Web_1.example\n", a.address.ip()));
    let mut plane = Plane::with(names.settings());
    let backends = [("v", named("web_1.example.", port)), ("w", named("web_1.example", port))];
    plane.pool("p", checked(), &backends).await;
    for backend in ["v", "w"] {
        plane.until_verdict("p", backend, Verdict::Healthy).await;
        assert_eq!(dialled(&plane, backend), Some(a.address.ip()));
    }
    // All of them, and only them, whatever the family.
    names.hosts(&format!("{0} web_1.example\n::1 web_1.example\n{1} web_1.example\n", b.address.ip(), ip()));
    until_dialled(&plane, "w", b.address.ip()).await;
    assert_eq!(seen(&plane, "w").other_addresses().count(), 2);
    assert_eq!((names.asked("web_1.example", A), names.asked("web_1.example", AAAA)), (0, 0));
    names.hosts("");
    until("name servers are asked", || names.asked("web_1.example", A) > 0).await;
}

#[tokio::test]
async fn underscores_and_a_final_dot_are_looked_up() {
    let names = NameServer::start();
    names.configure("search my_corp.example\noptions timeout:1 attempts:1");
    let wanted: Vec<(&str, &str, IpAddr)> = vec![
        ("a", "web_1.example", ip()),
        ("b", "my_svc", ip()),
        ("c", "_srv._tcp.example", ip()),
        ("d", "whole.", ip()),
    ];
    for (_, name, ip) in &wanted {
        names.point(name.trim_end_matches('.'), &[*ip]);
    }
    names.point("whole.my_corp.example", &[ip()]);
    let searched = ip();
    names.point("short.my_corp.example", &[searched]);
    let mut plane = Plane::with(names.settings());
    let mut backends: Vec<_> = wanted.iter().map(|(backend, name, _)| (*backend, named(name, 1))).collect();
    backends.push(("e", named("short", 1)));
    // A host of that name elsewhere is another one, although it has an address of the other family,
    names.point("short", &[Ipv6Addr::LOCALHOST.into()]);
    // and so it is although nobody says what stands before it in the list.
    backends.push(("f", named("silent", 1)));
    names.set("silent.my_corp.example", Answer::Silence);
    names.point("silent", &[ip()]);
    plane.pool("p", unchecked(), &backends).await;
    for (backend, _, ip) in wanted {
        until_dialled(&plane, backend, ip).await;
    }
    until_dialled(&plane, "e", searched).await;
    names.until_asked_again("short.my_corp.example").await;
    assert_eq!(seen(&plane, "e").other_addresses().count(), 0);
    let lost = (Verdict::Unknown, "name silent: no answer from a name server".to_owned());
    until("the silence is noticed", || plane.verdict("p", "f") == lost).await;
    assert_eq!(dialled(&plane, "f"), None);
}

#[tokio::test]
async fn a_name_server_that_drops_aaaa_holds_nothing_up() {
    let names = NameServer::start();
    let patience = Duration::from_secs(30);
    names.configure(&format!("options timeout:{} attempts:2", patience.as_secs()));
    let (dropped, late, denied) = (ip(), ip(), ip());
    names.set("denied.example", Answer::NoNameForAaaa(vec![denied]));
    names.set("dropped.example", Answer::OnlyA(vec![dropped]));
    let both = vec![late, Ipv6Addr::LOCALHOST.into()];
    names.set("late.example", Answer::LateAaaa(both, Duration::from_millis(500)));
    let mut plane = Plane::with(names.settings());
    let start = Instant::now();
    let backends = [
        ("u", named("denied.example", 1)),
        ("v", named("dropped.example", 1)),
        ("w", named("late.example", 1)),
    ];
    plane.pool("p", unchecked(), &backends).await;
    until_dialled(&plane, "u", denied).await;
    until_dialled(&plane, "v", dropped).await;
    until_dialled(&plane, "w", late).await;
    assert!(start.elapsed() < patience);
    // What comes late is taken as well, and the one in use stays.
    until("the late answer is there", || seen(&plane, "w").other_addresses().count() == 1).await;
    assert_eq!(dialled(&plane, "w"), Some(late));
}

#[tokio::test]
async fn aaaa_is_not_asked_for_where_resolv_conf_says_so() {
    let (names, only) = (NameServer::start(), ip());
    names.configure("options no-aaaa");
    names.point("web.example", &[only, Ipv6Addr::LOCALHOST.into()]);
    let mut plane = Plane::with(names.settings());
    plane.pool("p", unchecked(), &[("w", named("web.example", 1))]).await;
    until_dialled(&plane, "w", only).await;
    names.until_asked_again("web.example").await;
    assert_eq!(names.asked("web.example", AAAA), 0);
    assert_eq!(seen(&plane, "w").other_addresses().count(), 0);
}
