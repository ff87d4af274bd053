//! What this member itself lacks. A shortage says nothing of a backend: it changes no verdict, and only the connection that
//! could not be made ends.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trestle_engine::Repeats;

/// What this member lacks, or what it is not permitted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShortageKind {
    /// Local ports towards one backend.
    LocalPorts,
    /// An address that the member's file names as `source_address`.
    SourceAddress,
    /// File descriptors, of this process or of the machine.
    Descriptors,
    /// Memory, or another room in the kernel.
    Memory,
    /// Permission to connect.
    Permission,
}

impl ShortageKind {
    /// Every kind, in the order of their counters.
    pub const ALL: [Self; 5] =
        [Self::LocalPorts, Self::SourceAddress, Self::Descriptors, Self::Memory, Self::Permission];

    /// The name in metrics, in snake case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LocalPorts => "local_ports",
            Self::SourceAddress => "source_address",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Permission => "permission",
        }
    }
}

/// A shortage of this member, in words when displayed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    /// What is lacking.
    pub kind: ShortageKind,
    words: Arc<str>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Shortage {
    fn new(kind: ShortageKind, words: impl Into<Arc<str>>) -> Self {
        Self { kind, words: words.into() }
    }

    /// What an error of a system call says that needs no peer, such as open(2) or accept(2).
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        let (kind, words) = match error.raw_os_error()? {
            libc::EMFILE => (
                ShortageKind::Descriptors,
                "this process has no file descriptor left: raise its limit (LimitNOFILE, ulimit -n)",
            ),
            libc::ENFILE => (
                ShortageKind::Descriptors,
                "this machine has no file descriptor left: raise fs.file-max, or stop what has them",
            ),
            libc::ENOMEM | libc::ENOBUFS => {
                (ShortageKind::Memory, "this machine has no memory left for another socket")
            }
            libc::ENOSPC => {
                (ShortageKind::Memory, "this user may watch no more sockets: raise fs.epoll.max_user_watches")
            }
            _ => return None,
        };
        Some(Self::new(kind, words))
    }

    /// What an error says with which socket(2), bind(2) or connect(2) itself failed on the way from `source`, if there is
    /// one, to `target`. An error that is reported later comes from the peer or the network and is not for this: a router
    /// that forbids the way answers with the number of a local policy (ICMPv6 code 1 is EACCES, net/ipv6/icmp.c).
    pub(crate) fn of_connect(error: &io::Error, source: Option<IpAddr>, target: SocketAddr) -> Option<Self> {
        match error.raw_os_error()? {
            libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EINVAL if source.is_some_and(is_elsewhere) => {
                let source = source.map(|ip| ip.to_string()).unwrap_or_default();
                let words = format!(
                    "source_address {source} is not on this machine: add it to an interface or change the member's file"
                );
                Some(Self::new(ShortageKind::SourceAddress, words))
            }
            // Without any address that reaches the backend, its network is missing and not a port.
            libc::EADDRNOTAVAIL | libc::EADDRINUSE if source.is_some() || reaches(target) => {
                let from = source.map(|ip| format!(" from {ip}")).unwrap_or_default();
                let words = format!(
                    "no local port is free towards {target}{from}: widen net.ipv4.ip_local_port_range, or name more \
                     addresses of this machine as source_address"
                );
                Some(Self::new(ShortageKind::LocalPorts, words))
            }
            libc::EPERM | libc::EACCES => {
                let words = format!(
                    "this machine does not permit connections to {target}: a route, firewall or security policy of its own"
                );
                Some(Self::new(ShortageKind::Permission, words))
            }
            _ => Self::of(error),
        }
    }
}

/// Whether an address is certain not to be on this machine.
fn is_elsewhere(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Whether this machine has an address from which it would send to `target`. Sends nothing.
fn reaches(target: SocketAddr) -> bool {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(target)).is_ok()
}

/// How long a shortage that was met once is shown.
const RECENT: Duration = Duration::from_secs(10);

/// Least time between two lines of the log about the same shortage.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Shortages that are kept apart at a time. A lack of ports or of permission is one for each backend; a few of them show what
/// is wrong.
const TOLD_APART_MAX: usize = 16;

#[derive(Debug)]
struct Met {
    shortage: Shortage,
    until: Instant,
    lines: Repeats,
}

/// The shortages that this member meets.
#[derive(Debug, Default)]
pub(crate) struct Shortages {
    counts: [AtomicU64; ShortageKind::ALL.len()],
    met: Mutex<Vec<Met>>,
}

