//! Hearing of what others do to the fence.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::netlink;

use super::Nft;
use super::batch::text;
use super::numbers::{
    CHANGES, DEL_ELEMENT, ELEMENTS_SET, NEW_ELEMENT, NEW_GENERATION, SUBSYSTEM, TABLE_NAME,
};
use super::ruleset::{VIPS4, VIPS6};
use crate::netlink::{Socket, messages};

/// What others have changed since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RulesetChanges {
    /// In the tables of this member.
    pub(crate) own: bool,
    /// In those of other members, more than what each does while it serves.
    pub(crate) others: bool,
}

/// Told by the kernel of every change to a table that is called as those of members are, unless the fence of this member
/// made it itself.
#[derive(Debug)]
pub(crate) struct RulesetMonitor {
    socket: Socket,
    own: String,
    prefix: &'static str,
}

impl RulesetMonitor {
    /// For the fence of one member, all tables of members beginning with `prefix`.
    pub(crate) fn open(fence: &Nft, prefix: &'static str) -> io::Result<Self> {
        let socket = Socket::open(Some(netlink::NETFILTER), CHANGES)?;
        // Renewals, twenty times a second and more, wake nobody.
        socket.ignore(fence.socket.port()?)?;
        Ok(Self { socket, own: fence.table.clone(), prefix })
    }

    /// All that was noticed since the last look.
    pub(crate) fn noticed(&mut self) -> io::Result<RulesetChanges> {
        let mut noticed = RulesetChanges::default();
        loop {
            match self.socket.receive_waiting() {
                Ok(None) => return Ok(noticed),
                Ok(Some(bytes)) => {
                    for message in messages(bytes) {
                        let Some(table) = concerned(message.kind, message.payload) else { continue };
                        noticed.own |= table == self.own;
                        noticed.others |= table != self.own
                            && table.starts_with(self.prefix)
                            && !is_renewal(message.kind, message.payload);
                    }
                }
                // There was more than the socket holds.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    noticed = RulesetChanges { own: true, others: true };
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for RulesetMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The table that a message is about.
pub(super) fn concerned(kind: u16, payload: &[u8]) -> Option<&str> {
    let about = kind >> 8 == SUBSYSTEM && kind & 0xff != NEW_GENERATION;
    // `struct nfgenmsg` comes before the attributes.
    about.then(|| text(payload.get(4..)?, TABLE_NAME)).flatten()
}

/// Whether a message is about an element of a set that is no list of fenced addresses.
pub(super) fn is_renewal(kind: u16, payload: &[u8]) -> bool {
    let set = payload.get(4..).and_then(|attributes| text(attributes, ELEMENTS_SET));
    [NEW_ELEMENT, DEL_ELEMENT].contains(&(kind & 0xff))
        && !set.is_some_and(|set| [VIPS4, VIPS6].contains(&set))
}
