//! The storage messages: what goes in comes out, bytes change only on purpose, and nothing that a disk can hold makes
//! the decoder panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fuzz;
mod golden;
mod refused;
mod round_trip;
mod strategies;
mod tokens;
mod users;
mod vips;
mod watched;
