//! What is counted, kept and told of connections and backends.

pub(crate) mod access_log;
pub(crate) mod check_result;
pub(crate) mod close_reason;
pub(crate) mod counters;
pub(crate) mod event;
pub(crate) mod history;
pub(crate) mod snapshot;
