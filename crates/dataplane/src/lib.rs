//! Listening, relaying and probing. One published table holds listeners, pools and verdicts; worker threads read it
//! without a lock, and one thread brings it in line with the configuration. `README.md` beside the sources shows the
//! threads and the life of a connection.

mod accept;
mod check;
mod connection;
mod machine;
mod observe;
mod plane;
mod reconcile;
mod relay;
mod resolve;
mod table;
mod upstream;
mod worker;

pub use accept::bind::{BindError, BindFailure};
pub use check::LocalCheck;
pub use connection::connection_table::{Connection, ConnectionState};
pub use machine::budget::BudgetUse;
pub use machine::interfaces;
pub use machine::shortage::{Shortage, ShortageKind};
pub use observe::access_log::{AccessLog, AccessLogFormat};
pub use observe::close_reason::CloseReason;
pub use observe::counters::{Counters, Counts};
pub use observe::event::{Event, OnEvent};
pub use observe::history::VerdictChange;
pub use plane::fitness::AcceptFault;
pub use plane::{DataPlane, Settings};
pub use table::{Backend, BindStatus, CheckResult, Listener, Pool, Table};
pub use trestle_engine::Verdict;
pub use upstream::source::Sources;
