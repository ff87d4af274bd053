//! Listening, relaying and probing. One published table holds listeners, pools and verdicts; worker threads read it
//! without a lock, and one thread brings it in line with the configuration. `README.md` beside the sources shows the
//! threads and the life of a connection.

mod accept;
mod check;
mod condition;
mod connection;
mod forwarder;
mod machine;
mod observe;
mod plane;
mod reconcile;
mod relay;
mod resolve;
mod settings;
mod table;
mod upstream;
mod worker;

pub use accept::bind::{BindError, BindFailure};
pub use accept::listener::{BindStatus, Listener};
pub use check::LocalCheck;
pub use condition::PoolCondition;
pub use machine::budget::BudgetUse;
pub use machine::interfaces;
pub use machine::shortage::{Shortage, ShortageKind};
pub use observe::access_log::{AccessLog, AccessLogFormat};
pub use observe::check_result::CheckResult;
pub use observe::close_reason::CloseReason;
pub use observe::counters::TrafficCounts;
pub use observe::event::{Event, OnEvent};
pub use observe::history::VerdictChange;
pub use observe::snapshot::{ConnectionSnapshot, ConnectionState};
pub use plane::DataPlane;
pub use plane::fitness::AcceptFault;
pub use settings::DataPlaneSettings;
pub use table::Table;
pub use trestle_engine::Verdict;
pub use upstream::backend::Backend;
pub use upstream::pool::Pool;
pub use upstream::source::Sources;
