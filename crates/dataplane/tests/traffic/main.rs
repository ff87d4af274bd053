//! The data plane under real traffic: real sockets on loopback, nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod balancing;
mod closing;
mod harness;
mod health;
mod listeners;
mod relaying;
mod scale;
