//! One member: configuration, start order, admin service, reconciliation, metrics, shutdown.

mod accept;
mod access;
mod admin;
mod assemble;
mod certificate_ends;
pub mod config;
mod connections;
pub mod descriptors;
mod dev;
mod events;
mod founding;
mod health;
mod health_check;
mod http;
mod identities;
mod join;
mod joining;
mod lag;
mod levels;
mod local_socket;
mod metrics;
mod own_sockets;
mod peer;
mod peers;
mod plain_http;
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
mod samples;
mod serve;
mod start;
mod start_error;
mod state_follower;
mod supervise;
mod this_member;
mod troubles;
mod vip_clash;
mod vips;

/// What a simulation of several members needs; nothing else may use it.
#[doc(hidden)]
pub mod simulation {
    pub use crate::vips::simulated::{Host, Kernel, SimulatedOwner};
}

pub use dev::Dev;
pub use founding::{new_founding_token, write_founding_token};
pub use health_check::check_health;
pub use joining::{JoinError, Joined, enroll};
pub use metrics::DroppedLines;
pub use privileges::drop_capabilities;
pub use reaper::reap_orphans;
pub use recover::{RecoveryError, RecoveryPlan};
pub use samples::{SampleClient, sample_backend};
pub use start::Node;
pub use start_error::StartError;
pub use trestle_vip::cleanup;
pub use vips::CheckExec;
