//! Decisions without effects: which verdict a backend earns, which backend takes the next connection, and when the
//! connections of a backend are closed; which address of its name is used; who may connect, how often, and what the first bytes
//! of a connection say; which VIPs a member serves; what hangs; what is told how often.
//!
//! Time comes in as an argument and answers are values, so that every rule here is tested without a clock or a socket.

#![forbid(unsafe_code)]

pub mod access;
mod addresses;
mod balance;
pub mod client_hello;
mod drain;
mod failback;
mod health;
mod mix;
mod name_record;
mod outage;
pub mod ownership;
pub mod proxy;
pub mod rate;
mod repeats;
pub mod routes;
pub mod share;
mod sign_of_life;
pub mod spread;

pub use addresses::{Candidates, Round};
pub use balance::{Availability, Candidate, Schedule, Selection, SlowStartRamp, Stickiness};
pub use drain::{CloseCause, CloseSchedule, DrainState};
pub use failback::Failback;
pub use health::{Health, Observed, Verdict};
pub use name_record::{AskTimer, CANDIDATES_MAX, Family, NameRecord};
pub use outage::{Elsewhere, Outage};
pub use repeats::Repeats;
pub use sign_of_life::{SIGN_INTERVAL, SILENT_MAX, SignOfLife};
