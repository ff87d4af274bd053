//! One machine of the lab: a network namespace with an interface `eth0` on the switch.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, move_into_link_name_space, remove_capability_from_bounding_set,
};

use crate::process::Process;

/// Namespaces and control groups of labs begin with it; the id of the process that made them follows.
pub(super) const PREFIX: &str = "trestle-lab-";

/// Address on an Ethernet.
pub type MacAddress = [u8; 6];

/// A network namespace with an interface `eth0` on the switch.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its namespace, as `ip netns` names it.
    pub namespace: String,
    /// Its own address; a virtual one comes on top.
    pub ip: Ipv4Addr,
    /// The address of its interface.
    pub mac: MacAddress,
    /// Its port on the switch.
    pub(super) port: String,
}

/// Runs `ip` with arguments that contain no spaces.
///
/// # Panics
/// When that fails.
pub(super) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Processes whose network namespace has this name; threads that only visit it do not count.
pub(super) fn inhabitants(namespace: &str) -> Vec<Pid> {
    let Ok(wanted) = std::fs::metadata(Path::new("/run/netns").join(namespace)) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // A process that has ended in the meantime has no namespace.
        let namespace = std::fs::metadata(entry.path().join("ns/net"));
        if let (Some(id), Ok(namespace)) = (id, namespace)
            && (namespace.dev(), namespace.ino()) == (wanted.dev(), wanted.ino())
        {
            found.push(id);
        }
    }
    found
}

impl Host {
    /// Runs `ip` here; answers what it printed.
    ///
    /// # Panics
    /// When that fails.
    pub fn ip(&self, arguments: &str) -> String {
        ip(&format!("-netns {} {arguments}", self.namespace))
    }

    /// Runs `body` on a thread of its own in this namespace; threads and processes that it starts are there as well.
    ///
    /// # Panics
    /// When `body` does, or the namespace is gone.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs commands of nft here.
    ///
    /// # Panics
    /// When it refuses them.
    pub fn nft(&self, commands: &str) {
        self.run(|| {
            let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            nft.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success(), "nft refuses {commands}");
        });
    }

    /// Starts a thread in this namespace, which goes on by itself.
    ///
    /// # Panics
    /// The thread does when the namespace is gone.
    pub fn thread<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let host = self.clone();
        std::thread::spawn(move || {
            host.enter();
            body()
        })
    }

    /// As [`Host::run`]; processes that are started there never get CAP_NET_ADMIN, root or not.
    ///
    /// # Panics
    /// As [`Host::run`].
    pub fn run_without_net_admin<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        self.run(|| {
            // It belongs to this thread and is inherited. What a process gets when it starts is bounded by it (capabilities(7)).
            remove_capability_from_bounding_set(CapabilitySet::NET_ADMIN).unwrap();
            body()
        })
    }

    /// Moves the calling thread here.
    pub(super) fn enter(&self) {
        let file = File::open(Path::new("/run/netns").join(&self.namespace)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Starts a process here.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self, what: &str, command: &mut Command, log: &Path) -> Process {
        self.run(|| Process::spawn(what, command, log))
    }

    /// The number of one of its interfaces.
    pub(super) fn index_of(&self, interface: &str) -> u32 {
        let shown = self.ip(&format!("-oneline link show dev {interface}"));
        shown.split(':').next().unwrap().parse().unwrap()
    }

    /// Whether its kernel has this address on `eth0`.
    ///
    /// # Panics
    /// When the kernel cannot be asked.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        !self.ip(&format!("-oneline address show dev eth0 to {address}/32")).trim().is_empty()
    }

    /// The interface on which its kernel has this address.
    ///
    /// # Panics
    /// When the kernel cannot be asked.
    pub fn interface_with(&self, address: IpAddr) -> Option<String> {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let shown = self.ip(&format!("-oneline address show to {address}/{whole}"));
        shown.split_whitespace().nth(1).map(str::to_owned)
    }

    /// Takes the address off `eth0`, as somebody does by mistake; with whatever prefix it has.
    ///
    /// # Panics
    /// When it is not there.
    pub fn delete_address(&self, address: Ipv4Addr) {
        let shown = self.ip(&format!("-oneline address show dev eth0 to {address}/32"));
        let with_prefix = shown.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        self.ip(&format!("address delete {} dev eth0", with_prefix.expect("the address is there")));
    }

    /// Sends a signal to every process here.
    pub fn signal(&self, signal: Signal) {
        for id in inhabitants(&self.namespace) {
            // It may have ended in the meantime.
            let _ = kill_process(id, signal);
        }
    }

    /// Ends every process here with SIGKILL. All are stopped first: a process that learns of the death of another would
    /// otherwise have a moment to tidy up.
    pub fn kill(&self) {
        self.signal(Signal::STOP);
        self.signal(Signal::KILL);
    }

    /// Ids of the processes here.
    pub fn processes(&self) -> Vec<u32> {
        inhabitants(&self.namespace).into_iter().map(|id| id.as_raw_nonzero().get().unsigned_abs()).collect()
    }
}
