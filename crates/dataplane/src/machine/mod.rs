//! What this machine gives the data plane, and what it lacks: descriptors, addresses, threads.

pub(crate) mod budget;
pub mod interfaces;
pub(crate) mod local_ports;
pub(crate) mod shortage;
pub(crate) mod threads;
