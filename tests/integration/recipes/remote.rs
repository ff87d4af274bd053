//! Servers that speak first: SMTP with the client's address, and SSH.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use trestle_testkit::{Process, has_tools, is_root, skip, wait_for};

use super::{Kitchen, LIMIT, says};
use crate::finish;

const SMTP: &str = "2525";

/// What Postfix needs beside its programs.
const SERVICES: &str = "cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\n\
    bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nflush unix n - n 1000? 0 flush\n\
    proxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\npostlog unix-dgram n - n - 1 postlogd\n";

/// A Postfix, by the directory of its configuration, before which it must go.
struct Postfix(PathBuf);

impl Postfix {
    fn command(&self, action: &str) -> Command {
        let mut command = Command::new("postfix");
        command.arg("-c").arg(&self.0).arg(action);
        command
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // One that never started cannot be ended.
        let _ = self.command("abort").output();
    }
}

/// Starts a Postfix at these addresses, with this line of the recipe.
fn postfix(kitchen: &Kitchen, addresses: &[SocketAddr], line: &str) -> Postfix {
    let dir = kitchen.dir.path();
    // Its own user goes there.
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["conf", "queue", "data"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    finish(Command::new("chown").arg("postfix").arg(dir.join("data"))).expect_success();
    // The lists of its files, by which it makes the directories of its queue.
    let mut copy = Command::new("cp");
    copy.arg("-r");
    for name in ["postfix-files", "postfix-files.d", "dynamicmaps.cf", "dynamicmaps.cf.d"] {
        copy.args(Some(Path::new("/etc/postfix").join(name)).filter(|path| path.exists()));
    }
    finish(copy.arg(dir.join("conf"))).expect_success();
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {dir}/queue\ndata_directory = {dir}/data\n\
         maillog_file = {dir}/mail.log\nmaillog_file_prefixes = {dir}\ninet_protocols = ipv4\nmyhostname = mx.example.test\n\
         mydestination = example.test\nsmtpd_peername_lookup = no\nalias_maps =\nalias_database =\n{line}",
        dir = dir.display()
    );
    std::fs::write(dir.join("conf/main.cf"), main).unwrap();
    let smtpd: String = addresses.iter().map(|address| format!("{address} inet n - n - - smtpd\n")).collect();
    std::fs::write(dir.join("conf/master.cf"), smtpd + SERVICES).unwrap();
    // It goes into the background; whether it listens is for the checks to see, because who connects without a header is a
    // complaint in its log.
    let server = Postfix(dir.join("conf"));
    finish(&mut server.command("start")).expect_success();
    server
}

/// Says hello from an address, and goodbye.
fn greet(from: Ipv4Addr, to: SocketAddr) -> Command {
    let mut client = Command::new("curl");
    client.args(["--silent", "--show-error", "--max-time", "10", "--interface", &from.to_string()]);
    client.args(["--request", "NOOP", &format!("smtp://{to}/client.example.test")]);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postfix_is_told_the_clients_address_and_has_nothing_to_complain_of() {
    if !has_tools(&["postfix", "curl"]) {
        return;
    }
    if !is_root() {
        skip("Postfix takes root");
        return;
    }
    let kitchen = Kitchen::new().await;
    let port: u16 = SMTP.parse().unwrap();
    let addresses = [1, 2].map(|number| SocketAddr::from((kitchen.server(number), port)));
    let section = kitchen.follow("SMTP", &[(":25", &format!(":{SMTP}"))]);
    let _server = postfix(&kitchen, &addresses, &section.code("cf"));
    kitchen.healthy("smtp", 2);
    let client = kitchen.cluster.subnet.ip(200);
    says("250 2.0.0 Ok", || greet(client, kitchen.front(port)));
    kitchen.checks("smtp/mx1", 10);
    let log = std::fs::read_to_string(kitchen.dir.path().join("mail.log")).unwrap();
    assert!(log.contains(&format!("connect from unknown[{client}]")), "{log}");
    for complaint in
        ["improper command pipelining", "missing protocol", "haproxy", "lost connection", "timeout"]
    {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }
}

const SSH: &str = "2222";

/// An sshd at this address that lets whoever has the key in as root.
fn sshd(kitchen: &Kitchen, number: u8, address: SocketAddr) -> Process {
    let dir = kitchen.dir.path();
    let key = dir.join(format!("host-{number}"));
    finish(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))
        .expect_success();
    let text = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}/client.pub\nPermitRootLogin yes\nStrictModes no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPidFile none\nLogLevel VERBOSE\n",
        key.display(),
        dir.display()
    );
    let file = dir.join(format!("sshd-{number}.conf"));
    std::fs::write(&file, text).unwrap();
    // sshd wants to be called by its whole path.
    let mut server = Command::new("/usr/sbin/sshd");
    kitchen.start(&format!("sshd-{number}"), server.args(["-D", "-e", "-f"]).arg(&file), &[address])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_clients_meet_the_same_server_and_sshd_sees_no_check() {
    if !has_tools(&["ssh", "ssh-keygen"]) {
        return;
    }
    if !is_root() || !Path::new("/usr/sbin/sshd").exists() {
        skip("OpenSSH's server and root are needed");
        return;
    }
    // Where its unprivileged part is locked in; Debian makes it when the service starts.
    std::fs::create_dir_all("/run/sshd").unwrap();
    let kitchen = Kitchen::new().await;
    let (dir, port) = (kitchen.dir.path(), SSH.parse::<u16>().unwrap());
    let key = dir.join("client");
    finish(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))
        .expect_success();
    let addresses = [1, 2].map(|number| SocketAddr::from((kitchen.server(number), port)));
    let servers = [sshd(&kitchen, 1, addresses[0]), sshd(&kitchen, 2, addresses[1])];
    let connects = || -> Vec<usize> {
        servers.iter().map(|server| server.output().matches("Connection from ").count()).collect()
    };
    // Those of this test itself.
    let before = vec![1, 1];
    wait_for("the first connections in the logs", LIMIT, || {
        let now = connects();
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    });
    kitchen.follow("SSH", &[(":22", &format!(":{SSH}"))]);
    kitchen.healthy("ssh", 2);
    kitchen.checks("ssh/node1", 10);
    assert_eq!(connects(), before);

    let front = kitchen.front(port);
    let known = dir.join("known_hosts");
    let ssh = |command: &str| {
        let mut client = Command::new("ssh");
        client.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new"]);
        client.arg("-o").arg(format!("UserKnownHostsFile={}", known.display())).arg("-i").arg(&key);
        client.args(["-p", SSH, &format!("root@{}", front.ip()), command]);
        client
    };
    // With another server's key in its file it would refuse.
    for _ in 0..4 {
        says("hello", || ssh("echo hello"));
    }
    let served = std::iter::zip(connects(), &before).map(|(now, before)| now - before).collect::<Vec<_>>();
    assert!(served == [4, 0] || served == [0, 4], "{served:?}");
    let (own, name) = if served[0] == 4 { (0, "ssh/node1") } else { (1, "ssh/node2") };
    // A drain leaves a session alone.
    let mut session = kitchen.session("session", &mut ssh("echo open; sleep 3; echo done"));
    wait_for("the session", LIMIT, || match session.output() {
        said if said.contains("open") => Ok(()),
        said => Err(said),
    });
    kitchen.trestle(&["backend", "drain", name]);
    assert!(session.exited(LIMIT).success(), "{}", session.output());
    assert!(session.output().contains("done"), "{}", servers[own].output());
}
