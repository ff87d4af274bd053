#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod leaving;
mod model;
mod quorum;
mod random;
mod search_key;
mod serving;
