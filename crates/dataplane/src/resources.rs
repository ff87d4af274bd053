//! Telling a shortage on this machine from a fault of the peer.

use std::io;

/// Error numbers of Linux (asm-generic/errno-base.h and errno.h) that mean "this machine has none left".
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

/// Whether an error says that file descriptors or memory ran out here.
pub(crate) fn exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}
