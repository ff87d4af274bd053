//! `cargo xtask bench attacks`: what a well-behaved client notices of each attack on a member's ports.
//!
//! On a small machine the attacker takes processors from everybody. So each attack is also made on a sink in this process, which takes
//! what it is sent and does nothing: what a client of the member notices of that, no bound of the member's can mend.

use std::any::Any;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{copy, sink};
use tokio::net::TcpListener;
use trestle_testkit::{Api, Cluster, Origin, Subnet, attacks, fetch_http, get, wait_until};

use crate::figures::{Samples, line, ms};
use crate::{alone, limited};

/// How long each client is measured for.
const TIME: Duration = Duration::from_secs(8);
/// Between two questions of the client.
const PAUSE: Duration = Duration::from_millis(5);
/// How long an attacker keeps what it has.
const HELD: Duration = Duration::from_millis(500);
/// Open files of each member.
const DESCRIPTORS: usize = 2000;
/// Backends whose lines make the page of metrics large.
const BACKENDS: u16 = 400;
/// By how much others' p99 may grow.
const RATIO_MAX: f64 = 2.0;
/// How much a member may grow, in MiB.
const GROWTH_MAX: u64 = 100;

const ATTACKS: [&str; 6] = [
    "one connection of endless headers",
    "22 + 8 connections of heads only",
    "2 078 silent connections",
    "60 scrapers of a large page",
    "a flood of the peer port",
    "1 200 connections of one client",
];

/// What is attacked.
#[derive(Clone, Copy)]
struct Targets {
    admin: SocketAddr,
    peer: SocketAddr,
    http: SocketAddr,
    front: SocketAddr,
}

impl Targets {
    fn at(ip: std::net::Ipv4Addr) -> Self {
        let at = |port| SocketAddr::from((ip, port));
        Self { admin: at(7480), peer: at(7481), http: at(7482), front: at(8080) }
    }
}

/// Makes an attack once, and answers what it holds.
async fn attack(number: usize, subnet: &Subnet, at: Targets, round: u8) -> Box<dyn Any> {
    match number {
        0 => Box::new([attacks::endless_headers(at.admin).ok(), attacks::endless_headers(at.peer).ok()]),
        1 => {
            let (status, append) =
                ("/trestle.v1.ClusterService/GetClusterStatus", "/trestle.peer.v1.RaftService/AppendStream");
            Box::new([
                attacks::calls_without_bodies(at.admin, status, 22),
                attacks::calls_without_bodies(at.peer, append, 8),
            ])
        }
        2 => {
            let mut silent = Vec::new();
            for (target, words, count) in [(at.http, "G", 693), (at.admin, "P", 693), (at.peer, "", 692)] {
                silent.extend(attacks::silent_connections(subnet, target, words, count).await);
            }
            Box::new(silent)
        }
        3 => Box::new(attacks::scrapers(subnet, at.http, 60).await),
        4 => Box::new(attacks::peer_flood(subnet, at.peer, round).await),
        _ => Box::new(attacks::hog(subnet.ip(66), at.front, 1200).await),
    }
}

/// The attack of holding what others need: made once.
const HOLDING: usize = 5;

/// Attacks over and over until it is told to stop.
fn attack_until(stop: &AtomicBool, number: usize, subnet: &Subnet, at: Targets) {
    alone(async {
        let mut round = 0_u8;
        while !stop.load(Relaxed) {
            let _held = attack(number, subnet, at, round).await;
            tokio::time::sleep(HELD).await;
            while number == HOLDING && !stop.load(Relaxed) {
                tokio::time::sleep(HELD).await;
            }
            round = round.wrapping_add(1) % 100;
        }
    });
}

/// Takes and forgets what is sent to any of the targets.
async fn swallow(at: Targets) {
    let ports = [at.admin, at.peer, at.http, at.front].map(|target| async move {
        let listener = TcpListener::bind(target).await.unwrap();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move { copy(&mut stream, &mut sink()).await });
        }
    });
    futures_util::future::join_all(ports).await;
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    status: Samples,
    http: Samples,
    relay: Samples,
    failed: usize,
    resident_max: u64,
}

