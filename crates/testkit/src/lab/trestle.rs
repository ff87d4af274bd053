//! Three members of Trestle, founded and set up by its own command.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tonic::Status;
use trestle_api::v1::{ClusterStatus, MemberRole, MemberStatus, UserRole};
use trestle_identity::tls::ClientTls;

use super::{Lab, PORT, Product, VIP};
use crate::api::Api;
use crate::document::shell;
use crate::member::Member;
use crate::wait::wait_for;

/// Long enough for elections and calls on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of the virtual IP, which its listener binds to.
const NAME: &str = "front";

/// The command's exit code when its arguments make no sense.
const USAGE: i32 = 2;

/// `trestled` on each member of a lab, with the default timing.
#[derive(Debug)]
pub struct Trestle {
    /// Its members, in the lab's order.
    pub members: Vec<Member>,
    /// The command, beside the daemon.
    command: PathBuf,
    /// Whom its members let in, where they prove who they are.
    user: Option<ClientTls>,
    /// Where the founding token is, which such members have.
    _token: Option<TempDir>,
}

impl Trestle {
    /// Founds a cluster that serves the lab's backends on its virtual address.
    ///
    /// # Panics
    /// When that does not work.
    pub fn new(lab: &Lab, daemon: &Path) -> Self {
        Self::with(lab, daemon, |_| String::new())
    }

    /// As [`Trestle::new`], with more lines for the file of each member, by its place.
    ///
    /// # Panics
    /// When that does not work.
    pub fn with(lab: &Lab, daemon: &Path, more: impl Fn(usize) -> String) -> Self {
        let member = |(number, host): (usize, &super::Host)| {
            Member::new(daemon, &format!("m{number}"), host.ip, &more(number - 1))
        };
        let members = (1..).zip(&lab.members).map(member).collect();
        let command = daemon.with_file_name("trestle");
        let mut product = Self { members, command, user: None, _token: None };
        product.form(lab);
        product.set_up(lab);
        product
    }

    /// Prepares members that prove who they are, as their users run them: each has the names of all and a founding token. Starts
    /// nothing.
    ///
    /// # Panics
    /// When there is no token to be had, or files cannot be written.
    pub fn secure(lab: &Lab, daemon: &Path, more: impl Fn(usize) -> String) -> Self {
        let dir = TempDir::with_prefix("trestle-founding-").unwrap();
        let token = dir.path().join("token");
        let printed = Command::new(daemon).arg("founding-token").output().unwrap();
        assert!(printed.status.success(), "{printed:?}");
        std::fs::write(&token, printed.stdout).unwrap();
        std::fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
        let peers: Vec<String> = lab.members.iter().map(|host| format!("\"{}:7481\"", host.ip)).collect();
        let founding = format!(
            "initial_members = [{}]\nfounding_token_file = \"{}\"\n",
            peers.join(", "),
            token.display()
        );
        let member = |(number, host): (usize, &super::Host)| {
            let more = format!("{founding}{}", more(number));
            Member::secure(daemon, &format!("m{}", number + 1), host.ip, &more)
        };
        let members = lab.members.iter().enumerate().map(member).collect();
        let command = daemon.with_file_name("trestle");
        Self { members, command, user: None, _token: Some(dir) }
    }

    /// Starts prepared members, which found a cluster, makes an admin, and has the cluster serve the lab's backends on its virtual
    /// address.
    ///
    /// # Panics
    /// When that does not work.
    pub fn found(&mut self, lab: &Lab) {
        self.start(lab);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Root on a member's machine makes the first user.
        let user = wait_for("a first user", LIMIT, || {
            let made = async { self.members[0].local_api().new_user("tester", UserRole::Admin).await };
            runtime.block_on(made).map_err(|status| status.to_string())
        });
        self.user = Some(user);
        wait_for("as many voters as members", LIMIT, || {
            let status = self.status(lab, 0).map_err(|status| status.to_string())?;
            let is_voter =
                |m: &&MemberStatus| m.member.as_ref().is_some_and(|m| m.role() == MemberRole::Voter);
            let voters = status.members.iter().filter(is_voter).count();
            if voters == self.members.len() { Ok(()) } else { Err(format!("{voters} voters")) }
        });
        self.set_up(lab);
    }

    /// Whom its members let in, where they prove who they are.
    pub fn user(&self) -> Option<&ClientTls> {
        self.user.as_ref()
    }

