//! What the kernel knows of a TCP socket and no library asks it for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::relay::peer_watch::Pending;

/// The ioctl(2) for [`unsent`], of linux/sockios.h; in no library.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;

/// Asks for a number of bytes.
#[expect(unsafe_code, reason = "no library has these requests")]
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

/// The beginning of `tcp_info` of linux/tcp.h, which only ever grows at its end.
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    flags: [u8; 3],
    /// Microseconds.
    rto: u32,
    ato: u32,
    mss: [u32; 2],
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    /// Milliseconds, as those that follow.
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
}

/// How the peer answers, if it has not acknowledged all that was written, the end included.
///
/// # Errors
/// What ioctl(2) and getsockopt(2) say.
#[expect(unsafe_code, reason = "no library reads these fields of tcp_info")]
pub(crate) fn pending(socket: BorrowedFd<'_>) -> io::Result<Option<Pending>> {
    // Most have nothing under way, and this is the cheaper of the two.
    if count(socket, libc::TIOCOUTQ)? == 0 {
        return Ok(None);
    }
    let mut info = TcpInfo::default();
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes at most `length` bytes to `info`,
    // which is as long and whose every value is valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // Data tells of the peer as well, and brings no acknowledgement where there is nothing new to acknowledge.
    let silent = info.last_ack_recv.min(info.last_data_recv);
    Ok(Some(Pending {
        silent: Duration::from_millis(silent.into()),
        is_owed: info.unacked > 0 || info.probes > 0,
        retry: Duration::from_micros(info.rto.into()),
    }))
}

/// TCP_RTO_MAX_MS of linux/tcp.h, since Linux 6.15; in no library.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// Bounds the time between two retransmissions, and between two probes of a closed window, which the kernel otherwise lets
/// grow to two minutes. Does nothing on kernels that do not know it.
#[expect(unsafe_code, reason = "no library has this option")]
pub(crate) fn set_retransmission_max(socket: BorrowedFd<'_>, most: Duration) {
    let milliseconds = most.as_millis().clamp(1_000, 120_000) as libc::c_int;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `length` bytes from
    // `milliseconds`, which is as long.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const milliseconds).cast(),
            size_of_val(&milliseconds) as libc::socklen_t,
        )
    };
}
