//! What faults cost clients: keepalived with HAProxy, and Trestle, each in a lab of the same kind, in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use trestle_testkit::lab::{Cut, Fault, Keepalived, Lab, Product, Trestle, Trial};

use crate::figures::{Samples, ms};

/// Trials of each kind without an argument: about ten minutes.
const TRIALS: usize = 3;
/// Time between two connections of the client.
const PACE: Duration = Duration::from_millis(1);

/// The lease of Trestle's default timing, and what its fence may take longer.
const LEASE: Duration = Duration::from_millis(280 + 20);
/// Bound on the 99th percentile of the gap after a death.
const GAP: Duration = Duration::from_millis(800);
/// Bound on every gap after a death.
const GAP_MAX: Duration = Duration::from_millis(1200);
/// Bound on the gap after something that is mended in place.
const MENDED: Duration = Duration::from_secs(1);
/// Bound on the time that an address stays without a daemon.
const GONE: Duration = Duration::from_secs(3);

/// How long partitions last: longer than keepalived takes to notice.
const SPLIT: Duration = Duration::from_secs(4);

/// The rows of the table.
const FAULTS: [Fault; 15] = [
    Fault::Kill,
    Fault::Cable,
    Fault::PowerOff,
    Fault::Stop(Duration::from_millis(100)),
    Fault::Stop(Duration::from_millis(400)),
    Fault::Stop(Duration::from_secs(5)),
    Fault::Freeze(Duration::from_secs(5)),
    Fault::Cut(Cut::Both(0), SPLIT),
    Fault::Cut(Cut::From(0), SPLIT),
    Fault::Cut(Cut::To(0), SPLIT),
    Fault::Cut(Cut::Between(0, 1), SPLIT),
    Fault::Move,
    Fault::Delete,
    Fault::Flap(Duration::from_millis(100)),
    Fault::Alone,
];

struct Options {
    trials: usize,
    only: Option<String>,
}

fn options(mut arguments: &[String]) -> Options {
    let mut options = Options { trials: TRIALS, only: None };
    while let [name, value, rest @ ..] = arguments {
        match name.as_str() {
            "--trials" => options.trials = value.parse().expect("--trials takes a number"),
            "--only" => options.only = Some(value.clone()),
            _ => break,
        }
        arguments = rest;
    }
    assert!(arguments.is_empty(), "usage: trestle-bench failover [--trials N] [--only PART-OF-A-NAME]");
    options
}

/// A product in a lab of its own, so that the other can rest in its own; it goes before the lab.
struct Bed {
    product: Box<dyn Product>,
    lab: Lab,
}

fn beds(trestled: &Path) -> Vec<Bed> {
    let mut beds = Vec::new();
    if let Some(lab) = Lab::build()
        && let Some(product) = Keepalived::new(&lab)
    {
        beds.push(Bed { product: Box::new(product), lab });
    }
    if let Some(lab) = Lab::build() {
        let product = Trestle::new(&lab, trestled);
        beds.push(Bed { product: Box::new(product), lab });
    }
    beds
}

