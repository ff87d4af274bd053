//! Clusters of several members in one process, with real sockets and real files, and cuts between any two of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod caller_check;
mod change;
mod cluster;
mod failure;
mod isolation;
mod large;
mod leadership;
mod levels;
mod origin;
mod peer;
mod proved_callers;
mod proxy;
mod removal;
mod removal_model;
mod restart;
mod rollback;
mod speed;
mod vote_guard;
mod votes;
mod writes;

pub(crate) use cluster::copy_all;
