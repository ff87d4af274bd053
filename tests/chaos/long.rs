//! The long form: run after run, each with a new cluster and the next seed, for as long as is asked for.

use std::time::{Duration, Instant};

use crate::mixes::GROUPS;
use crate::run::{Mix, run};
use crate::tally::Tally;

/// Episodes of one run: some minutes, after which logs have been purged and snapshots taken.
const EPISODES: usize = 12;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// `cargo xtask chaos` is this.
#[test]
#[ignore = "takes ten minutes, or as many as you say"]
fn for_as_long_as_is_asked_for() {
    let (minutes, first) = (number("TRESTLE_CHAOS_MINUTES", 10), number("TRESTLE_CHAOS_SEED", 1));
    let start = Instant::now();
    let mut all = Tally::default();
    for seed in first.. {
        let group = GROUPS[usize::try_from(seed % GROUPS.len() as u64).unwrap()];
        let repeat = format!("cargo xtask chaos --minutes 0 --seed {seed}");
        let mix = Mix::of_seed(group, seed, EPISODES, repeat);
        let Some(tally) = run(&mix) else { return };
        all.add(tally);
        eprintln!("seeds {first} to {seed}, {:.0} minutes:\n{all}", start.elapsed().as_secs_f64() / 60.0);
        if start.elapsed() >= Duration::from_secs(minutes * 60) {
            return;
        }
    }
}
