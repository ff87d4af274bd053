//! A holder in a process of its own, to be stopped and killed.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use trestle_testkit::{Process, wait_for};

use super::lab::{Host, LIMIT, lease, settings, vip};
use crate::LinuxKernel;

/// Time between two renewals, as between the default profile's heartbeats.
const RENEWAL: Duration = Duration::from_millis(50);
/// The default profile's lease.
pub(super) const LEASE: Duration = Duration::from_millis(280);

const NAMESPACE: &str = "TRESTLE_TEST_NAMESPACE";
const VIPS: &str = "TRESTLE_TEST_VIPS";
const NAME: &str = "agent";

/// A process that holds virtual IPs on a host.
pub(super) struct Agent {
    process: Process,
    _directory: tempfile::TempDir,
}

impl Agent {
    /// Starts one and waits until it holds `vips`.
    pub(super) fn start(host: &Host, vips: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "tests::agent::hold", "--nocapture"]);
        command.env(NAMESPACE, &host.namespace).env(VIPS, vips.join(" "));
        let process = Process::spawn("agent", &mut command, &directory.path().join("log"));
        wait_for("the agent's claim", LIMIT, || {
            if process.output().contains("holding") { Ok(()) } else { Err(process.output()) }
        });
        Self { process, _directory: directory }
    }

    /// Stops it where it stands. Its lease ends at most [`LEASE`] after the instant returned.
    pub(super) fn stop(&self) -> Instant {
        self.process.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.process.id());
        wait_for("the agent's stop", LIMIT, || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            if stat.contains(") T ") { Ok(()) } else { Err(stat) }
        });
        Instant::now()
    }

    pub(super) fn proceed(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Kills it; the instant is as with [`Self::stop`].
    pub(super) fn kill(&mut self) -> Instant {
        self.process.kill();
        Instant::now()
    }

    /// Waits until it has noticed that its lease is over.
    pub(super) fn wait_for_the_end_of_its_lease(&self) {
        wait_for("the agent to notice", LIMIT, || {
            if self.process.output().contains("over") { Ok(()) } else { Err(self.process.output()) }
        });
    }
}

/// Not a test: the body of the process, which the test binary starts again for it.
#[test]
#[ignore = "started by other tests, in a process of its own"]
fn hold() {
    let Ok(namespace) = std::env::var(NAMESPACE) else { return };
    Host::named(namespace).enter();
    let (settings, events) = settings(NAME);
    let kernel = LinuxKernel::open(settings).unwrap();
    let lease = lease(LEASE);
    for text in std::env::var(VIPS).unwrap().split(' ') {
        kernel.claim(&vip(text), &lease).unwrap();
    }
    println!("holding");
    let mut heard = Instant::now();
    loop {
        std::thread::sleep(RENEWAL);
        let now = Instant::now();
        if now - heard > LEASE {
            // A leader that was stopped has lost its quorum by now.
            println!("over");
            break;
        }
        heard = now;
        lease.extend(now + LEASE);
        for event in events.try_iter() {
            println!("{event}");
        }
    }
    loop {
        std::thread::park();
    }
}
