//! What this member's own configuration says about the data plane.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use trestle_model::{Cidr, MemberName};

use crate::observe::access_log::AccessLog;
use crate::observe::event::OnEvent;
use crate::upstream::loop_guard::OwnTargets;
use crate::upstream::source::Sources;

/// What this member's own configuration says about the data plane.
#[derive(Debug, Clone)]
pub struct DataPlaneSettings {
    /// Threads that accept and relay; one for each core is right.
    pub workers: NonZeroUsize,
    /// The address that a listener's wildcard address of the same family stands for; `None` binds the wildcard.
    pub data_address: Option<IpAddr>,
    /// Time between two comparisons of everything with the configuration, in which failed binds are tried again.
    pub drift_interval: Duration,
    /// Whom to ask for the addresses of backends that are known by name: a file in the form of resolv.conf(5), read
    /// again when it changes.
    pub resolv_conf: PathBuf,
    /// Names that are not asked for, with their addresses: a file in the form of hosts(5), read again when it changes.
    pub hosts: PathBuf,
    /// Files that checks read must be below this directory of this machine.
    pub check_directory: PathBuf,
    /// This machine's addresses that connections to backends, and checks, come from.
    pub source: Sources,
    /// File descriptors that listening sockets and connections may have together; `None` for no bound. Accepting pauses
    /// while there is no room for one more connection.
    pub descriptors: Option<usize>,
    /// Where this member's admin API, peers and HTTP are bound, in this order: no connection and no check goes there, or to
    /// where the others' are.
    pub own_ports: Vec<SocketAddr>,
    /// As [`MemberSockets::network`](trestle_model::MemberSockets) of this member; 0 where that is not known.
    pub network: u64,
    /// Networks that backends may be in; empty for all. Connections and checks to others fail.
    pub backend_networks: Vec<Cidr>,
    /// Where connections are logged when they end; `None` for nowhere.
    pub access_log: Option<AccessLog>,
    /// This member's name in the configuration. Its place among the members is where its turns of a pool begin, so that not
    /// every member leads its first client to the same backend; `None` for the first.
    pub member: Option<MemberName>,
    /// Who is told what is found out about backends and pools.
    pub on_event: OnEvent,
}

impl DataPlaneSettings {
    /// Where connections may go.
    pub(crate) fn targets(&self) -> OwnTargets {
        OwnTargets {
            ports: self.own_ports.clone(),
            networks: self.backend_networks.clone(),
            member: self.member.clone(),
            network: self.network,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings() -> DataPlaneSettings {
        DataPlaneSettings {
            workers: NonZeroUsize::MIN,
            data_address: None,
            drift_interval: Duration::from_secs(1),
            check_directory: "/".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            source: Sources::default(),
            descriptors: None,
            network: 0,
            own_ports: Vec::new(),
            on_event: OnEvent::nobody(),
            backend_networks: Vec::new(),
            access_log: None,
            member: None,
        }
    }
}
