//! The data plane's figures, each beside HAProxy's and nginx's with the same clients, the same backend and one worker.
//!
//! Rounds go through the products in one order and back in the next, and a ratio is taken within each round, so that a
//! busy moment of the machine hits all. The clients have a processor to themselves. For each figure, a second HAProxy
//! compared with the first of the same configuration shows how much of a difference is noise; where that is too much, that
//! figure says nothing, whatever the others say.

pub(crate) mod backend;
pub(crate) mod load;
mod measure;
mod pinning;
mod product;
mod ratio;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use trestle_testkit::{Process, Subnet, wait_for};

use product::Product;
use ratio::{Ratio, median};

/// Rounds without an argument; with them, everything takes about 11 minutes.
const PAIRS: usize = 10;
/// Load at which latency is measured, of what the slowest product can do.
const PART: f64 = 0.3;

const HAPROXY: usize = 0;
const TRESTLE: usize = 1;
const SPLICING: usize = 2;
const CONTROL: usize = 3;
const SPLICING_CONTROL: usize = 4;
/// The last, since it may be missing.
const NGINX: usize = 5;

/// Those that are compared in everything but bulk.
const ALL: [usize; 4] = [HAPROXY, TRESTLE, NGINX, CONTROL];

/// What each product did in each round.
type Table = Vec<Vec<f64>>;

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Connections,
    Requests,
    Bulk,
    Latency,
    Memory,
}

impl Part {
    const ALL: [Self; 5] = [Self::Connections, Self::Requests, Self::Bulk, Self::Latency, Self::Memory];

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Bulk => "bulk",
            Self::Latency => "latency",
            Self::Memory => "memory",
        }
    }
}

/// Rounds, and the parts that are asked for.
fn options(mut arguments: &[String]) -> (usize, Vec<Part>) {
    let (mut pairs, mut parts) = (PAIRS, Part::ALL.to_vec());
    while let [name, value, rest @ ..] = arguments {
        match name.as_str() {
            "--pairs" => pairs = value.parse().expect("--pairs takes a number"),
            "--only" => parts.retain(|part| part.name() == value),
            _ => break,
        }
        arguments = rest;
    }
    let names = Part::ALL.map(Part::name).join("|");
    let usage = format!("usage: trestle-bench relay [--pairs N] [--only {names}]");
    assert!(arguments.is_empty() && !parts.is_empty(), "{usage}");
    (pairs, parts)
}

/// Measures everything and prints it, each figure beside its target and aim.
pub(crate) async fn run(trestled: &Path, arguments: &[String]) {
    let (pairs, parts) = options(arguments);
    // The programs started from here inherit it.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let subnet = Subnet::claim();
    let back = SocketAddr::from((subnet.ip(20), 9000));
    let (backend, _logs) = start_backend(back);
    let splice = "  tune.pipesize 1048576\n  maxpipes 100\n";
    let forced = "  option splice-request\n  option splice-response\n";
    let mut products = vec![
        product::haproxy("HAProxy", &subnet, 10, back, "", ""),
        product::trestle(trestled, back).await,
        product::haproxy("HAProxy, forced splice", &subnet, 12, back, splice, forced),
        product::haproxy("HAProxy again", &subnet, 13, back, "", ""),
        product::haproxy("HAProxy, forced splice, again", &subnet, 14, back, splice, forced),
    ];
    products.extend(product::nginx(&subnet, 11, back));
    if !pinning::is_possible() {
        println!("not pinned: that takes two processors and taskset");
    }
    println!("{:<44} {:<23} {:<10} {:<8}", "ratio [95 % interval]", "", "must hold", "aim");
    for part in parts {
        match part {
            Part::Connections => connections(&mut products, pairs),
            Part::Requests => {
                let (costs, _) = costs(&mut products, &ALL, "echo", pairs);
                report("CPU per 1 KiB request", &costs, 1e6, "us", At::Most(0.95, 0.81));
            }
            Part::Bulk => {
                // What bulk costs does not hang on how often a proxy looks, but on the cache, which a backend that copies
                // beside it would take: HAProxy's forced splice then moved 2.1 GB for a second of its time, not 4.1.
                pinning::pin(backend.id(), pinning::CLIENTS);
                bulk(&mut products, pairs);
                pinning::pin(backend.id(), pinning::SERVERS);
            }
            Part::Latency => {
                let (_, slowest) = costs(&mut products, &ALL, "echo", 1);
                latencies(&mut products, back, slowest * PART, pairs);
            }
            Part::Memory => memory(&mut products),
        }
    }
}

fn connections(products: &mut [Product], pairs: usize) {
    let (costs, _) = costs(products, &ALL, "short", pairs);
    report("CPU per new connection", &costs, 1e6, "us", At::Most(1.0, 0.87));
    for (place, product) in single(products) {
        let found = measure::calls(product);
        let found = found.map_or("no perf here".to_owned(), |calls| format!("{calls:.1}"));
        let bound = if place == TRESTLE { "<= 15      12" } else { "" };
        println!("{:<44} {found:<23} {bound}", format!("system calls per connection: {}", product.name));
    }
}

fn memory(products: &mut [Product]) {
    for (place, product) in single(products) {
        let bytes = measure::memory(product);
        let bound = if place == TRESTLE { "<= 1024    512" } else { "" };
        let what = format!("memory per idle connection: {}", product.name);
        println!("{what:<44} {:<23} {bound}", format!("{bytes:.0} B"));
    }
}

