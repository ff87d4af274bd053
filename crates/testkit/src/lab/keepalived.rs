//! keepalived and HAProxy, as kubeadm's guide to highly available clusters sets them up, from Debian's packages.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{Lab, MEMBERS, PORT, Product, VIP};
use crate::process::Process;
use crate::tools::has_tools;

/// keepalived and HAProxy on each member. The first has the highest priority, so the address comes back to it.
#[derive(Debug)]
pub struct Keepalived {
    /// The two processes of each member; they go before their files.
    running: [[Option<Process>; 2]; MEMBERS],
    dir: TempDir,
}

impl Keepalived {
    /// Writes their configuration; starts nothing. `None` when they are not installed.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn new(lab: &Lab) -> Option<Self> {
        if !has_tools(&["keepalived", "haproxy"]) {
            return None;
        }
        let dir = TempDir::with_prefix("trestle-keepalived-").unwrap();
        for member in 0..MEMBERS {
            std::fs::write(dir.path().join(format!("{member}.keepalived")), vrrp(member)).unwrap();
        }
        std::fs::write(dir.path().join("haproxy"), proxy(lab)).unwrap();
        Some(Self { running: Default::default(), dir })
    }

    fn file(&self, member: usize, name: &str) -> PathBuf {
        self.dir.path().join(format!("{member}.{name}"))
    }

    fn keepalived(&self, member: usize) -> Command {
        let mut keepalived = Command::new("keepalived");
        keepalived.args(["--dont-fork", "--log-console", "--vrrp"]);
        for (option, name) in [("--use-file", "keepalived"), ("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
            keepalived.arg(option).arg(self.file(member, name));
        }
        keepalived
    }
}

/// kubeadm's keepalived.conf with its suggested values. Its check of the API server is left out: no trial lasts as long
/// as the 30 s that it takes to fail.
fn vrrp(member: usize) -> String {
    let (state, priority) = if member == 0 { ("MASTER", 101) } else { ("BACKUP", 101 - member) };
    format!(
        "vrrp_instance VI_1 {{\n  state {state}\n  interface eth0\n  virtual_router_id 51\n  \
         priority {priority}\n  authentication {{\n    auth_type PASS\n    auth_pass 42\n  }}\n  \
         virtual_ipaddress {{\n    {VIP}\n  }}\n}}\n"
    )
}

/// kubeadm's haproxy.cfg in TCP mode, with TCP checks.
fn proxy(lab: &Lab) -> String {
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  retries 1\n  timeout connect 5s\n  \
         timeout client 35s\n  timeout server 35s\n  timeout check 10s\nfrontend f\n  bind *:{PORT}\n  \
         default_backend b\nbackend b\n  balance roundrobin\n"
    );
    for (number, address) in lab.backends().iter().enumerate() {
        writeln!(text, "  server s{number} {address} check").unwrap();
    }
    text
}

impl Product for Keepalived {
    fn name(&self) -> &'static str {
        "keepalived + HAProxy"
    }

    fn start(&mut self, lab: &Lab) {
        for (member, host) in lab.members.iter().enumerate() {
            let mut haproxy = Command::new("haproxy");
            haproxy.arg("-db").arg("-f").arg(self.dir.path().join("haproxy"));
            let mut commands = [self.keepalived(member), haproxy];
            let log = self.file(member, "log");
            for (running, command) in self.running[member].iter_mut().zip(&mut commands) {
                if running.as_mut().is_none_or(|process| process.status().is_some()) {
                    *running = Some(host.spawn(&format!("{command:?}"), command, &log));
                }
            }
        }
    }

    fn settled(&mut self, _lab: &Lab, holder: usize) -> Result<(), String> {
        if holder == 0 { Ok(()) } else { Err(format!("member {holder} is not the first choice")) }
    }

    /// Stops keepalived as systemd does. HAProxy goes on with the connections that it has.
    fn hand_over(&mut self, _lab: &Lab, holder: usize) {
        if let Some(keepalived) = &self.running[holder][0] {
            keepalived.terminate();
        }
    }
}