/// Runs all trials and prints the table.
pub(crate) fn run(trestled: &Path, arguments: &[String]) {
    let options = options(arguments);
    let wanted =
        |fault: &Fault| options.only.as_ref().is_none_or(|only| fault.to_string().contains(only.as_str()));
    let mut beds = beds(trestled);
    println!(
        "SIGKILL and SIGSTOP go to all processes of a member, HAProxy's too. A gap is the longest time between two answers\n\
         to a client that connects every millisecond; attempts are given up after 300 ms (planned move: 5 s).\n\
         \"two\": how long two members answered, by a capture on the switch. \"silent\": the holder's last answer.\n"
    );
    println!(
        "{:<22} {:<21} {:>3} {:>10} {:>10} {:>10} {:>7} {:>10} {:>10} {:>10}",
        "fault", "product", "n", "gap p50", "p99", "max", "failed", "two, max", "silent", "gone"
    );
    let start = Instant::now();
    for fault in FAULTS.iter().filter(|fault| wanted(fault)) {
        let mut rows: Vec<Row> = beds.iter().map(|_| Row::default()).collect();
        for round in 0..options.trials {
            // The other way round every second time, so that a busy moment of the machine hits both.
            let mut order: Vec<usize> = (0..beds.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for place in order {
                let bed = &mut beds[place];
                match Trial::run(&bed.lab, &mut *bed.product, *fault, PACE) {
                    Ok(trial) => rows[place].0.push(trial),
                    Err(why) => eprintln!("{fault}: {why}"),
                }
            }
        }
        for (bed, row) in beds.iter().zip(&rows) {
            row.print(*fault, bed.product.name());
        }
    }
    println!("\n{:.0} s", start.elapsed().as_secs_f64());
}

/// Trials of one fault with one product.
#[derive(Default)]
struct Row(Vec<Trial>);

impl Row {
    fn print(&self, fault: Fault, product: &str) {
        let Self(trials) = self;
        let mut gaps = Samples::default();
        trials.iter().for_each(|trial| gaps.add(trial.gap.length));
        if trials.is_empty() {
            println!("{fault:<22} {product:<21} not possible here");
            return;
        }
        let longest = |what: fn(&Trial) -> Duration| trials.iter().map(what).max().unwrap_or_default();
        let two = longest(|trial| trial.dual.time);
        let strays: usize = trials.iter().map(|trial| trial.dual.answers).sum();
        let failed: usize = trials.iter().flat_map(|trial| trial.failed.values()).sum();
        let stays = trials.iter().any(|trial| trial.gone.is_none());
        let (silent, gone) = match fault {
            Fault::Kill | Fault::Alone if stays => (ms(longest(|trial| trial.silent)), "stays".to_owned()),
            Fault::Kill | Fault::Alone => {
                (ms(longest(|trial| trial.silent)), ms(longest(|trial| trial.gone.unwrap_or_default())))
            }
            _ => ("-".to_owned(), "-".to_owned()),
        };
        let open = if trials.iter().any(|trial| !trial.gap.over) { "+" } else { "" };
        println!(
            "{:<22} {product:<21} {:>3} {:>10} {:>10} {:>10} {failed:>7} {:>10} {silent:>10} {gone:>10}  {}",
            fault.to_string(),
            trials.len(),
            ms(gaps.quantile(0.5)),
            ms(gaps.quantile(0.99)),
            ms(gaps.quantile(1.0)) + open,
            if two.is_zero() && strays > 0 { format!("{strays} answers") } else { ms(two) },
            if product == "Trestle" { self.judge(fault, &gaps) } else { String::new() },
        );
    }

    /// Each bound that must hold, and whether it does.
    fn judge(&self, fault: Fault, gaps: &Samples) -> String {
        let Self(trials) = self;
        let all = |what: &dyn Fn(&Trial) -> bool| trials.iter().all(what);
        let mut bounds = vec![("one holder".to_owned(), all(&|trial| trial.dual.answers == 0))];
        let gap = |bound: Duration| (format!("max <= {} ms", bound.as_millis()), gaps.quantile(1.0) <= bound);
        match fault {
            Fault::Kill | Fault::Cable | Fault::PowerOff => {
                bounds.push((format!("p99 <= {} ms", GAP.as_millis()), gaps.quantile(0.99) <= GAP));
                bounds.push(gap(GAP_MAX));
            }
            Fault::Move => bounds.push(("0 failed".to_owned(), all(&|trial| trial.failed.is_empty()))),
            Fault::Delete | Fault::Flap(_) => bounds.push(gap(MENDED)),
            _ => {}
        }
        if matches!(fault, Fault::Kill | Fault::Alone) {
            let silent = format!("silent <= {} ms", LEASE.as_millis());
            bounds.push((silent, all(&|trial| trial.silent <= LEASE)));
            let gone = format!("gone <= {} ms", GONE.as_millis());
            bounds.push((gone, all(&|trial| trial.gone.is_some_and(|gone| gone <= GONE))));
        }
        let bound =
            |(what, holds): (String, bool)| format!("{what}: {}", if holds { "holds" } else { "MISSED" });
        bounds.into_iter().map(bound).collect::<Vec<_>>().join(", ")
    }
}
