//! Decisions without effects: which verdict a backend earns, which backend takes the next connection, and when the
//! connections of a backend are closed.
//!
//! Time comes in as an argument and answers are values, so that every rule here is tested without a clock or a socket.

mod balance;
mod drain;
mod health;

pub use balance::Schedule;
pub use drain::{Admission, CloseCause, Closing};
pub use health::{Health, Observed, Verdict};
