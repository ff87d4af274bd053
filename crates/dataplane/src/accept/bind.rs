//! Opening listening sockets, and the reasons why one could not be opened.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use trestle_model::{Bind, ListenerName};

use crate::machine::local_ports::ephemeral;
use crate::machine::shortage::Shortage;
use crate::relay::keepalive::Keepalive;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;

/// Why an address of a listener does not accept connections, in words when displayed. Tried again at every drift interval.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("address already in use by another process; stop that process or choose another address or port")]
    InUse,
    /// Another process has it, or a connection that the kernel has given the port to.
    #[error(
        "address already in use by another process, or by a connection: the kernel gives this port to connections \
         (net.ipv4.ip_local_port_range); end what has it, and keep the port back in net.ipv4.ip_local_reserved_ports"
    )]
    InUseEphemeral,
    /// This member's admin API, peers or HTTP are there.
    #[error("it is a port of this member itself (admin API, peers or HTTP); choose another address or port")]
    OwnPort,
    /// Those of another member on this machine are there.
    #[error(
        "it is a port of another member on this machine (admin API, peers or HTTP); choose another address or port"
    )]
    NeighbourPort,
    /// It belongs to no interface of this member.
    #[error(
        "cannot assign requested address: it is not on this machine; add it to an interface or change the listener"
    )]
    NotHere,
    /// Another listener means the same address on this member.
    #[error(
        "listener \"{0}\" has this address on this member; choose another address or port for one of them"
    )]
    Taken(ListenerName),
    /// This member is drained, and no virtual IP has this address.
    #[error("not listening: this member is drained")]
    Drained,
    /// This member is stopping.
    #[error("not listening: this member is stopping")]
    Stopped,
    /// The first checks of the backends that the listener leads to have not ended yet. Lasts two seconds at most.
    #[error("not listening yet: waits for the first checks of its backends")]
    Unchecked,
    /// Others come first; its own turn is a moment away.
    #[error("not listening yet: being opened")]
    Opening,
    /// Listening sockets have all descriptors that are for them, which are as many as this.
    #[error(
        "not listening: the {0} file descriptors that this member has for listening sockets are taken; raise its limit \
         (LimitNOFILE, ulimit -n) or name fewer ports"
    )]
    TooMany(usize),
    /// Connections have the descriptors that are left.
    #[error(
        "not listening yet: connections have all file descriptors that this member has for them; tried again as they end, \
         or raise its limit (LimitNOFILE, ulimit -n)"
    )]
    Crowded,
    /// This member lacks something else for a socket.
    #[error("cannot listen: {0}")]
    Lacks(Shortage),
    /// The operating system refused for another reason.
    #[error("cannot listen: {0}")]
    Refused(Arc<str>),
}

impl BindError {
    fn new(address: SocketAddr, source: &io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse if ephemeral().is_some_and(|range| range.contains(&address.port())) => {
                Self::InUseEphemeral
            }
            io::ErrorKind::AddrInUse => Self::InUse,
            io::ErrorKind::AddrNotAvailable => Self::NotHere,
            _ => match Shortage::of(source) {
                Some(shortage) => Self::Lacks(shortage),
                None => Self::Refused(source.to_string().into()),
            },
        }
    }

    /// Whether something that is no listener has the address.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse | Self::InUseEphemeral | Self::OwnPort | Self::NeighbourPort)
    }

    /// Whether the address will be bound by itself, and soon.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unchecked | Self::Opening)
    }

    /// Whether the address has no socket because that is wanted.
    pub(crate) fn is_meant(&self) -> bool {
        matches!(self, Self::Stopped | Self::Drained)
    }

    /// Whether it is for a load, which may be anybody's and goes, and not for this member's settings.
    pub(crate) fn is_load(&self) -> bool {
        matches!(self, Self::Crowded | Self::Lacks(_))
    }
}

/// Most reasons, and most ranges of addresses for each of them, that are told of one listener.
const TOLD_MAX: usize = 8;

/// Addresses of a listener that one reason keeps from being bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindFailure {
    /// The first ranges of them.
    pub ranges: Vec<Bind>,
    /// How many more addresses there are.
    pub more: usize,
    /// The reason, in words.
    pub why: String,
    /// Whether the addresses have no socket because that is wanted: this member is drained, or stops.
    pub meant: bool,
}

impl fmt::Display for BindFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges.iter().map(ToString::to_string).collect();
        let more = if self.more > 0 { format!(" and {} more addresses", self.more) } else { String::new() };
        write!(f, "{}{more}: {}", ranges.join(", "), self.why)
    }
}

