#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod essence;
mod leaving;
mod model;
mod quorum;
mod random;
mod serving;
