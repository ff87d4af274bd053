//! A small network for virtual IPs: members, a client, a witness and two backends around one switch, each a network
//! namespace. Nothing of the host's own network is touched.
//!
//! [`Trial`]s break a [`Product`] in it and say what a client and a capture on the switch saw. Takes root.

mod answers;
mod backend;
mod capture;
mod cut;
mod disorder;
mod freezer;
mod host;
mod injector;
mod keepalived;
mod leftovers;
mod machines;
mod prober;
mod product;
mod second;
mod threads;
mod trestle;
mod trial;
mod witness;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub use answers::{AddressClaim, ClaimKind, Dual, dual};
pub use capture::Capture;
pub use cut::{Cut, Obstacle};
pub use freezer::Freezer;
pub use host::{Host, MacAddress};
pub use injector::Injector;
pub use keepalived::Keepalived;
pub use prober::{Attempt, Gap, ProbeFailure, Prober, gap};
pub use product::Product;
pub use threads::{HungThreads, break_thread, hang_threads, panic_thread};
pub use trestle::Trestle;
pub use trial::{Fault, Trial, settle};

use crate::fetch::get;
use crate::tools::{has_tools, skip};
use backend::Backend;
use host::{PREFIX, ip};
use witness::Witness;

/// Members in a lab.
pub const MEMBERS: usize = 3;

/// The virtual address that the products keep.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

/// The port at which it is served.
pub const PORT: u16 = 80;

/// The network. Everything in it is gone when it is dropped; products go before it.
#[derive(Debug)]
pub struct Lab {
    /// Machines for the members, with the addresses 10.77.0.1 and up.
    pub members: Vec<Host>,
    /// A machine for clients, with an ARP cache as clients have it.
    pub client: Host,
    backends: Vec<Backend>,
    witness: Option<Witness>,
    switch: Host,
    hosts: Vec<Host>,
}

/// A host that does not exist yet; its last byte is `number`.
fn host(prefix: &str, name: &str, number: u8) -> Host {
    Host {
        namespace: format!("{prefix}-{name}"),
        ip: Ipv4Addr::new(10, 77, 0, number),
        mac: [2, 0, 0, 0, 0, number],
        port: format!("p-{name}"),
    }
}

impl Lab {
    /// Builds the network, or says why it cannot be built here.
    ///
    /// # Panics
    /// When the kernel refuses what it should allow to root.
    pub fn build() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !crate::is_root() {
            skip("network namespaces take root");
            return None;
        }
        if !has_tools(&["ip", "nft", "tcpdump"]) {
            return None;
        }
        leftovers::remove();
        let prefix = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let members: Vec<Host> =
            (1..=MEMBERS as u8).map(|number| host(&prefix, &format!("m{number}"), number)).collect();
        let client = host(&prefix, "client", 100);
        let watching = host(&prefix, "witness", 101);
        let servers: Vec<Host> =
            (1..=2).map(|number| host(&prefix, &format!("b{number}"), 200 + number)).collect();
        let hosts = [&members[..], &[client.clone(), watching.clone()], &servers[..]].concat();
        // From here on a panic takes down what is there.
        let mut lab = Self {
            members,
            client,
            backends: Vec::new(),
            witness: None,
            switch: host(&prefix, "switch", 0),
            hosts,
        };
        ip(&format!("netns add {}", lab.switch.namespace));
        lab.switch.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0");
        lab.switch.ip("link set br0 up");
        lab.hosts.iter().for_each(|host| lab.connect(host));
        // Each attempt of a prober takes a port for itself; the default range would last for half a minute.
        lab.client.run(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000")).unwrap();
        lab.backends =
            servers.iter().zip(["b1", "b2"]).map(|(host, name)| Backend::start(host, name)).collect();
        lab.witness = Some(Witness::start(&watching, VIP));
        Some(lab)
    }

    fn connect(&self, host: &Host) {
        let Host { namespace, ip: address, mac, port } = host;
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("netns add {namespace}"));
        self.switch.ip(&format!("link add {port} type veth peer name eth0 address {mac} netns {namespace}"));
        self.switch.ip(&format!("link set {port} master br0"));
        self.switch.ip(&format!("link set {port} up"));
        host.ip("link set lo up");
        host.ip("link set eth0 up");
        host.ip(&format!("address add {address}/24 dev eth0"));
    }

    /// Where the virtual address is served.
    pub fn target(&self) -> SocketAddr {
        (VIP, PORT).into()
    }

    /// Where the backends listen.
    pub fn backends(&self) -> Vec<SocketAddr> {
        self.backends.iter().map(Backend::address).collect()
    }

    /// The machines that the backends are on.
    pub fn servers(&self) -> &[Host] {
        &self.hosts[self.hosts.len() - self.backends.len()..]
    }

    /// Takes the cable of a member out of the switch, or puts it back.
    ///
    /// # Panics
    /// When the switch refuses.
    pub fn cable(&self, member: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.switch.ip(&format!("link set {} {state}", self.members[member].port));
    }

    /// From now on the switch drops what `cut` says, and nothing else; `None` heals.
    ///
    /// # Panics
    /// When the switch refuses.
    pub fn cut(&self, cut: Option<Cut>) {
        self.obstruct(&cut.map(Obstacle::of).unwrap_or_default());
    }

    /// From now on the switch loses what these say, and nothing else.
    ///
    /// # Panics
    /// When the switch refuses.
    pub fn obstruct(&self, obstacles: &[Obstacle]) {
        cut::apply(self, obstacles);
    }

    /// Starts to watch who answers for the virtual address.
    ///
    /// # Panics
    /// When the capture does not start.
    pub fn capture(&self) -> Capture {
        Capture::start(self, VIP.into())
    }

    /// Members whose kernel has the virtual address, whether or not it is let through.
    pub fn holders(&self) -> Vec<usize> {
        (0..MEMBERS).filter(|member| self.members[*member].has(VIP)).collect()
    }

    /// The member that serves a new connection of the client now, as its backend saw it.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub fn served_by(&self) -> Result<usize, String> {
        self.served_at(self.target())
    }

    /// As [`Lab::served_by`], for any address.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub fn served_at(&self, target: SocketAddr) -> Result<usize, String> {
        let page = self.client.run(|| get(target, "/"))?;
        let served = |host: &Host| page.body.ends_with(&format!(" {}", host.ip));
        self.members.iter().position(served).ok_or_else(|| format!("the answer is {:?}", page.body))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.witness = None;
        self.backends.clear();
        for host in self.hosts.iter().chain([&self.switch]) {
            host.kill();
            // Those that were never made cannot be removed.
            let _ = Command::new("ip").args(["netns", "delete", &host.namespace]).output();
        }
    }
}
