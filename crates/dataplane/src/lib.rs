//! Listening, relaying and probing. One published table holds listeners, pools and verdicts; worker threads read it
//! without a lock, and one thread brings it in line with the configuration. `README.md` beside the sources shows the
//! threads and the life of a connection.

mod accept;
mod acceptor;
mod access_log;
mod bind;
mod budget;
mod client_counts;
mod connection;
mod connections;
mod counters;
mod deadlines;
mod dial;
mod fitness;
mod gate;
mod guard;
mod history;
pub mod interfaces;
mod keepalive;
mod leg;
mod live;
mod names;
mod packed;
mod peer_watch;
mod place;
mod plane;
mod probe;
mod pulse;
mod queue;
mod random;
mod reactor;
mod reason;
mod reconcile;
mod relay;
mod shortage;
mod sockets;
mod source;
mod sticky;
mod table;
mod threads;
mod worker;

pub use access_log::{AccessLog, AccessLogFormat};
pub use bind::{BindError, BindFailure};
pub use budget::BudgetUse;
pub use connections::{Connection, ConnectionState};
pub use counters::{Counters, Counts};
pub use fitness::AcceptFault;
pub use history::VerdictChange;
pub use plane::{DataPlane, Settings};
pub use reason::CloseReason;
pub use shortage::{Shortage, ShortageKind};
pub use source::Sources;
pub use table::{Backend, BindStatus, CheckResult, Listener, Pool, Table};
pub use trestle_engine::Verdict;
