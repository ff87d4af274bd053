//! Nothing happens: the holder of a virtual IP keeps it while its machine has more to do than it can.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trestle_testkit::lab::{Lab, Trestle, settle};

use crate::figures::{Samples, line, ms, note};

/// Time between two looks at who serves.
const PACE: Duration = Duration::from_millis(50);

/// Spins on every core and compiles something over and over for so many minutes; prints how often the address moved.
/// Answers whether it never did.
pub(crate) fn run(trestled: &Path, minutes: u64) -> bool {
    let Some(lab) = Lab::build() else { return false };
    let mut product = Trestle::new(&lab, trestled);
    let first = settle(&lab, &mut product);
    let stop = AtomicBool::new(false);
    let mut answers = Samples::default();
    let (mut moves, mut failed, mut holder) = (0, 0, first);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        scope.spawn(|| compile(&stop));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60 * minutes) {
            let begun = Instant::now();
            match lab.served_by() {
                Ok(member) => {
                    answers.add(begun.elapsed());
                    moves += usize::from(member != holder);
                    holder = member;
                }
                Err(why) => {
                    failed += 1;
                    eprintln!("{why}");
                }
            }
            std::thread::sleep(PACE);
        }
        stop.store(true, Ordering::Relaxed);
    });
    note(&format!("answers in {minutes} minutes of full load, p99"), &ms(answers.quantile(0.99)));
    line("connections that failed", &failed.to_string(), "0", failed == 0);
    line("moves of the address", &moves.to_string(), "0", moves == 0);
    moves == 0 && failed == 0
}

/// Builds a crate of this workspace from nothing, again and again.
fn compile(stop: &AtomicBool) {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    while !stop.load(Ordering::Relaxed) {
        let dir = TempDir::with_prefix("trestle-compile-").unwrap();
        let mut build = Command::new(&cargo);
        build
            .args(["build", "--quiet", "--locked", "--package", "trestle-model", "--target-dir"])
            .arg(dir.path());
        build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        assert!(build.status().unwrap().success(), "{build:?}");
    }
}
