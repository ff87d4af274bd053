//! Members, a switch and a client as network namespaces of one machine: real packets, the real kernel. They take root and
//! iproute2, and skip themselves without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod agent;
mod beside;
mod changing;
mod dying;
mod fence;
mod holding;
mod lab;
mod leaving;
mod mending;
mod probing;
mod quiet;
mod rights;
mod starting;
