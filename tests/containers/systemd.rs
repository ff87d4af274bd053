//! The shipped unit under a real systemd, which runs as process 1 of a container: the programs of this machine's `/usr`, and files of its
//! own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_testkit::containers::{docker, is_available};
use trestle_testkit::{skip, wait_for};

use crate::bed::{LIMIT, alone, root};

/// systemd, where it is on every system with one `/usr`.
const INIT: &str = "/usr/lib/systemd/systemd";
/// The hierarchy of control groups in which systemd keeps its services, where the kernel has the first version of them.
const FIRST: &str = "/sys/fs/cgroup/systemd";
const SECOND: &str = "/sys/fs/cgroup";

/// A container with systemd in it. Removed when this is dropped.
struct Machine {
    name: String,
    _files: TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", self.systemctl(&["status", "--no-pager", "--full", "trestled"]));
        }
        let _ = docker(&["rm", "--force", "--volumes", &self.name]);
        let _ = docker(&["rmi", "--force", &self.name]);
    }
}

/// The files of a system that has little but the unit.
fn files(top: &Path) {
    for directory in [
        "etc/systemd/system",
        "etc/trestle",
        "opt",
        "run",
        "tmp",
        "var/lib",
        "var/log",
        "proc",
        "sys",
        "dev",
        "usr",
        "root",
    ] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), top.join(name)).unwrap();
    }
    let unit = fs::read_to_string(root().join("deploy/systemd/trestled.service")).unwrap();
    // This machine's /usr is not written to.
    let unit = unit.replace("ExecStart=/usr/bin/", "ExecStart=/opt/");
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/nsswitch.conf", "passwd: files systemd\ngroup: files systemd\nhosts: files dns\n"),
        ("etc/machine-id", ""),
        ("etc/systemd/system/trestled.service", &*unit),
        // All that systemd is to start.
        ("etc/systemd/system/test.target", "[Unit]\nRequires=trestled.service\n"),
        ("etc/trestle/trestled.toml", "name = \"m1\"\ninsecure = true\n"),
    ] {
        fs::write(top.join(path), text).unwrap();
    }
}

impl Machine {
    /// Starts systemd, which starts the unit.
    fn start() -> Self {
        let files_of_it = TempDir::with_prefix("trestle-systemd-").unwrap();
        files(files_of_it.path());
        let name = format!("trestle-test-{}-systemd", std::process::id());
        let machine = Self { name, _files: files_of_it };
        let (top, name) = (machine._files.path().display(), &machine.name);
        let import =
            format!("tar -C '{top}' -c . | docker import --change 'ENTRYPOINT [\"{INIT}\"]' - {name}");
        let imported = Command::new("sh").args(["-c", &import]).output().unwrap();
        assert!(imported.status.success(), "{imported:?}");
        let groups = if Path::new(FIRST).exists() { FIRST } else { SECOND };
        let daemon = PathBuf::from(env!("CARGO_BIN_EXE_trestled"));
        let mounts = [
            format!("{groups}:{groups}:rw"),
            "/usr:/usr:ro".to_owned(),
            format!("{}:/opt/trestled:ro", daemon.display()),
            format!("{}:/opt/trestle:ro", daemon.with_file_name("trestle").display()),
        ];
        let mut arguments: Vec<&str> = "run --detach --tty --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_NICE --cap-add SYS_PTRACE \
            --security-opt seccomp=unconfined --cgroupns host --tmpfs /run --tmpfs /tmp --env container=docker"
            .split_whitespace()
            .collect();
        mounts.iter().for_each(|mount| arguments.extend(["--volume", mount]));
        docker(&[&arguments[..], &["--name", name, name, "--unit=test.target"]].concat()).unwrap();
        machine
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        docker(&[&["exec", &self.name], arguments].concat())
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(&[&["/usr/bin/systemctl"], arguments].concat())
    }

    /// A property of the unit.
    fn property(&self, name: &str) -> Result<String, String> {
        self.systemctl(&["show", "trestled", "--value", "--property", name])
    }

    /// Waits until the member answers at its socket.
    fn answers(&self) {
        wait_for("an answer at the admin socket", LIMIT, || self.run(&["/opt/trestle", "status", "--local"]));
    }

    /// Waits until a property of the unit is as wanted.
    fn becomes(&self, name: &str, wanted: &str) {
        wait_for(&format!("{name}={wanted}"), LIMIT, || match self.property(name)? {
            found if found == wanted => Ok(()),
            found => Err(found),
        });
    }
}

#[test]
fn systemd_starts_the_unit_restarts_it_and_stops_it() {
    if !is_available() {
        return;
    }
    if !Path::new(INIT).exists() {
        return skip("systemd is not installed; .ci/run names the Debian package");
    }
    let _alone = alone();
    let machine = Machine::start();
    machine.becomes("ActiveState", "active");
    machine.answers();
    // As an ordinary user with these three rights, and with the watchdog that it feeds.
    let process = machine.property("MainPID").unwrap();
    let status = machine.run(&["/bin/cat", &format!("/proc/{process}/status")]).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(
        (field("CapEff:").as_str(), field("NoNewPrivs:").as_str()),
        ("0000000000003400", "1"),
        "{status}"
    );
    assert!(!field("Uid:").starts_with('0') && field("Seccomp:") == "2", "{status}");
    assert_ne!(machine.property("WatchdogTimestamp").unwrap(), "", "the watchdog is not fed");
    machine.run(&["/opt/trestle", "cluster", "bootstrap"]).unwrap();
    // Killed: started again, with what it had.
    machine.run(&["/bin/kill", "-9", &process]).unwrap();
    machine.becomes("NRestarts", "1");
    machine.becomes("ActiveState", "active");
    machine.answers();
    wait_for("a leader", LIMIT, || {
        let status = machine.run(&["/opt/trestle", "status"])?;
        if status.contains("leader") { Ok(()) } else { Err(status) }
    });
    // Stopped by its watchdog's time: another restart. The whole process stands still, so nothing feeds it.
    let process = machine.property("MainPID").unwrap();
    machine.run(&["/bin/kill", "-STOP", &process]).unwrap();
    machine.becomes("NRestarts", "2");
    machine.becomes("ActiveState", "active");
    machine.answers();
    // Asked to stop: it does, well, and nothing starts it again. A mistake in its file ends it with what no restart mends.
    machine.systemctl(&["stop", "trestled"]).unwrap();
    assert_eq!(machine.property("Result").unwrap(), "success");
    assert_eq!(machine.property("ActiveState").unwrap(), "inactive");
    machine.run(&["/bin/sh", "-c", "echo wrong=1 >> /etc/trestle/trestled.toml"]).unwrap();
    let _ = machine.systemctl(&["start", "trestled"]);
    machine.becomes("ActiveState", "failed");
    assert_eq!(machine.property("ExecMainStatus").unwrap(), "64");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.property("ActiveState").unwrap(), "failed", "it is started again");
}
