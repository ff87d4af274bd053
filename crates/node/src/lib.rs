//! One member: configuration, start order, admin service, reconciliation, metrics, shutdown.

#![forbid(unsafe_code)]

mod accept;
mod access;
mod admin;
pub mod config;
mod connections;
pub mod descriptors;
mod dev;
mod events;
mod http;
mod join;
mod lag;
mod member;
mod metrics;
mod own_sockets;
mod peer;
mod ports;
mod privileges;
mod problems;
mod reaper;
mod recover;
mod registration;
mod removal;
mod report;
mod serve;
mod start;
mod supervise;
mod troubles;
mod vips;

pub use dev::Dev;
pub use privileges::drop_capabilities;
pub use reaper::reap_orphans;
pub use recover::{RecoveryError, RecoveryPlan};
pub use start::{DroppedLines, Node, StartError};
pub use trestle_vip::cleanup;
pub use vips::CheckExec;
