//! Real processes for tests: clusters, web servers, clients; development only.
//!
//! Everything runs on loopback addresses that belong to one test alone, so that tests run side by side and beside a
//! `trestled dev`. Whatever is started here ends when its handle is dropped; when that happens in a failing test, its log is
//! printed. Helpers panic on what a test does not expect: their callers are tests.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod api;
pub mod attacks;
mod certificate;
mod cluster;
pub mod containers;
mod document;
mod fake_clock;
pub mod faults;
mod fetch;
pub mod history;
pub mod lab;
mod member;
mod nginx;
mod origin;
mod process;
mod subnet;
mod tools;
mod traffic;
mod wait;

pub use api::{Api, message_bytes};
pub use certificate::{Authority, Certificate};
pub use cluster::Cluster;
pub use document::{Section, shell};
pub use fake_clock::FakeClock;
pub use fetch::{Page, fetch_http, fetch_tls, get};
pub use member::{Member, Usage};
pub use nginx::Nginx;
pub use origin::Origin;
pub use process::Process;
pub use subnet::Subnet;
pub use tools::{has_tools, is_root, python_with_grpc, skip, tool};
pub use traffic::{FailedRequest, Traffic, TrafficReport};
pub use wait::{wait_for, wait_until};
