//! The data plane under real traffic: real sockets on loopback, nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod balancing;
mod bulk;
mod check_cost;
mod checking;
mod closing;
mod harness;
mod health;
mod http_checks;
mod listeners;
mod policies;
mod relaying;
mod scale;
mod sources;
mod tls_checks;