    /// Clients of a member. Calls are made on a machine that reaches it.
    pub fn api(&self, member: usize) -> Api {
        Api::of(self.members[member].admin(), self.user.as_ref())
    }

    fn form(&mut self, lab: &Lab) {
        for (member, host) in self.members.iter_mut().zip(&lab.members) {
            host.run(|| member.start());
        }
        let first = self.members[0].admin().to_string();
        self.run(lab, &["--endpoint", &first, "cluster", "bootstrap"]);
        for number in 1..self.members.len() {
            let (peer, name) = (self.members[number].peer().to_string(), self.members[number].name.clone());
            self.run(lab, &["member", "add", &peer]);
            self.run(lab, &["member", "promote", &name]);
        }
    }

    fn set_up(&self, lab: &Lab) {
        self.run(lab, &["pool", "create", "web", "--health", "tcp"]);
        for (number, address) in (1..).zip(lab.backends()) {
            self.run(lab, &["backend", "add", &format!("web/b{number}"), &address.to_string()]);
        }
        self.run(lab, &["vip", "create", &format!("{VIP}/24"), "--name", NAME, "--interface", "eth0"]);
        self.run(lab, &["listener", "create", "web", "--bind", &format!("{NAME}:{PORT}"), "--pool", "web"]);
    }

    /// What every member says of itself, by way of one of them.
    ///
    /// # Errors
    /// The member's answer, or that it cannot be reached.
    pub fn status(&self, lab: &Lab, member: usize) -> Result<ClusterStatus, Status> {
        lab.client.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { self.api(member).status().await })
        })
    }

    /// Runs the command on the client's machine until it succeeds; answers what it printed.
    ///
    /// # Panics
    /// When it does not succeed in 60 s.
    pub fn run(&self, lab: &Lab, arguments: &[&str]) -> String {
        wait_for(&format!("trestle {}", arguments.join(" ")), LIMIT, || self.try_run(lab, arguments))
    }

    /// Runs commands as documentation has them, in a shell on the client's machine; all must succeed.
    ///
    /// # Panics
    /// When one does not.
    pub fn follow(&self, lab: &Lab, script: &str) {
        let output = lab.client.run(|| shell(&self.command, &self.endpoints(), script).output().unwrap());
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script}\n{}{}", said(&output.stdout), said(&output.stderr));
    }

    fn endpoints(&self) -> String {
        // Root may do everything over a member's own socket, which is no network and has no namespace.
        let endpoint = |member: &Member| match &self.user {
            Some(_) => format!("unix:{}", member.admin_socket().display()),
            None => member.admin().to_string(),
        };
        self.members.iter().map(endpoint).collect::<Vec<_>>().join(",")
    }

    /// Runs the command on the client's machine.
    ///
    /// # Errors
    /// What it said.
    ///
    /// # Panics
    /// When it does not understand its arguments.
    pub fn try_run(&self, lab: &Lab, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.command);
        command.env("TRESTLE_ENDPOINT", self.endpoints()).args(arguments);
        let output = lab.client.run(|| command.output().unwrap());
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_ne!(output.status.code(), Some(USAGE), "{arguments:?}: {said}");
            Err(said)
        }
    }
}

impl Product for Trestle {
    fn name(&self) -> &'static str {
        "Trestle"
    }

    fn start(&mut self, lab: &Lab) {
        for (member, host) in self.members.iter_mut().zip(&lab.members) {
            if !member.is_running() {
                host.run(|| member.spawn());
            }
        }
    }

    fn settled(&mut self, lab: &Lab, holder: usize) -> Result<(), String> {
        let status = self.status(lab, holder).map_err(|status| status.to_string())?;
        let name = format!("members/{}", self.members[holder].name);
        if status.leader != name {
            return Err(format!("{name} holds, {} leads", status.leader));
        }
        let last = status.members.iter().map(|member| member.in_force_revision).max();
        let behind = status.members.iter().find(|m| !m.reachable || Some(m.in_force_revision) != last);
        match behind {
            None if status.members.len() == self.members.len() => Ok(()),
            behind => Err(format!("{behind:#?}")),
        }
    }

    fn hand_over(&mut self, lab: &Lab, holder: usize) {
        let to = self.members[(holder + 1) % self.members.len()].name.clone();
        self.run(lab, &["vip", "move", "--to", &to]);
    }
}
