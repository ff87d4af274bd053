//! The replicated state as its users see it: commands in, answers and changes out.
#![allow(clippy::unwrap_used, clippy::panic)]

mod authorities;
mod batches;
mod listeners;
mod make;
mod state;
mod tokens;
mod users;
mod vips;
