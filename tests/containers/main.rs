//! The shipped image and compose file in a real engine: what README has users do, and what engines do to containers.
//!
//! A client on the host connects to the virtual IP every 10 ms, and a capture says who answered: never two members, whatever happens. The
//! image is made of the programs under test, or is the one that `TRESTLE_TEST_IMAGE` names (`cargo xtask image` makes `trestle`). Takes
//! root, an engine and Compose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod addresses;
mod bed;
mod faults;
mod image;
mod networks;
mod readme;
mod starts;
mod systemd;

use bed::Bed;
