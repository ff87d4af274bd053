//! Somebody who asks who has the virtual address, over and over.
//!
//! A client asks once and then believes its cache, so a second holder that answers when asked would not be noticed. The
//! kernel does the asking: its neighbour entry is made to be believed for a moment only and to be renewed by broadcast
//! instead of by asking the one who answered last.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::host::Host;

/// Time between two reasons to ask. The kernel asks about every second time: its timers take 10 ms at least.
const PACE: Duration = Duration::from_millis(10);

/// Settings of neighbour entries, as arp(7) and the kernel's ip-sysctl.rst describe them. Without unicast probes the
/// probes of a known neighbour are broadcast, as many as `mcast_resolicit` says.
const SETTINGS: [(&str, &str); 6] = [
    ("base_reachable_time_ms", "1"),
    ("delay_first_probe_time", "0"),
    ("retrans_time_ms", "10"),
    ("ucast_solicit", "0"),
    ("mcast_resolicit", "1000000"),
    ("mcast_solicit", "1000000"),
];

/// Asks until it is dropped.
#[derive(Debug)]
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Begins to ask for `address` from `host`.
    pub(super) fn start(host: &Host, address: Ipv4Addr) -> Self {
        let (stop, host) = (Arc::new(AtomicBool::new(false)), host.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            host.enter();
            for (name, value) in SETTINGS {
                std::fs::write(format!("/proc/sys/net/ipv4/neigh/eth0/{name}"), value).unwrap();
            }
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            while !stopped.load(Ordering::Acquire) {
                // The datagram is of no interest, and while nobody has the address it cannot be sent.
                let _ = socket.send_to(&[], (address, 9));
                std::thread::sleep(PACE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
