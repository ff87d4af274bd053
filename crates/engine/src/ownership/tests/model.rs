//! Three members, an abstract Raft, three kernels, and three real machines: every state that they can get into, up to a
//! bound of terms, restarts and transfers, is visited. README.md says what is in the model and what is not.

mod check;
mod cluster;
mod node;
mod raft;
mod step;
