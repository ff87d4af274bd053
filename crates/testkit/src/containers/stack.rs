//! The shipped compose file, up and running.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::engine::{compose, docker, said};
use super::leftovers;
use crate::wait::wait_for;

/// Services that are members.
pub const MEMBERS: [&str; 3] = ["m1", "m2", "m3"];

/// Long enough for elections, containers and calls on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(90);
/// The network of the shipped file.
const SHIPPED: &str = "172.30.77.";
/// Lines of each container's log that a failing test prints.
const TAIL: &str = "30";

/// The shipped compose file under a name and addresses of its own. All of it goes when this is dropped.
#[derive(Debug)]
pub struct Stack {
    /// The project's name, and the network's.
    pub name: String,
    /// What addresses begin with.
    network: String,
    dir: TempDir,
}

/// A network of 10.79.0.0/16 that nobody has.
fn free_network() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ids = docker(&["network", "ls", "-q"]).unwrap();
    let inspect = ["network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"];
    let taken = docker(&[&inspect[..], &ids.split_whitespace().collect::<Vec<_>>()].concat());
    // One may have gone meanwhile; what matters is found out again when it is made.
    let taken: BTreeSet<String> = taken.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let start = std::process::id().wrapping_mul(31);
    let numbers = (0..256).map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 256);
    let mut networks = numbers.map(|number| format!("10.79.{number}."));
    networks.find(|network| !taken.contains(&format!("{network}0/24"))).expect("a network is free")
}

impl Stack {
    /// Writes the files of a stack of this image, as `deploy` has them. Starts nothing.
    ///
    /// # Panics
    /// When they have not what is replaced.
    pub fn prepare(deploy: &Path, image: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", leftovers::prefix(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (network, dir) = (free_network(), TempDir::with_prefix("trestle-compose-").unwrap());
        for (file, replaced) in [
            (
                "compose.yaml",
                &[
                    ("image: trestle\n", format!("image: {image}\n")),
                    ("name: trestle\n", format!("name: {name}\n")),
                    // With the timing for slow networks, members that wait for a processor are not taken for dead.
                    (
                        "  TRESTLE_INITIAL_MEMBERS:",
                        "  TRESTLE_PROFILE: wide\n      TRESTLE_INITIAL_MEMBERS:".to_owned(),
                    ),
                ][..],
            ),
            ("service.json", &[]),
        ] {
            let mut text = std::fs::read_to_string(deploy.join(file)).unwrap();
            for (from, to) in [&[(SHIPPED, network.clone())], replaced].concat() {
                assert!(text.contains(from), "{file} has no {from:?}");
                text = text.replace(from, &to);
            }
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        Self { name, network, dir }
    }

    /// As [`Stack::prepare`], and up: returns when the virtual IP is served by both backends' answers.
    ///
    /// # Panics
    /// When that does not come about.
    pub fn up(deploy: &Path, image: &str) -> Self {
        let stack = Self::prepare(deploy, image);
        stack.shell("docker compose up --detach").unwrap();
        stack
    }

    /// The file in use.
    pub fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("compose.yaml")
    }

    /// The virtual IP, and the port at which it is served.
    pub fn target(&self) -> SocketAddr {
        format!("{}100:80", self.network).parse().unwrap()
    }

    /// Runs lines of a shell as README has them, with this stack in place of the shipped one.
    ///
    /// # Errors
    /// What they said when one of them failed.
    pub fn shell(&self, script: &str) -> Result<String, String> {
        said(&mut self.command(script))
    }

    /// A shell that runs lines as README has them.
    ///
    /// # Panics
    /// Where there is no Compose.
    pub fn command(&self, script: &str) -> Command {
        let script = script.replace("docker compose", compose().expect("Compose is there"));
        let mut shell = Command::new("sh");
        shell.args(["-euc", &script]).current_dir(self.dir.path());
        shell.env("COMPOSE_FILE", self.file()).env("COMPOSE_PROJECT_NAME", &self.name);
        shell
    }

    /// The container of a service, running or not.
    ///
    /// # Panics
    /// When there is none.
    pub fn container(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = format!("label=com.docker.compose.service={service}");
        let found = docker(&["ps", "-aq", "--no-trunc", "--filter", &project, "--filter", &service]).unwrap();
        assert_eq!(found.lines().count(), 1, "containers of {service}: {found:?}");
        found
    }

    /// Runs the command line in the client's container, over the members' sockets.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn trestle(&self, arguments: &[&str]) -> Result<String, String> {
        docker(&[&["exec", &self.container("client"), "trestle"], arguments].concat())
    }

    /// What a container has written.
    pub fn logs(&self, service: &str) -> String {
        let output = Command::new("docker").args(["logs", &self.container(service)]).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// What the engine knows of a service's container, by a template of Go.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub fn inspect(&self, service: &str, template: &str) -> String {
        docker(&["inspect", "--format", template, &self.container(service)]).unwrap()
    }

    /// A service's address in the stack's network.
    ///
    /// # Panics
    /// When it has none.
    pub fn address(&self, service: &str) -> Ipv4Addr {
        let template = format!("{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}", self.name);
        self.inspect(service, &template).parse().unwrap()
    }

    /// Waits until a service that runs once has ended; answers its exit code.
    ///
    /// # Panics
    /// When it does not.
    pub fn ended(&self, service: &str) -> i32 {
        wait_for(&format!("end of {service}"), LIMIT, || {
            match self.inspect(service, "{{.State.Status}} {{.State.ExitCode}}").split_once(' ') {
                Some(("exited", code)) => Ok(code.parse().unwrap()),
                other => Err(format!("{other:?}: {}", self.logs(service))),
            }
        })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = "docker compose ps -a; docker compose logs --no-color --tail ".to_owned() + TAIL;
            eprintln!("--- {} ---\n{}\n---", self.name, self.shell(&text).unwrap_or_else(|why| why));
        }
        leftovers::remove(&self.name);
    }
}
