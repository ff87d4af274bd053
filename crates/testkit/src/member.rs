//! One `trestled`: its files, its process.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use crate::api::Api;
use crate::fetch::get;
use crate::process::Process;
use crate::wait::wait_for;

/// Long enough for a debug build on a machine that does other things.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
}

/// A member with the default ports on an address of its own. It may run or not; its files outlive its process.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its address, for everything.
    pub ip: Ipv4Addr,
    binary: PathBuf,
    /// What it logs, when not what it does by itself.
    logged: Option<String>,
    /// More of its environment.
    environment: Vec<(String, OsString)>,
    /// Goes before its files: its log is read when it goes.
    process: Option<Process>,
    dir: TempDir,
}

impl Member {
    /// Prepares a member of a cluster in which nobody proves who they are, and its configuration file; `more` is appended to that.
    /// Starts nothing.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn new(binary: &Path, name: &str, ip: Ipv4Addr, more: &str) -> Self {
        Self::secure(binary, name, ip, &format!("insecure = true\n{more}"))
    }

    /// As [`Member::new`], without leave to accept or make plain connections.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn secure(binary: &Path, name: &str, ip: Ipv4Addr, more: &str) -> Self {
        let dir = TempDir::with_prefix(format!("trestle-{name}-")).unwrap();
        let (name_of, binary, environment) = (name.to_owned(), binary.to_owned(), Vec::new());
        let member = Self { name: name_of, ip, binary, dir, process: None, logged: None, environment };
        let mut text = format!("name = \"{name}\"\ndata_dir = \"{}\"\n", member.data_dir().display());
        writeln!(text, "admin_socket = \"{}\"", member.admin_socket().display()).unwrap();
        for (key, address) in [
            ("admin_address", member.admin()),
            ("peer_address", member.peer()),
            ("http_address", member.http()),
        ] {
            writeln!(text, "{key} = \"{address}\"").unwrap();
        }
        // One worker: many members share two cores here.
        write!(text, "data_address = \"{ip}\"\nworkers = 1\n{more}").unwrap();
        std::fs::write(member.config(), text).unwrap();
        member
    }

    /// Starts a member without a cluster that joins by this token.
    ///
    /// # Panics
    /// When its files cannot be written, or as of [`Member::start`].
    pub fn start_with_token(&mut self, token: &str) {
        use std::os::unix::fs::PermissionsExt;
        let file = self.dir.path().join("token");
        std::fs::write(&file, token).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut text = std::fs::read_to_string(self.config()).unwrap();
        writeln!(text, "join_token_file = \"{}\"", file.display()).unwrap();
        std::fs::write(self.config(), text).unwrap();
        self.start();
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("trestled.toml")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The UNIX socket of its admin API, in a directory that only this process's user may enter.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Its admin address.
    pub fn admin(&self) -> SocketAddr {
        (self.ip, 7480).into()
    }

    /// Its peer address.
    pub fn peer(&self) -> SocketAddr {
        (self.ip, 7481).into()
    }

    /// Its HTTP address.
    pub fn http(&self) -> SocketAddr {
        (self.ip, 7482).into()
    }

    /// Clients of its API.
    pub fn api(&self) -> Api {
        Api::of(self.admin(), None)
    }

    /// Clients of its API as the user that it runs as, over its admin socket.
    pub fn local_api(&self) -> Api {
        Api::local(&self.admin_socket())
    }

    /// What it logs from its next start on, in the form of `TRESTLE_LOG`.
    pub fn log(&mut self, filter: &str) {
        self.logged = Some(filter.to_owned());
    }

    /// Sets a variable of its environment from its next start on.
    pub fn environment(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Starts its process and returns at once.
    ///
    /// # Panics
    /// When it runs already.
    pub fn spawn(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let mut trestled = Command::new(&self.binary);
        trestled.arg("--config").arg(self.config());
        if let Some(logged) = &self.logged {
            trestled.env("TRESTLE_LOG", logged);
        }
        trestled.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log = self.dir.path().join("output.log");
        self.process = Some(Process::spawn(format!("member {}", self.name), &mut trestled, &log));
    }

    /// Starts its process and returns when it answers.
    ///
    /// # Panics
    /// When it ends instead, or does not answer in 30 s.
    pub fn start(&mut self) {
        self.spawn();
        wait_for(&format!("start of {}", self.name), START_LIMIT, || {
            let ended = self.process.as_mut().and_then(Process::status);
            assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, self.output());
            get(self.http(), "/livez").map(drop)
        });
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.status().is_none())
    }

    /// Its process.
    ///
    /// # Panics
    /// When it was never started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the member was started")
    }

    /// Ends it with SIGKILL.
    ///
    /// # Panics
    /// When it was never started.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Panics
    /// When it was never started or does not end in 30 s.
    pub fn stop(&mut self) -> ExitStatus {
        self.process().terminate();
        self.process().exited(Duration::from_secs(30))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it was never started or does not end in 30 s.
    pub fn exited(&mut self) -> ExitStatus {
        self.process().exited(Duration::from_secs(30))
    }

    /// All that its processes have written.
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Throws its data away, as a lost disk does.
    ///
    /// # Panics
    /// When it runs.
    pub fn wipe(&mut self) {
        assert!(!self.is_running(), "{} still runs", self.name);
        std::fs::remove_dir_all(self.data_dir()).unwrap();
    }

    /// How many files and sockets its process has open.
    ///
    /// # Panics
    /// When it does not run.
    pub fn descriptors(&mut self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process().id())).unwrap().count()
    }

    /// What its process has used.
    ///
    /// # Panics
    /// When it does not run.
    pub fn usage(&mut self) -> Usage {
        /// The kernel's USER_HZ, which is 100 on every architecture that matters here.
        const TICK: Duration = Duration::from_millis(10);
        const PAGE: u64 = 4096;
        let read = |name: &str, id: u32| std::fs::read_to_string(format!("/proc/{id}/{name}")).unwrap();
        let id = self.process().id();
        // proc(5): the fields after the name in parentheses begin with the third; utime and stime are 14 and 15.
        let stat = read("stat", id);
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap();
        let pages: u64 = read("statm", id).split_whitespace().nth(1).unwrap().parse().unwrap();
        Usage { cpu: TICK * ticks, resident: pages * PAGE }
    }
}
