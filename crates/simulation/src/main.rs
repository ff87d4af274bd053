//! Whole members under one scheduler and one clock: consensus, its store on a disk that loses what was not synced, the state, and the
//! driver of virtual IPs. README.md beside this crate's manifest says what is real and what is not.
//!
//! `cargo test` plays some hundred seeds; `cargo xtask simulate --seeds N --from S` as many as wanted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod disk;
mod draws;
mod history;
mod interpose;
mod kernel;
mod member;
mod network;
mod peer;
mod plan;
mod platform;
mod process;
mod seed;
mod trace;
mod world;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use seed::Running;
use world::{Planted, RunOutcome};

/// What `cargo test` plays, and for how long at the most.
const SEEDS: u64 = 40;
const SECONDS: u64 = 60;

/// Seeds within which a planted mistake must be found.
const FOUND_WITHIN: u64 = 100;

/// What is asked for.
struct Wanted {
    seeds: u64,
    from: u64,
    seconds: u64,
    jobs: usize,
    trace: bool,
    planted: Option<Planted>,
    test: bool,
}

fn wanted() -> Option<Wanted> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut wanted =
        Wanted { seeds: SEEDS, from: 1, seconds: SECONDS, jobs, trace: false, planted: None, test: true };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|number| number.parse().ok());
        match word.as_str() {
            "--seeds" => (wanted.seeds, wanted.seconds, wanted.test) = (number()?, u64::MAX, false),
            "--from" => wanted.from = number()?,
            "--seconds" => wanted.seconds = number()?,
            "--jobs" => wanted.jobs = usize::try_from(number()?).ok()?,
            "--trace" => wanted.trace = true,
            "--planted" => wanted.planted = Some(planted(&words.next()?)?),
            // What cargo tells each of its tests.
            "--nocapture" | "--quiet" | "-q" => {}
            _ => return None,
        }
    }
    Some(wanted)
}

fn planted(word: &str) -> Option<Planted> {
    Some(match word {
        "disk-lies" => Planted::DiskLies,
        "clocks-drift" => Planted::ClocksDrift,
        "lease-forgotten" => Planted::LeaseForgotten,
        "majority-goes-back" => Planted::MajorityGoesBack,
        "fences-late" => Planted::FencesLate,
        _ => return None,
    })
}

/// Sums over seeds.
#[derive(Default)]
struct Sums {
    runs: u64,
    all: RunOutcome,
    slowest: u64,
    failed: Vec<(u64, Vec<String>)>,
}

impl Sums {
    fn add(&mut self, seed: u64, outcome: RunOutcome) {
        self.runs += 1;
        self.all.operations += outcome.operations;
        self.all.parcels += outcome.parcels;
        self.all.faults += outcome.faults;
        self.all.terms += outcome.terms;
        self.all.moves += outcome.moves;
        self.all.syncs += outcome.syncs;
        self.all.length += outcome.length;
        self.slowest = self.slowest.max(outcome.recovery);
        if !outcome.violations.is_empty() {
            self.failed.push((seed, outcome.violations));
        }
    }
}

/// Plays seeds until all are done, the time is over, or one fails and `stop` is set.
fn play(wanted: &Wanted, planted: Option<Planted>, stop: bool) -> Sums {
    let (began, mut sums) = (Instant::now(), Sums::default());
    let mut running: VecDeque<Running> = VecDeque::new();
    let mut next = wanted.from;
    loop {
        let over = next >= wanted.from + wanted.seeds
            || began.elapsed() >= Duration::from_secs(wanted.seconds)
            || (stop && !sums.failed.is_empty());
        if !over && running.len() < wanted.jobs {
            running.push_back(seed::start(next, planted, wanted.trace).expect("a process"));
            next += 1;
            continue;
        }
        let Some(first) = running.pop_front() else { return sums };
        sums.add(first.seed, first.wait());
    }
}

#[expect(clippy::print_stdout, reason = "a test says what it found")]
fn say(line: &str) {
    println!("{line}");
}

fn report(sums: &Sums, began: Instant) {
    let Sums { runs, all, slowest, failed } = sums;
    say(&format!(
        "{runs} seeds in {:.1} s: {} virtual s, {} operations, {} parcels, {} syncs, {} faults, {} terms, {} moves of the virtual IP; \
         slowest recovery {slowest} ms; {} failed",
        began.elapsed().as_secs_f64(),
        all.length / 1000,
        all.operations,
        all.parcels,
        all.syncs,
        all.faults,
        all.terms,
        all.moves,
        failed.len()
    ));
    for (seed, violations) in failed.iter().take(20) {
        say(&format!("seed {seed}:"));
        violations.iter().take(5).for_each(|violation| say(&format!("    {violation}")));
    }
    if let Some((seed, _)) = failed.first() {
        say(&format!("to repeat it: cargo xtask simulate --seeds 1 --from {seed} --trace"));
    }
}

/// Two runs of a seed are the same.
fn is_deterministic(seeds: impl Iterator<Item = u64>) -> bool {
    let differs = |seed: &u64| {
        let run = || seed::start(*seed, None, false).expect("a process").wait();
        let (first, second) = (run(), run());
        first.trace != second.trace
    };
    let found: Vec<u64> = seeds.filter(differs).collect();
    if !found.is_empty() {
        say(&format!("not deterministic: seeds {found:?}"));
    }
    found.is_empty()
}

/// Whether the simulation finds a mistake that is planted in its own parts.
fn finds(wanted: &Wanted, what: &str, planted: Planted) -> bool {
    let sums =
        play(&Wanted { seeds: FOUND_WITHIN, seconds: SECONDS, from: 1, ..*wanted }, Some(planted), true);
    match sums.failed.first() {
        Some((seed, violations)) => {
            let first = violations.first().map_or("", String::as_str);
            say(&format!("finds {what}: seed {seed}, after {} runs: {first}", sums.runs));
            true
        }
        None => {
            say(&format!("does not find {what} in {} seeds", sums.runs));
            false
        }
    }
}

fn main() -> ExitCode {
    let Some(wanted) = wanted() else {
        say("0 tests: this one takes --seeds N, --from S, --seconds N, --jobs N, --trace and --planted BUG");
        return ExitCode::SUCCESS;
    };
    let began = Instant::now();
    let sums = play(&wanted, wanted.planted, false);
    report(&sums, began);
    let mut good = sums.failed.is_empty();
    if wanted.test {
        good &= is_deterministic(wanted.from..wanted.from + 5);
        good &= finds(&wanted, "a disk that lies", Planted::DiskLies);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
