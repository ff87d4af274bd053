//! Decisions without effects: which verdict a backend earns, which backend takes the next connection, when the connections
//! of a backend are closed, and which VIPs a member serves.
//!
//! Time comes in as an argument and answers are values, so that every rule here is tested without a clock or a socket.

mod balance;
mod drain;
mod health;
mod ownership;

pub use balance::Schedule;
pub use drain::{Admission, CloseCause, Closing};
pub use health::{Health, Observed, Verdict};
pub use ownership::{
    Action, Cause, Elected, Event, Facts, Fault, Lease, MoveRefusal, OnQuorumLoss, OwnCheck, Ownership,
    Standing, Tenure, Vip, announcement,
};
