//! Hosts around a switch.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use trestle_testkit::{has_tools, skip, wait_for};

use crate::{InterfaceVip, KernelEvent, KernelSettings, Lease, LinuxKernel};

/// Bound on every wait: far beyond what anything here takes.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// A host: a network namespace with an interface `eth0` on the switch.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) namespace: String,
    /// Its port on the switch.
    port: String,
}

/// A switch with some hosts; gone when dropped.
pub(super) struct Lab {
    switch: Host,
    pub(super) client: Host,
    pub(super) members: Vec<Host>,
}

/// Runs `ip` with arguments that contain no spaces.
pub(super) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Host {
    /// A host that exists.
    pub(super) fn named(namespace: String) -> Self {
        Self { namespace, port: String::new() }
    }

    /// Runs `ip` here.
    pub(super) fn ip(&self, arguments: &str) {
        ip(&format!("-netns {} {arguments}", self.namespace));
    }

    /// Runs `body` on a thread of its own in this host's namespace; threads that it starts are there as well.
    pub(super) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    body()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread here.
    pub(super) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.namespace)).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Opens a kernel here; its events come out of the queue.
    pub(super) fn open(&self, name: &str) -> (LinuxKernel, Receiver<KernelEvent>) {
        let (settings, events) = settings(name);
        (self.run(|| LinuxKernel::open(settings).unwrap()), events)
    }

    /// Whether `address` is on any interface here.
    pub(super) fn has(&self, address: &str) -> bool {
        let address: std::net::IpAddr = address.parse().unwrap();
        let found = self.run(|| crate::route::RouteSocket::open().unwrap().addresses().unwrap());
        found.iter().any(|found| found.address == address)
    }
}

/// Settings without a watchdog, and the queue that events go into.
pub(super) fn settings(name: &str) -> (KernelSettings, Receiver<KernelEvent>) {
    let (sender, events) = channel();
    let on_event = Box::new(move |event| {
        // The test may have ended.
        let _ = sender.send(event);
    });
    (KernelSettings { name: name.to_owned(), real_time: false, watchdog: None, on_event }, events)
}

impl Lab {
    /// A switch, a client (10.77.0.100, fd77::100) and `members` members (10.77.0.1 and so on), or `None` and a word of
    /// explanation where that is not possible.
    pub(super) fn build(members: u32) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces take root");
            return None;
        }
        if !has_tools(&["ip"]) {
            return None;
        }
        let prefix = format!("tv{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let host = |name: String| Host { namespace: format!("{prefix}-{name}"), port: format!("p{name}") };
        let lab = Self {
            switch: host("s".to_owned()),
            client: host("c".to_owned()),
            members: (1..=members).map(|number| host(number.to_string())).collect(),
        };
        ip(&format!("netns add {}", lab.switch.namespace));
        lab.switch.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0");
        lab.switch.ip("link set br0 up");
        lab.connect(&lab.client, 100);
        for (number, member) in (1..).zip(&lab.members) {
            lab.connect(member, number);
        }
        Some(lab)
    }

    fn connect(&self, host: &Host, number: u32) {
        let (port, namespace) = (&host.port, &host.namespace);
        ip(&format!("netns add {namespace}"));
        self.switch.ip(&format!("link add {port} type veth peer name eth0 netns {namespace}"));
        self.switch.ip(&format!("link set {port} master br0"));
        self.switch.ip(&format!("link set {port} up"));
        host.ip("link set lo up");
        host.ip("link set eth0 up");
        host.ip(&format!("address add 10.77.0.{number}/24 dev eth0"));
        host.ip(&format!("address add fd77::{number}/64 dev eth0 nodad"));
    }

    /// Takes the cable of a host out, or puts it back.
    pub(super) fn cable(&self, host: &Host, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.switch.ip(&format!("link set {} {state}", host.port));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in self.members.iter().chain([&self.client, &self.switch]) {
            // Those that were never made cannot be removed.
            let _ = Command::new("ip").args(["netns", "delete", &host.namespace]).output();
        }
    }
}

/// A virtual IP on `eth0`, as `10.77.0.50/24`.
pub(super) fn vip(text: &str) -> InterfaceVip {
    let (address, prefix) = text.split_once('/').unwrap();
    InterfaceVip {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        interface: "eth0".to_owned(),
    }
}

/// A lease that runs for `duration` from now.
pub(super) fn lease(duration: Duration) -> Lease {
    let lease = Lease::new();
    lease.extend(Instant::now() + duration);
    lease
}

/// Waits for an event that `wanted` accepts; others before it are passed over.
pub(super) fn expect_event(
    events: &Receiver<KernelEvent>,
    what: &str,
    wanted: impl Fn(&KernelEvent) -> bool,
) -> KernelEvent {
    let mut seen = Vec::new();
    wait_for(what, LIMIT, || {
        for event in events.try_iter() {
            if wanted(&event) {
                return Ok(event);
            }
            seen.push(event);
        }
        Err(format!("only {seen:?}"))
    })
}
