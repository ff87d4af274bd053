//! Real members, each in a network namespace of its own, keep a virtual IP while things break. A client connects to it every
//! millisecond, and a capture on their switch says who answered.
//!
//! Whatever happens, no two members may answer; how long clients wait is for `cargo xtask bench failover`. These tests take
//! root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod addresses;
mod baseline;
mod bed;
mod beside;
mod control_planes;
mod deaths;
mod drains;
mod fitness;
mod mending;
mod moves;
mod partitions;
mod parts;
mod pauses;
mod preferences;
mod quorum;
mod stacked;

use bed::Bed;
