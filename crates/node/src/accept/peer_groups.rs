//! The supplementary groups of the process at the other end of a UNIX socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Groups that are asked for at first. Most users are in fewer; the kernel says how many there are where that does not do.
const GROUPS_FIRST: usize = 32;
/// The most that a process may have (NGROUPS_MAX, limits.h of Linux).
const GROUPS_MAX: usize = 65_536;

/// The groups that the process had when it connected (SO_PEERGROUPS, since Linux 4.13; net/core/sock.c).
///
/// `/proc/PID/status` has them too, but of whatever process has that number *now*: one that connected may have ended since, or
/// run another program, and a user who waits for the number to come around would have the groups of somebody else. Nor are
/// processes of other PID namespaces there.
pub(super) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_FIRST];
    loop {
        match read(socket, &mut groups) {
            Ok(found) => {
                groups.truncate(found);
                return Ok(groups);
            }
            // The length is then the one that is needed.
            Err((error, needed)) => {
                let too_short = error.raw_os_error() == Some(libc::ERANGE);
                if !too_short || needed <= groups.len() || needed > GROUPS_MAX {
                    return Err(error);
                }
                groups.resize(needed, 0);
            }
        }
    }
}

/// Reads the groups, and answers how many there are; with an error, how many there is no room for.
#[expect(unsafe_code, reason = "no library has this option")]
fn read(socket: BorrowedFd<'_>, groups: &mut [u32]) -> Result<usize, (io::Error, usize)> {
    const GROUP: usize = size_of::<libc::gid_t>();
    let mut length = libc::socklen_t::try_from(groups.len() * GROUP).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes at most `length` bytes to `groups`,
    // which has that many, and the new length to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let count = length as usize / GROUP;
    if result == 0 { Ok(count) } else { Err((io::Error::last_os_error(), count)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_tells_the_groups_of_the_other_end() {
        let (one, _other) = UnixStream::pair().unwrap();
        let told: BTreeSet<u32> = peer_groups(one.as_fd()).unwrap().into_iter().collect();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let own: BTreeSet<u32> = line.split_whitespace().map(|group| group.parse().unwrap()).collect();
        assert_eq!(told, own);
    }

    #[test]
    fn what_is_no_unix_socket_has_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(peer_groups(listener.as_fd()).is_err());
    }
}
