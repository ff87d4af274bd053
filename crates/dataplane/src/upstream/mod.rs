//! Finding a backend for a connection, and reaching it.

pub(crate) mod backend;
pub(crate) mod backend_runtime;
pub(crate) mod dial;
pub(crate) mod loop_guard;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod slot;
pub(crate) mod source;
pub(crate) mod stickiness;
