//! One member: configuration, start order, admin service, reconciliation, metrics, shutdown.

#![forbid(unsafe_code)]

mod accept;
mod access;
mod admin;
mod assemble;
pub mod config;
mod connections;
pub mod descriptors;
mod dev;
mod events;
mod health;
mod http;
mod identities;
mod join;
mod lag;
mod levels;
mod metrics;
mod own_sockets;
mod peer;
mod peers;
mod ports;
mod privileges;
mod process;
mod reaper;
mod recover;
mod registration;
mod removal;
mod report;
mod report_values;
mod revision_waits;
mod serve;
mod start;
mod start_error;
mod state_follower;
mod supervise;
mod this_member;
mod troubles;
mod vip_clash;
mod vips;

pub use dev::Dev;
pub use metrics::DroppedLines;
pub use privileges::drop_capabilities;
pub use reaper::reap_orphans;
pub use recover::{RecoveryError, RecoveryPlan};
pub use start::Node;
pub use start_error::StartError;
pub use trestle_vip::cleanup;
pub use vips::CheckExec;
