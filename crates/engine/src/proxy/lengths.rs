//! How long the parts of a version 2 header are, in bytes (proxy-protocol.txt §2.2).

/// Longest header that is taken, in bytes, all counted. The specification allows 65 551 and says that senders stay below
/// 536; a client certificate's name and a few TLVs of one's own stay far below this bound, too.
pub const HEADER_MAX: usize = 4096;

/// Signature, version and command, family, length.
pub(super) const FIXED: usize = 16;
pub(super) const V4_LEN: usize = 12;
pub(super) const V6_LEN: usize = 36;
