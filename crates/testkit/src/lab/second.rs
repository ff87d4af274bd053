//! A second network beside the one that members talk over: what happens there cuts no member off.

use std::net::Ipv4Addr;

use super::{Host, Lab};

/// The switch's second bridge.
const BRIDGE: &str = "br1";

/// The interface that leads there, on the members and the client.
const INTERFACE: &str = "eth1";

impl Lab {
    /// The virtual address of the second network.
    pub const SECOND: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 50);

    /// Gives the members and the client an interface `eth1` on a second bridge, with the last byte of their first address
    /// in 10.78.0.0/24.
    ///
    /// # Panics
    /// When the kernel refuses, or when it is called twice.
    pub fn add_second_network(&self) {
        self.switch.ip(&format!("link add {BRIDGE} type bridge forward_delay 0 mcast_snooping 0"));
        self.switch.ip(&format!("link set {BRIDGE} up"));
        for host in self.members.iter().chain([&self.client]) {
            self.connect_second(host);
        }
    }

    fn connect_second(&self, host: &Host) {
        let (port, [.., number]) = (format!("{}-2", host.port), host.ip.octets());
        self.switch.ip(&format!("link add {port} type veth peer name {INTERFACE} netns {}", host.namespace));
        self.switch.ip(&format!("link set {port} master {BRIDGE}"));
        self.switch.ip(&format!("link set {port} up"));
        host.ip(&format!("link set {INTERFACE} up"));
        host.ip(&format!("address add 10.78.0.{number}/24 dev {INTERFACE}"));
    }
}
