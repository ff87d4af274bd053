//! File descriptors: how many this process may have, and how many of them the data plane may have.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::accept::PortLimits;

/// Raises this process's limit of open files to the most that the system allows it, and answers the limit; `None` for
/// no limit. What cannot be raised stays as it is: the data plane pauses accepting when descriptors run out.
pub fn raise_limit() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let most = Rlimit { current: now.maximum, maximum: now.maximum };
        // Refused only where the limit changed in between.
        let _ = setrlimit(Resource::Nofile, most);
    }
    getrlimit(Resource::Nofile).current
}

/// Connections of the own ports where descriptors are plenty. One address gets a quarter of each.
const ADMIN_MAX: usize = 512;
const PEERS_MAX: usize = 256;
const HTTP_MAX: usize = 128;
/// For users of this machine, beside all others: a crowd at the admin port takes no place from local root.
const LOCAL_MAX: usize = 64;
/// Fewest of each, so that a member with next to nothing can still be asked.
const PORT_MIN: usize = 4;

/// How many connections the own ports hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServicePortLimits {
    pub(crate) admin: PortLimits,
    pub(crate) peers: PortLimits,
    pub(crate) http: PortLimits,
    /// The UNIX socket of the admin API.
    pub(crate) local: PortLimits,
}

impl ServicePortLimits {
    fn new(admin: usize, peers: usize, http: usize, local: usize) -> Self {
        let peers = PortLimits::of(peers).with_members();
        let local = PortLimits::of(local).with_local_root();
        Self { admin: PortLimits::of(admin), peers, http: PortLimits::of(http), local }
    }

    /// Those of a process with this limit: together they take a quarter of it at most.
    fn of(limit: Option<u64>) -> Self {
        let full = Self::new(ADMIN_MAX, PEERS_MAX, HTTP_MAX, LOCAL_MAX);
        let Some(limit) = limit else { return full };
        let quarter = usize::try_from(limit / 4).unwrap_or(usize::MAX);
        let all = full.descriptors();
        if quarter >= all {
            return full;
        }
        let part = |max: usize| (max * quarter / all).max(PORT_MIN);
        Self::new(part(ADMIN_MAX), part(PEERS_MAX), part(HTTP_MAX), part(LOCAL_MAX))
    }

    fn descriptors(self) -> usize {
        let ports = [self.admin, self.peers, self.http, self.local];
        ports.map(PortLimits::descriptors).iter().sum()
    }
}

/// How many descriptors one of so many members in this process may have, with the limit as it is now; `None` for no limit.
fn share(members: NonZeroUsize) -> Option<u64> {
    let members = u64::try_from(members.get()).unwrap_or(u64::MAX);
    getrlimit(Resource::Nofile).current.map(|limit| limit / members)
}

/// Those of one of so many members in this process.
pub(crate) fn own_ports(members: NonZeroUsize) -> ServicePortLimits {
    ServicePortLimits::of(share(members))
}

/// Bounds of what is kept for everything but the sockets of the data plane and the own ports: checks have at most 1024 at a
/// time, connections to peers, files and runtimes seldom more than 200.
const RESERVE_MIN: u64 = 256;
const RESERVE_MAX: u64 = 2048;

/// How many of `limit` descriptors listening sockets and proxied connections may have: all but what the own ports may take
/// (1168, and a quarter at most) and a twentieth (256 to 2048, and a quarter at most) for the rest.
pub(crate) fn for_connections(limit: u64) -> usize {
    let reserve = (limit / 20).clamp(RESERVE_MIN, RESERVE_MAX).min(limit / 4);
    let own_ports = (ServicePortLimits::of(None).descriptors() as u64).min(limit / 4);
    usize::try_from(limit - reserve - own_ports).unwrap_or(usize::MAX)
}

/// As [`for_connections`], of the share of one of so many members in this process; `None` for no limit.
pub(crate) fn budget(members: NonZeroUsize) -> Option<usize> {
    share(members).map(for_connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept() {
        for (limit, connections) in
            [(0, 0), (400, 200), (1024, 512), (2000, 1244), (20_000, 17_832), (1_048_576, 1_045_360)]
        {
            assert_eq!(for_connections(limit), connections, "of {limit}");
        }
    }

    #[test]
    fn members_of_one_process_share_its_descriptors() {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        for members in [1, 3] {
            let members = NonZeroUsize::new(members).unwrap_or(NonZeroUsize::MIN);
            let one = budget(members).unwrap_or_default() + own_ports(members).descriptors();
            let all = (one * members.get()) as u64;
            assert!(all <= limit && all > limit / 2, "{members} members may have {all} of {limit}");
        }
    }

    #[test]
    fn own_ports_share_a_quarter_where_there_is_little() {
        for limit in [200, 400, 1024, 4096, 20_000] {
            let ports = ServicePortLimits::of(Some(limit));
            assert!(ports.descriptors() as u64 <= limit / 4, "{limit}: {ports:?}");
            assert!(ports.local.connections >= PORT_MIN && ports.peers.lanes > 0, "{limit}: {ports:?}");
        }
        assert_eq!(ServicePortLimits::of(None), ServicePortLimits::of(Some(1 << 20)));
        assert_eq!(ServicePortLimits::of(None).admin.per_source, 128);
    }
}
