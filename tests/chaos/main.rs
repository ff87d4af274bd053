//! Chaos: real members as their users run them, a virtual IP, writers, streams and dialers, and faults by a seed while all of them go
//! on. What everybody saw is recorded and judged afterwards.
//!
//! `cargo xtask chaos --minutes 30 --seed 7` does the same for longer. A run that fails keeps data directories, logs, the capture and the
//! histories, and says where and how to repeat it. The plan of faults follows from the seed; what the machine does beside it does not.
//!
//! These tests take root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod dials;
mod findings;
mod ledger;
mod log_sink;
mod long;
mod mixes;
mod registers;
mod rows;
mod run;
mod streams;
mod surroundings;
mod tally;
mod turns;
