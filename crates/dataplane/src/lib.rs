//! Listening, relaying and probing. One published table holds listeners, pools and verdicts; worker threads read it
//! without a lock, and one thread brings it in line with the configuration. `README.md` beside the sources shows the
//! threads and the life of a connection.

mod accept;
mod acceptor;
mod bind;
mod connection;
mod counters;
mod dial;
mod keepalive;
mod leg;
mod live;
mod plane;
mod probe;
mod random;
mod reactor;
mod reason;
mod reconcile;
mod relay;
mod resources;
mod table;
mod worker;

pub use bind::BindError;
pub use counters::{Counters, Counts};
pub use plane::{DataPlane, Settings};
pub use reason::CloseReason;
pub use table::{Backend, BindStatus, CheckResult, Listener, Pool, Table};
pub use trestle_engine::Verdict;
