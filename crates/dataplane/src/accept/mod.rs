//! Letting connections in: the listening sockets, and how many connections a listener takes, how fast, and from whom.

pub(crate) mod acceptor;
pub(crate) mod admission;
pub(crate) mod bind;
pub(crate) mod client_counts;
pub(crate) mod listener;
