//! Joining by a token: what the machine that joins does, what any member does for it, and what the leader does until it is a member in
//! full, with a vote and the key of the authority where it came for them.

mod arrivals;
mod authority_key;
mod command;
mod enrol;
mod progress;
mod serve;

pub(crate) use arrivals::Arrivals;
pub use command::{JoinError, Joined, enroll};
pub(crate) use enrol::{NotTaken, by_token, take_in};
pub(crate) use progress::follow;
pub(crate) use serve::Joins;