/// Those whose figures stand alone.
fn single(products: &mut [Product]) -> impl Iterator<Item = (usize, &mut Product)> {
    products.iter_mut().enumerate().filter(|(place, _)| [HAPROXY, TRESTLE, NGINX].contains(place))
}

fn start_backend(address: SocketAddr) -> (Process, TempDir) {
    let dir = TempDir::with_prefix("backend-").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["relay-backend", &address.to_string()]);
    let process = Process::spawn("the backend", &mut command, &dir.path().join("output.log"));
    pinning::pin(process.id(), pinning::SERVERS);
    let connect = || std::net::TcpStream::connect(address).map(drop);
    wait_for("the backend", Duration::from_secs(10), connect);
    (process, dir)
}

/// What a unit of `kind` costs the products at `places` in each round; and the least units a second that any of them did.
fn costs(products: &mut [Product], places: &[usize], kind: &str, pairs: usize) -> (Table, f64) {
    let mut table = vec![Vec::new(); NGINX + 1];
    let mut slowest = f64::INFINITY;
    each_round(places, pairs, |place| {
        let Some(product) = products.get_mut(place) else { return };
        let (cost, rate) = measure::cost(product, kind);
        table[place].push(cost);
        slowest = slowest.min(rate);
    });
    (table, slowest)
}

/// Calls `measure` for every place in every round, forwards in even rounds and backwards in odd ones.
fn each_round(places: &[usize], rounds: usize, mut measure: impl FnMut(usize)) {
    for round in 0..rounds {
        let mut order = places.to_vec();
        if round % 2 == 1 {
            order.reverse();
        }
        order.into_iter().for_each(&mut measure);
    }
}

fn bulk(products: &mut [Product], pairs: usize) {
    let places = [HAPROXY, TRESTLE, NGINX, SPLICING, CONTROL, SPLICING_CONTROL];
    let (costs, _) = costs(products, &places, "bulk", pairs);
    let per_second: Table =
        costs.iter().map(|rounds| rounds.iter().map(|cost| 1.0 / cost).collect()).collect();
    report("bulk bytes per CPU-second", &per_second, 1e-9, "GB", At::Least(2.5, 3.5));
    let theirs = median(per_second[SPLICING].clone()) * 1e-9;
    let name = format!("/ HAProxy, forced splice ({theirs:.2} GB)");
    compare(&name, &per_second, SPLICING, SPLICING_CONTROL, At::Least(0.95, 1.1));
}

fn latencies(products: &mut [Product], back: SocketAddr, rate: f64, pairs: usize) {
    // The way without a proxy takes its turn like a product, behind the last of them.
    let direct = NGINX + 1;
    let mut tables: [Table; 2] = std::array::from_fn(|_| vec![Vec::new(); direct + 1]);
    each_round(&[&ALL[..], &[direct]].concat(), pairs, |place| {
        let target = if place == direct { Some(back) } else { products.get(place).map(|p| p.front) };
        let Some(target) = target else { return };
        for (table, quantile) in tables.iter_mut().zip(measure::latency(target, rate)) {
            table[place].push(quantile);
        }
    });
    for (name, mut table) in ["median", "99th percentile"].into_iter().zip(tables) {
        let ways = table.pop().unwrap_or_default();
        for rounds in &mut table {
            rounds.iter_mut().zip(&ways).for_each(|(through, way)| *through -= way);
        }
        let what = format!("latency at {rate:.0}/s, {name} (direct {:.1} us), added", median(ways) * 1e6);
        report(&what, &table, 1e6, "us", At::Most(1.0, 0.7));
    }
}

/// A bound that must hold and one to aim at.
#[derive(Clone, Copy)]
enum At {
    Most(f64, f64),
    Least(f64, f64),
}

impl At {
    fn judge(self, ratio: &Ratio) -> String {
        let (bound, word) = match self {
            At::Most(must, aim) => (
                format!("<= {must:<7} {aim:<8}"),
                if ratio.median <= aim {
                    "aim reached"
                } else if ratio.median <= must {
                    "holds"
                } else {
                    "MISSED"
                },
            ),
            At::Least(must, aim) => (
                format!(">= {must:<7} {aim:<8}"),
                if ratio.median >= aim {
                    "aim reached"
                } else if ratio.median >= must {
                    "holds"
                } else {
                    "MISSED"
                },
            ),
        };
        format!("{bound} {word}")
    }
}

fn report(what: &str, table: &Table, scale: f64, unit: &str, at: At) {
    let value = |place: usize| match table[place].as_slice() {
        [] => "not here".to_owned(),
        rounds => format!("{:.2} {unit}", median(rounds.to_vec()) * scale),
    };
    println!("{what}: HAProxy {}, trestle {}, nginx {}", value(HAPROXY), value(TRESTLE), value(NGINX));
    compare("/ HAProxy", table, HAPROXY, CONTROL, at);
    if !table[NGINX].is_empty() {
        println!("  {:<42} {}", "nginx / HAProxy", Ratio::of(&table[NGINX], &table[HAPROXY]));
    }
}

/// Prints the ratio to one HAProxy, and that of another one with the same configuration to it.
fn compare(name: &str, table: &Table, theirs: usize, again: usize, at: At) {
    let ratio = Ratio::of(&table[TRESTLE], &table[theirs]);
    let control = Ratio::of(&table[again], &table[theirs]);
    println!("  {name:<42} {:<23} {}", ratio.to_string(), at.judge(&ratio));
    let verdict = if control.is_one() { "good" } else { "leaves 0.95-1.05: the ratio above is VOID" };
    println!("  {:<42} {:<23} {verdict}", "control: the same HAProxy twice", control.to_string());
}