impl Shortages {
    fn met(&self) -> MutexGuard<'_, Vec<Met>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a shortage, logs it, and shows it until it would have been met again: by a check that is made again after
    /// `again`.
    pub(crate) fn note(&self, shortage: &Shortage, again: Duration, now: Instant) {
        if let Some(count) = self.counts.get(shortage.kind as usize) {
            count.fetch_add(1, Relaxed);
        }
        let until = now + RECENT.max(again.saturating_mul(2));
        let mut met = self.met();
        met.retain(|known| known.until > now);
        if let Some(known) = met.iter_mut().find(|known| known.shortage == *shortage) {
            known.until = known.until.max(until);
        } else if met.len() < TOLD_APART_MAX {
            met.push(Met { shortage: shortage.clone(), until, lines: Repeats::new(LOG_INTERVAL, 1) });
        }
        let known = met.iter_mut().find(|known| known.shortage == *shortage);
        if let Some(untold) = known.and_then(|known| known.lines.tell(now)) {
            let times = untold + 1;
            tracing::warn!(kind = shortage.kind.as_str(), times, "this member falls short: {shortage}");
        }
    }

    /// What this member falls short of at `now`, in words.
    pub(crate) fn current(&self, now: Instant) -> Vec<String> {
        self.met().iter().filter(|met| met.until > now).map(|met| met.shortage.to_string()).collect()
    }

    /// How often each kind was met.
    pub(crate) fn counts(&self) -> [(ShortageKind, u64); ShortageKind::ALL.len()] {
        ShortageKind::ALL
            .map(|kind| (kind, self.counts.get(kind as usize).map_or(0, |count| count.load(Relaxed))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_shortage_is_named_with_its_remedy() {
        let target = SocketAddr::from(([127, 0, 0, 1], 80));
        let of = |number, source| Shortage::of_connect(&error(number), source, target);
        let words = |number, source| of(number, source).map(|shortage| shortage.to_string());
        assert_eq!(
            words(libc::EADDRNOTAVAIL, None).unwrap(),
            "no local port is free towards 127.0.0.1:80: widen net.ipv4.ip_local_port_range, or name more addresses of \
             this machine as source_address"
        );
        let here = Some(IpAddr::from([127, 0, 0, 9]));
        assert!(words(libc::EADDRINUSE, here).unwrap().contains("towards 127.0.0.1:80 from 127.0.0.9:"));
        let elsewhere = Some(IpAddr::from([192, 0, 2, 77]));
        for number in [libc::EADDRNOTAVAIL, libc::EINVAL] {
            assert!(
                words(number, elsewhere)
                    .unwrap()
                    .starts_with("source_address 192.0.2.77 is not on this machine")
            );
        }
        let kinds = [
            (libc::EMFILE, ShortageKind::Descriptors),
            (libc::ENFILE, ShortageKind::Descriptors),
            (libc::ENOMEM, ShortageKind::Memory),
            (libc::ENOBUFS, ShortageKind::Memory),
            (libc::EPERM, ShortageKind::Permission),
            (libc::EACCES, ShortageKind::Permission),
        ];
        for (number, kind) in kinds {
            assert_eq!(of(number, None).unwrap().kind, kind);
        }
    }

    #[test]
    fn what_the_network_or_the_peer_says_is_no_shortage() {
        let target = SocketAddr::from(([127, 0, 0, 1], 80));
        for number in
            [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EINVAL]
        {
            assert_eq!(Shortage::of_connect(&error(number), None, target), None);
            assert_eq!(Shortage::of(&error(number)), None);
        }
        // Nor is a network that is not there; documentation addresses of IPv6 are routed nowhere in a test's namespace.
        let nowhere: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        if !reaches(nowhere) {
            assert_eq!(Shortage::of_connect(&error(libc::EADDRNOTAVAIL), None, nowhere), None);
        }
    }

    #[test]
    fn what_is_met_is_shown_for_a_while_and_counted() {
        let (shortages, start) = (Shortages::default(), Instant::now());
        let none = Shortage::of(&error(libc::EMFILE)).unwrap();
        let at = |secs| start + Duration::from_secs(secs);
        shortages.note(&none, Duration::from_secs(1), start);
        shortages.note(&none, Duration::from_secs(20), at(1));
        assert_eq!(shortages.current(at(40)), [none.to_string()]);
        assert_eq!(shortages.current(at(41)), [""; 0]);
        let counted = shortages.counts().into_iter().find(|(kind, _)| *kind == ShortageKind::Descriptors);
        assert_eq!(counted, Some((ShortageKind::Descriptors, 2)));
        for (place, (kind, _)) in shortages.counts().into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