/// What keeps addresses from being bound, by reason; and how many addresses there are with further reasons.
pub(crate) fn failures<'a>(
    failed: impl IntoIterator<Item = (SocketAddr, &'a BindError)>,
) -> (Vec<BindFailure>, usize) {
    let mut reasons: BTreeMap<&BindError, Vec<SocketAddr>> = BTreeMap::new();
    for (address, error) in failed {
        reasons.entry(error).or_default().push(address);
    }
    let failure = |(error, addresses): (&&BindError, &Vec<SocketAddr>)| {
        let mut ranges = Bind::ranges(addresses.iter().copied());
        let more = ranges.iter().skip(TOLD_MAX).map(|range| range.ports()).sum();
        ranges.truncate(TOLD_MAX);
        BindFailure { ranges, more, why: error.to_string(), meant: error.is_meant() }
    };
    let rest = reasons.values().skip(TOLD_MAX).map(Vec::len).sum();
    (reasons.iter().take(TOLD_MAX).map(failure).collect(), rest)
}

/// What keeps addresses from being bound: one text for each reason, with its addresses in ranges.
pub(crate) fn told<'a>(failed: impl IntoIterator<Item = (SocketAddr, &'a BindError)>) -> Vec<String> {
    let (failures, rest) = failures(failed);
    let mut texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    if rest > 0 {
        texts.push(format!("{rest} more addresses are not bound, for other reasons"));
    }
    texts
}

/// The addresses that a configured one means on a member with this data address.
pub(crate) fn effective(bind: Bind, data_address: Option<IpAddr>) -> impl Iterator<Item = SocketAddr> {
    bind.on(data_address).sockets()
}

fn socket(address: SocketAddr, share: bool, ahead: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` means IPv6 only, so that it never takes what belongs to a listener on `0.0.0.0`.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    if ahead {
        // IP_FREEBIND of ip(7): any process may set it, and no sysctl has to be changed.
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listening(address: SocketAddr, ahead: bool) -> io::Result<TcpListener> {
    let socket = socket(address, true, ahead)?;
    // Linux hands these options down to accepted sockets, which saves six calls for each connection.
    socket.set_tcp_nodelay(true)?;
    Keepalive::default().apply(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Opens `count` listening sockets that share `address`.
///
/// With `alone`, first makes sure that nobody else listens there: a socket without SO_REUSEPORT is refused where any
/// other listens, while one with it would quietly share connections with another process of the same user.
///
/// With `ahead`, the address need not be on this machine: connections arrive as soon as it is, and the sockets stay open
/// when it goes.
pub(crate) fn open(
    address: SocketAddr,
    count: usize,
    alone: bool,
    ahead: bool,
) -> Result<Vec<TcpListener>, BindError> {
    let open = || -> io::Result<Vec<TcpListener>> {
        if alone {
            drop(socket(address, false, ahead)?);
        }
        (0..count).map(|_| listening(address, ahead)).collect()
    };
    open().map_err(|source| BindError::new(address, &source))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        Bind::parse(text).unwrap().sockets().collect()
    }

    #[test]
    fn what_is_not_bound_is_told_by_reason_and_in_ranges() {
        let range = addresses("10.0.0.1:30000-32767");
        let all = range.iter().map(|address| (*address, &BindError::NotHere));
        let said = told(all);
        assert_eq!(said, [format!("10.0.0.1:30000-32767: {}", BindError::NotHere)]);
        let (taken, in_use) = (BindError::Taken(ListenerName::parse("other").unwrap()), BindError::InUse);
        let mixed = [(range[0], &in_use), (range[1], &taken), (range[2], &in_use), (range[3], &in_use)];
        assert_eq!(
            told(mixed),
            [format!("10.0.0.1:30000, 10.0.0.1:30002-30003: {in_use}"), format!("10.0.0.1:30001: {taken}")]
        );
        assert!(told([]).is_empty());
    }

    #[test]
    fn what_is_told_stays_short_whatever_fails() {
        let range = addresses("10.0.0.1:1000-3000");
        let every_second = range.iter().step_by(2).map(|address| (*address, &BindError::InUse));
        let said = told(every_second);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("10.0.0.1:1014 and 993 more addresses: address already in use"), "{said:?}");
        let reasons: Vec<_> = (0..range.len()).map(BindError::TooMany).collect();
        let said = told(range.iter().copied().zip(&reasons));
        assert_eq!(said.len(), 9);
        assert_eq!(said[8], "1993 more addresses are not bound, for other reasons");
    }
}
