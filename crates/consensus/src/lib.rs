//! Raft, its log on disk, its snapshots and its peer transport; the only crate that knows openraft
