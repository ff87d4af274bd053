//! The driver with a machine and a ledger that remember what they were told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod fakes;
mod simulation;
