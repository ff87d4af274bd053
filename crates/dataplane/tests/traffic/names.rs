//! Backends that are known by name, and a name server that says what the test wants.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use trestle_dataplane::{Settings, Verdict};
use trestle_model::{BackendAddress, BackendSpec};

use crate::harness::*;

/// What is answered about a name.
#[derive(Clone)]
enum Answer {
    /// These addresses, for a second.
    A(Vec<Ipv4Addr>),
    /// Nothing at all.
    Silence,
    /// That something is wrong with the server.
    Failure,
}

#[derive(Default)]
struct Zone {
    answers: BTreeMap<String, Answer>,
    asked: BTreeMap<String, usize>,
}

/// A name server on an address of its own, and the resolv.conf that leads to it.
struct NameServer {
    zone: Arc<Mutex<Zone>>,
    dir: TempDir,
}

const A: u8 = 1;

impl NameServer {
    fn start() -> Self {
        let address = SocketAddr::new(ip(), 53);
        let socket = UdpSocket::bind(address)
            .unwrap_or_else(|error| panic!("{address}: {error}; these tests need the right to bind port 53"));
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let dir = tempfile::tempdir().unwrap();
        let resolv_conf = format!("nameserver {}\noptions timeout:1 attempts:1\n", address.ip());
        std::fs::write(dir.path().join("resolv.conf"), resolv_conf).unwrap();
        let answered = zone.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..length], &answered) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { zone, dir }
    }

    fn settings(&self) -> Settings {
        Settings { resolv_conf: self.dir.path().join("resolv.conf"), ..settings() }
    }

    fn set(&self, name: &str, answer: Answer) {
        self.zone.lock().unwrap().answers.insert(name.to_owned(), answer);
    }

    fn point(&self, name: &str, addresses: &[IpAddr]) {
        let v4 = |ip: &IpAddr| if let IpAddr::V4(ip) = ip { *ip } else { panic!("{ip} is not IPv4") };
        self.set(name, Answer::A(addresses.iter().map(v4).collect()));
    }

    fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.get(name).copied().unwrap_or(0)
    }

    /// Waits until the name was looked up again, and that had time to be seen.
    async fn until_asked_again(&self, name: &str) {
        let before = self.asked(name);
        until("the name is looked up again", || self.asked(name) >= before + 3).await;
    }
}

/// The answer to a query with one question (RFC 1035 §4).
fn answer(query: &[u8], zone: &Mutex<Zone>) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while let length @ 1.. = query[at] as usize {
        labels.push(std::str::from_utf8(&query[at + 1..=at + length]).unwrap().to_ascii_lowercase());
        at += length + 1;
    }
    let kind = query[at + 2];
    let name = labels.join(".");
    let mut zone = zone.lock().unwrap();
    let known = zone.answers.get(&name).cloned();
    if kind == A {
        *zone.asked.entry(name).or_default() += 1;
    }
    let (code, addresses) = match known {
        Some(Answer::Silence) => return None,
        Some(Answer::Failure) => (2, Vec::new()),
        Some(Answer::A(addresses)) if kind == A => (0, addresses),
        Some(Answer::A(_)) => (0, Vec::new()),
        None => (3, Vec::new()),
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend(&query[12..at + 5]);
    for address in addresses {
        answer.extend([0xc0, 12, 0, A, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

fn named(name: &str, port: u16) -> BackendSpec {
    BackendSpec::at(BackendAddress::parse(&format!("{name}:{port}")).unwrap())
}

fn dialled(plane: &Plane, name: &str) -> Option<IpAddr> {
    plane.plane.table().pools[&pool_name("p")].backend(&backend_name(name)).unwrap().ip
}

async fn until_dialled(plane: &Plane, name: &str, ip: IpAddr) {
    until(&format!("{name} is dialled at {ip}"), || dialled(plane, name) == Some(ip)).await;
}

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
    names.zone.lock().unwrap().answers.clear();
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
