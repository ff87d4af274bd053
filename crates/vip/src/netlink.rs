//! Netlink sockets: one request, its answers, no runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send,
    socket_with, sockopt,
};
use socket2::{SockFilter, SockRef};

/// Dumps come in parts of at most 32 KiB (`NLMSG_GOODSIZE` and the size of the reader's buffer bound them).
const RECEIVE_BYTES: usize = 64 * 1024;

/// The kernel puts the answer into the queue before the request returns, so that an answer that is not there by then is a
/// defect, not a delay.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: what is listed has changed since the list was begun.
pub(crate) const INTERRUPTED: u16 = 0x10;
/// Where `struct nlmsghdr` names the socket that a message came from, or that caused it.
const PORT_AT: u32 = 12;
const HEADER: usize = 16;

/// A netlink socket. Answers are read into one buffer that is kept.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

/// One message of an answer: its type, sequence number and what follows the header.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
    /// With the header.
    pub(crate) whole: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
}

/// The messages in what one receive call brought; ends at the first that is cut short.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        let whole = bytes.get(..length).filter(|whole| whole.len() >= HEADER)?;
        let kind = u16::from_ne_bytes([whole[4], whole[5]]);
        let flags = u16::from_ne_bytes([whole[6], whole[7]]);
        let sequence = word(whole, 8)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, payload: &whole[HEADER..], whole })
    })
}

impl Message<'_> {
    /// What the kernel says in an error or end message; 0 is success.
    pub(crate) fn error(&self) -> Option<io::Error> {
        let code = word(self.payload, 0).unwrap_or(0).cast_signed();
        (code != 0).then(|| io::Error::from_raw_os_error(code.wrapping_neg()))
    }
}

impl Socket {
    /// A socket of `protocol`, by default rtnetlink, that also hears the multicast `groups` (a mask).
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { fd, buffer: vec![0; RECEIVE_BYTES], sequence: 0 })
    }

    /// The number by which the kernel knows this socket.
    pub(crate) fn port(&self) -> io::Result<u32> {
        Ok(SocketAddrNetlink::try_from(getsockname(&self.fd)?)?.pid())
    }

    /// Lets nothing in that was caused by the socket with this number (classic BPF).
    pub(crate) fn ignore(&self, port: u32) -> io::Result<()> {
        // The filter reads words in network byte order.
        let port = u32::from_be_bytes(port.to_ne_bytes());
        // Load the number; leave the message out if it is this one, else keep all of it.
        SockRef::from(&self.fd).attach_filter(&[
            SockFilter::new(0x20, 0, 0, PORT_AT),
            SockFilter::new(0x15, 0, 1, port),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ])
    }

    /// The next sequence number; several in a row with `count`, of which this is the first.
    pub(crate) fn number(&mut self, count: u32) -> u32 {
        // 0 marks what the kernel sends unasked.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.fd, bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Waits for the next datagram, at most a second.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        let (received, _) = recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty())?;
        Ok(&self.buffer[..received])
    }

    /// The next datagram that is there already.
    pub(crate) fn receive_waiting(&mut self) -> io::Result<Option<&[u8]>> {
        match recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((received, _)) => Ok(Some(&self.buffer[..received])),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn messages_that_are_cut_short_end_the_list() {
        let mut bytes = Vec::new();
        for sequence in [7_u32, 8] {
            for word in [20, u32::from(NLMSG_ERROR), sequence, 0, libc::EPERM.cast_unsigned().wrapping_neg()]
            {
                bytes.extend_from_slice(&word.to_ne_bytes());
            }
        }
        let found: Vec<_> =
            messages(&bytes).map(|m| (m.sequence, m.error().unwrap().raw_os_error())).collect();
        assert_eq!(found, [(7, Some(libc::EPERM)), (8, Some(libc::EPERM))]);
        for length in 0..bytes.len() {
            assert!(messages(&bytes[..length]).count() < 2);
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
