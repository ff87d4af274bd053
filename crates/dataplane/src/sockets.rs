//! What the kernel knows of a TCP socket and no library asks it for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The ioctl(2) for [`unsent`], of linux/sockios.h; in no library.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;

/// Asks for a number of bytes.
fn count(socket: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and for these requests the kernel writes one `int`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    if result == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that were written and not sent for the first time yet.
///
/// # Errors
/// What ioctl(2) says.
pub(crate) fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    count(socket, SIOCOUTQNSD)
}
