//! Who lives: each process that fences under a name holds a lock of that name, which the kernel drops when it dies.
//!
//! The lock is an abstract UNIX socket (unix(7)): there is one of each name in a network namespace, which is what tables of
//! nftables are of, too. It needs no file, so that containers that share the host's network see each other's. A table that its
//! owner's socket takes with it (`NFT_TABLE_F_OWNER`) would not do: the fence must outlive its process.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

/// Begins the name of each lock.
const PREFIX: &str = "trestle/";
/// `CAP_NET_ADMIN` of `linux/capability.h`, as `/proc` shows it: nobody fences without.
const NET_ADMIN: u64 = 1 << 12;

/// Held for as long as this lives.
#[derive(Debug)]
pub(crate) struct TableLock(#[expect(dead_code, reason = "held, not used")] Option<UnixListener>);

/// Whose lock it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockOwner {
    /// Number of the process, where it can be seen from here.
    pub(crate) process: Option<i32>,
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.process.map_or(Ok(()), |process| write!(f, " (process {process})"))
    }
}

impl TableLock {
    /// Takes the lock of these tables; the inner error is who has it.
    pub(crate) fn take(table: &str) -> io::Result<Result<Self, LockOwner>> {
        let name = format!("{PREFIX}{table}");
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
            Ok(listener) => Ok(Ok(Self(Some(listener)))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let owner = owner(&name);
                // Any process may take a name. One that cannot fence is no member, and stops none.
                Ok(if owner.process.is_some_and(cannot_fence) { Ok(Self(None)) } else { Err(owner) })
            }
            Err(error) => Err(error),
        }
    }
}

/// Who listens at this name.
fn owner(name: &str) -> LockOwner {
    let ask = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        sockopt::socket_peercred(&socket)
    };
    LockOwner { process: ask().ok().map(|found| found.pid.as_raw_nonzero().get()) }
}

/// Whether a process surely has no right to fence.
fn cannot_fence(process: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return false };
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    permitted
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|bits| bits & NET_ADMIN == 0)
}
