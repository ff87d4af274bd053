//! The wire: generated code, conversions to and from the model, and the one table from errors to statuses.

#![forbid(unsafe_code)]

mod changed_fields;
pub mod convert;
pub mod differences;
mod generated;
pub mod peer_caller;
pub mod resource;
mod settings;
pub mod status;
pub mod stored;
pub mod transport;
pub mod unanswered;
pub mod watched;

/// Generated from `proto/trestle/v1`: what operators and automation use.
pub mod v1 {
    pub use crate::generated::trestle::v1::*;
}

/// Generated from `proto/trestle/peer/v1`: member to member.
pub mod peer {
    pub use crate::generated::trestle::peer::v1::*;
}

/// Generated from `proto/trestle/storage/v1`: what is on disk.
pub mod storage {
    pub use crate::generated::trestle::storage::v1::*;
}

/// Encoded descriptors of the admin API, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trestle_v1.bin"));

/// Encoded descriptors of all of `proto/`, for tests that walk every method or field; no binary carries them.
pub const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trestle.bin"));