impl Seen {
    fn kinds(&self) -> [(&'static str, &Samples); 3] {
        [("admin API", &self.status), ("HTTP", &self.http), ("relay", &self.relay)]
    }
}

fn resident(process: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A client that behaves: each question on a connection of its own, one after the other.
fn ask(at: Targets, process: u32) -> Seen {
    let mut seen = Seen::default();
    let end = Instant::now() + TIME;
    alone(async {
        while Instant::now() < end {
            let mut add = |samples: fn(&mut Seen) -> &mut Samples, begun: Instant, good: bool| {
                samples(&mut seen).add(begun.elapsed());
                seen.failed += usize::from(!good);
            };
            let begun = Instant::now();
            let good = Api::new(at.admin).status().await.is_ok();
            add(|seen| &mut seen.status, begun, good);
            let begun = Instant::now();
            let good = get(at.http, "/livez").is_ok_and(|page| page.status == 200);
            add(|seen| &mut seen.http, begun, good);
            let begun = Instant::now();
            let good = fetch_http(at.front).is_ok();
            add(|seen| &mut seen.relay, begun, good);
            seen.resident_max = seen.resident_max.max(resident(process));
            tokio::time::sleep(PAUSE).await;
        }
    });
    seen
}

fn ask_during(number: usize, subnet: &Subnet, attacked: Targets, asked: Targets, process: u32) -> Seen {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| attack_until(&stop, number, subnet, attacked));
        // The first connections are there.
        std::thread::sleep(HELD);
        let seen = ask(asked, process);
        stop.store(true, Relaxed);
        seen
    })
}

/// How often a member of the cluster has found that it knows no leader.
fn leaderless(cluster: &Cluster) -> usize {
    let told = |line: &&str| line.contains("no leader is known any more");
    cluster.members.iter().map(|member| member.output().lines().filter(told).count()).sum()
}

/// A cluster with a service and a large page of metrics, whose members have few descriptors.
async fn cluster(trestled: &Path) -> (Cluster, Origin) {
    let cluster = Cluster::start(trestled, 3).await;
    let api = cluster.api(0);
    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    api.create_pool("web", None).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.create_listener("web", "0.0.0.0:8080", "web").await.unwrap();
    api.create_pool("big", None).await.unwrap();
    for number in 0..BACKENDS {
        let name = format!("{}-{number}", "b".repeat(55));
        let address = SocketAddr::from(([127, 200, 0, 1], 10_000 + number));
        api.create_backend("big", &name, address).await.unwrap();
    }
    (cluster, origin)
}

/// Measures each attack and prints what it costs others; answers whether all is within the bounds.
pub(crate) fn run(trestled: &Path, only: Option<&str>) -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let limited = limited(trestled, DESCRIPTORS, dir.path());
    let mut good = true;
    for (number, name) in ATTACKS.into_iter().enumerate() {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let (mut cluster, _origin) = runtime.block_on(cluster(&limited));
        let leader = runtime.block_on(cluster.leader());
        let at = Targets::at(cluster.members[leader].ip);
        runtime.block_on(wait_until("the service", TIME, async || fetch_http(at.front)));
        let dead_end = Targets::at(cluster.subnet.ip(200));
        let swallowing = runtime.spawn(swallow(dead_end));
        let process = cluster.members[leader].process().id();
        ask(at, process);
        let (before, resident_before) = (ask(at, process), resident(process));
        let beside = ask_during(number, &cluster.subnet, dead_end, at, process);
        swallowing.abort();
        let status = runtime.block_on(cluster.agreed());
        let missed = leaderless(&cluster);
        let during = ask_during(number, &cluster.subnet, at, at, process);
        let grown = during.resident_max.saturating_sub(resident_before) >> 20;
        let (terms, missed) =
            (runtime.block_on(cluster.agreed()).term - status.term, leaderless(&cluster) - missed);
        println!("\n{name:<36} before   sink beside   during   ratio: sink  attack");
        for ((kind, before), ((_, beside), (_, during))) in
            before.kinds().into_iter().zip(beside.kinds().into_iter().zip(during.kinds()))
        {
            let [before, beside, during] = [before, beside, during].map(|samples| samples.quantile(0.99));
            let ratio = |other: Duration| other.as_secs_f64() / before.as_secs_f64();
            let (of_sink, of_attack) = (ratio(beside), ratio(during));
            let reached = of_attack <= RATIO_MAX;
            println!(
                "  p99 of {kind:<21} {:>12} {:>13} {:>8} {of_sink:>13.2} {of_attack:>7.2}   <= {RATIO_MAX} {}",
                ms(before),
                ms(beside),
                ms(during),
                if reached { "reached" } else { "MISSED" }
            );
            good &= reached;
        }
        line("  questions that failed", &during.failed.to_string(), "0", during.failed == 0);
        line("  growth, MiB", &grown.to_string(), &format!("<= {GROWTH_MAX}"), grown <= GROWTH_MAX);
        line("  elections", &terms.to_string(), "0", terms == 0);
        line("  times that a member knew no leader", &missed.to_string(), "0", missed == 0);
        good &= during.failed == 0 && grown <= GROWTH_MAX && terms == 0 && missed == 0;
    }
    good
}
