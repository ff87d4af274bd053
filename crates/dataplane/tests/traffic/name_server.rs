//! A name server that says what the test wants, and backends that are known by name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use trestle_dataplane::{Backend, DataPlaneSettings};
use trestle_model::{BackendAddress, BackendSpec};

use crate::harness::*;

/// What is answered about a name.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u8),
    /// The same, and those of IPv6 only after a while.
    LateAaaa(Vec<IpAddr>, Duration),
    /// The same without those of IPv6: such questions are dropped.
    OnlyA(Vec<IpAddr>),
    /// The same, but questions for AAAA are answered as if there were no such name, which some servers do (RFC 4074 §4.2).
    NoNameForAaaa(Vec<IpAddr>),
    /// Nothing at all.
    Silence,
    /// That something is wrong with the server.
    Failure,
}

#[derive(Default)]
struct Zone {
    answers: BTreeMap<String, Answer>,
    asked: BTreeMap<(String, u8), usize>,
}

/// A name server on an address of its own, and the files that lead to it.
pub(crate) struct NameServer {
    zone: Arc<Mutex<Zone>>,
    dir: TempDir,
    address: IpAddr,
}

pub(crate) const A: u8 = 1;
pub(crate) const AAAA: u8 = 28;

impl NameServer {
    pub(crate) fn start() -> Self {
        let address = SocketAddr::new(ip(), 53);
        let socket = UdpSocket::bind(address)
            .unwrap_or_else(|error| panic!("{address}: {error}; these tests need the right to bind port 53"));
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let answered = zone.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let (delay, Some(answer)) = answer(&query[..length], &answered) else { continue };
                let socket = socket.try_clone().unwrap();
                let send = move || {
                    std::thread::sleep(delay);
                    let _ = socket.send_to(&answer, from);
                };
                if delay.is_zero() { send() } else { drop(std::thread::spawn(send)) }
            }
        });
        let names = Self { zone, dir: tempfile::tempdir().unwrap(), address: address.ip() };
        names.configure("options timeout:1 attempts:1");
        names.hosts("127.0.0.1 localhost\n");
        names
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes resolv.conf, with more lines in it.
    pub(crate) fn configure(&self, more: &str) {
        let text = format!("nameserver {}\n{more}\n", self.address);
        std::fs::write(self.file("resolv.conf"), text).unwrap();
    }

    /// Writes what is in place of /etc/hosts.
    pub(crate) fn hosts(&self, text: &str) {
        std::fs::write(self.file("hosts"), text).unwrap();
    }

    pub(crate) fn settings(&self) -> DataPlaneSettings {
        DataPlaneSettings { resolv_conf: self.file("resolv.conf"), hosts: self.file("hosts"), ..settings() }
    }

    pub(crate) fn set(&self, name: &str, answer: Answer) {
        self.zone.lock().unwrap().answers.insert(name.to_owned(), answer);
    }

    pub(crate) fn point(&self, name: &str, addresses: &[IpAddr]) {
        self.set(name, Answer::Addresses(addresses.to_vec(), 1));
    }

    /// The same, for as long as an answer can say here.
    pub(crate) fn point_for_long(&self, name: &str, addresses: &[IpAddr]) {
        self.set(name, Answer::Addresses(addresses.to_vec(), u8::MAX));
    }

    pub(crate) fn forget_all(&self) {
        self.zone.lock().unwrap().answers.clear();
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str, kind: u8) -> usize {
        self.zone.lock().unwrap().asked.get(&(name.to_owned(), kind)).copied().unwrap_or(0)
    }

    /// Waits until the name was looked up again, and that had time to be seen.
    pub(crate) async fn until_asked_again(&self, name: &str) {
        let before = self.asked(name, A);
        until("the name is looked up again", || self.asked(name, A) >= before + 3).await;
    }
}

/// The answer to a query with one question (RFC 1035 §4), and how long it takes.
fn answer(query: &[u8], zone: &Mutex<Zone>) -> (Duration, Option<Vec<u8>>) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while let length @ 1.. = query[at] as usize {
        labels.push(std::str::from_utf8(&query[at + 1..=at + length]).unwrap().to_ascii_lowercase());
        at += length + 1;
    }
    let kind = query[at + 2];
    let name = labels.join(".");
    let mut zone = zone.lock().unwrap();
    let known = zone.answers.get(&name).cloned();
    *zone.asked.entry((name, kind)).or_default() += 1;
    let (delay, code, ttl, addresses) = match known {
        Some(Answer::Silence) => return (Duration::ZERO, None),
        Some(Answer::OnlyA(_)) if kind == AAAA => return (Duration::ZERO, None),
        Some(Answer::Failure) => (Duration::ZERO, 2, 0, Vec::new()),
        Some(Answer::Addresses(addresses, ttl)) => (Duration::ZERO, 0, ttl, addresses),
        Some(Answer::NoNameForAaaa(_)) if kind == AAAA => (Duration::ZERO, 3, 0, Vec::new()),
        Some(Answer::OnlyA(addresses) | Answer::NoNameForAaaa(addresses)) => {
            (Duration::ZERO, 0, u8::MAX, addresses)
        }
        Some(Answer::LateAaaa(addresses, delay)) => {
            (if kind == AAAA { delay } else { Duration::ZERO }, 0, u8::MAX, addresses)
        }
        None => (Duration::ZERO, 3, 0, Vec::new()),
    };
    let mut records = Vec::new();
    let mut count = 0;
    for address in addresses {
        let octets = match address {
            IpAddr::V4(v4) if kind == A => v4.octets().to_vec(),
            IpAddr::V6(v6) if kind == AAAA => v6.octets().to_vec(),
            _ => continue,
        };
        records.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, ttl, 0, octets.len() as u8]);
        records.extend(octets);
        count += 1;
    }
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&query[12..at + 5]);
    answer.extend(records);
    (delay, Some(answer))
}

pub(crate) fn named(name: &str, port: u16) -> BackendSpec {
    BackendSpec::at(BackendAddress::parse(&format!("{name}:{port}")).unwrap())
}

/// A backend of pool `p`.
pub(crate) fn seen(plane: &Plane, name: &str) -> Arc<Backend> {
    plane.plane.table().pools[&pool_name("p")].backend(&backend_name(name)).unwrap().clone()
}

pub(crate) fn dialled(plane: &Plane, name: &str) -> Option<IpAddr> {
    seen(plane, name).ip
}

pub(crate) async fn until_dialled(plane: &Plane, name: &str, ip: IpAddr) {
    until(&format!("{name} is dialled at {ip}"), || dialled(plane, name) == Some(ip)).await;
}
