//! Real members, each in a network namespace of its own, keep a virtual IP while things break. A client connects to it every
//! millisecond, and a capture on their switch says who answered.
//!
//! Whatever happens, no two members may answer; how long clients wait is for `cargo xtask bench failover`. These tests take
//! root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod baseline;
mod deaths;
mod mending;
mod moves;
mod partitions;
mod pauses;
mod quorum;

use std::path::Path;

use trestle_testkit::lab::{Dual, Fault, Lab, Trestle, Trial};
use trestle_testkit::skip;

/// A lab with a cluster in it.
struct Bed {
    product: Trestle,
    /// Goes last.
    lab: Lab,
}

impl Bed {
    /// `None`, with a word of explanation, where labs cannot be built.
    fn new() -> Option<Self> {
        let lab = Lab::build()?;
        let product = Trestle::new(&lab, Path::new(env!("CARGO_BIN_EXE_trestled")));
        Some(Self { product, lab })
    }

    /// Runs a trial in which no two members may answer, and after which a member serves.
    fn endure(&mut self, fault: Fault) -> Option<Trial> {
        let trial = self.one_holder(fault)?;
        assert!(trial.gap.over && trial.after.is_some(), "{fault}: nobody serves: {trial:?}");
        Some(trial)
    }

    /// Runs a trial in which no two members may answer.
    fn one_holder(&mut self, fault: Fault) -> Option<Trial> {
        match Trial::run(&self.lab, &mut self.product, fault) {
            Ok(trial) => {
                eprintln!("{fault}: {trial:?}");
                assert_eq!(trial.dual, Dual::default(), "{fault}: two members answered: {trial:?}");
                Some(trial)
            }
            Err(why) => {
                skip(&format!("{fault}: {why}"));
                None
            }
        }
    }
}
