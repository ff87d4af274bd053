//! The data plane under real traffic: real sockets on loopback, nothing mocked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod access_log;
mod addresses;
mod balancing;
mod bulk;
mod by_name;
mod check_cost;
mod checking;
mod closing;
mod connections;
mod dead_peers;
mod exchange_checks;
mod failback;
mod greetings;
mod grpc_checks;
mod harness;
mod health;
mod http_checks;
mod identities;
mod limits;
mod listeners;
mod name_server;
mod names;
mod outages;
mod policies;
mod queueing;
mod ranges;
mod relaying;
mod scale;
mod shortages;
mod slow_start;
mod sources;
mod stickiness;
mod tls_checks;
mod verdicts;
mod vips;
