//! A relay in a member's cable, by which frames come late, in another order, and some twice.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::{Host, Lab};

const SCRIPT: &str = include_str!("disorder.py");

/// The relay, for as long as this is there.
#[derive(Debug)]
pub(super) struct Disorder {
    relay: Child,
    switch: Host,
    port: String,
}

impl Disorder {
    /// Puts a relay between a member and the switch. The seed says which frames are late.
    ///
    /// # Panics
    /// When that does not work; it takes Python.
    pub(super) fn begin(lab: &Lab, member: usize, seed: u64) -> Self {
        let (switch, port) = (lab.switch.clone(), lab.members[member].port.clone());
        // The bridge has another port instead, whose name begins alike, so that cuts are of both. What goes in there comes out here.
        let (near, far) = (format!("r{port}"), format!("{port}x"));
        switch.ip(&format!("link add {near} type veth peer name {far}"));
        switch.ip(&format!("link set {near} up"));
        switch.ip(&format!("link set {port} nomaster"));
        switch.ip(&format!("link set {far} master br0"));
        switch.ip(&format!("link set {far} up"));
        let mut python = Command::new("python3");
        python.args(["-c", SCRIPT, &port, &near, &seed.to_string()]);
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut relay = switch.run(|| python.spawn().unwrap());
        let mut said = String::new();
        BufReader::new(relay.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let disorder = Self { relay, switch, port };
        assert_eq!(said.trim(), "done", "the relay does not begin");
        disorder
    }
}

impl Drop for Disorder {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.relay.stdin.take());
        let _ = self.relay.wait();
        // The network may be gone already.
        let run = |arguments: String| {
            let all = format!("-netns {} {arguments}", self.switch.namespace);
            let _ = Command::new("ip").args(all.split_whitespace()).output();
        };
        run(format!("link delete r{}", self.port));
        run(format!("link set {} master br0", self.port));
    }
}
