//! Users call the admin API over TLS: who is let in, as what, and what both sides say to the others.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use trestle_identity::{
    CertificateAuthority, CertificateRequest, CertificateSubject, PrivateKey, SpiffeId, from_pem, to_pem,
};
use trestle_testkit::{Cluster, has_tools, python_with_grpc, wait_for};

use crate::{Finished, finish, trestle, trestled};

const LIMIT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// A person's home, with a file of contexts.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("trestle").join("config.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
        command.env("XDG_CONFIG_HOME", self.0.path()).env_remove("TRESTLE_ENDPOINT").args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments))
    }

    /// Has a user made by whoever reaches these endpoints, and its context added.
    fn create(&self, endpoints: &str, name: &str, role: &str) {
        let file = self.file();
        let file = file.to_str().unwrap();
        trestle(endpoints, &["user", "create", name, "--role", role, "--out", file]).expect_success();
    }

    /// The name of a user's context.
    fn context(&self, user: &str) -> String {
        let listed: serde_json::Value =
            serde_json::from_str(&self.run(&["context", "list", "-o", "json"]).expect_success()).unwrap();
        let found = listed.as_array().unwrap().iter().find(|context| context["user"] == user);
        found.unwrap()["name"].as_str().unwrap().to_owned()
    }

    fn as_user(&self, user: &str, arguments: &[&str]) -> Finished {
        let context = self.context(user);
        self.run(&[&["--context", &context], arguments].concat())
    }
}

/// PEM blocks of a text, each with its label.
fn blocks(text: &str, label: &str) -> Vec<String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(&begin) {
        let to = rest[at..].find(&end).unwrap() + at + end.len();
        found.push(format!("{}\n", &rest[at..to]));
        rest = &rest[to..];
    }
    found
}

/// What a file of one context has: certificate, key, authority.
struct Parts {
    certificate: String,
    key: String,
    ca: String,
}

impl Parts {
    fn of(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let [certificate, ca] = blocks(&text, "CERTIFICATE").try_into().unwrap();
        let [key] = blocks(&text, "PRIVATE KEY").try_into().unwrap();
        Self { certificate, key, ca }
    }

    /// The same user with a certificate that the cluster's own authority has signed at another time, for an hour.
    fn signed_at(&self, cluster: &Cluster, at: SystemTime) -> Self {
        let key = std::fs::read_to_string(cluster.members[0].data_dir().join("ca").join("1.key")).unwrap();
        let ca = from_pem(&self.ca).unwrap().remove(0);
        let facts =
            trestle_identity::CertificateFacts::read(&from_pem(&self.certificate).unwrap()[0]).unwrap();
        let name = SpiffeId::parse(&facts.uris[0]).unwrap();
        let CertificateSubject::User(user) = name.subject else { panic!("{:?}", facts.uris) };
        let authority =
            CertificateAuthority::load(PrivateKey::from_pem(&key).unwrap(), &name.cluster, &ca).unwrap();
        let own = PrivateKey::from_pem(&self.key).unwrap();
        let request = CertificateRequest::read(&CertificateRequest::make(&own).unwrap()).unwrap();
        let signed = authority.sign_user(&request, &user, at, HOUR).unwrap();
        Self { certificate: to_pem(&signed), key: self.key.clone(), ca: self.ca.clone() }
    }

    fn text(&self) -> String {
        format!("{}{}{}", self.certificate, self.key, self.ca)
    }
}

/// What openssl says of a handshake with a member; without a file it shows no certificate.
fn s_client(member: &trestle_testkit::Member, believes: &Path, shows: Option<&Path>) -> String {
    let mut command = Command::new("openssl");
    let address = member.admin().to_string();
    command.args(["s_client", "-connect", &address, "-alpn", "h2", "-verify_return_error", "-tls1_3"]);
    command.arg("-CAfile").arg(believes);
    if let Some(file) = shows {
        command.arg("-cert").arg(file).arg("-key").arg(file);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A server's refusal comes after the client's own part of the handshake: it reads as long as its input is open.
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let waiting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        drop(stdin);
    });
    let output = child.wait_with_output().unwrap();
    waiting.join().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// openssl and grpcio believe a member by the file of a context, and are let in by it.
pub(crate) fn is_believed_by_other_programs(member: &trestle_testkit::Member, file: &Path) {
    let said = s_client(member, file, Some(file));
    assert!(said.contains("Verify return code: 0 (ok)") && said.contains("ALPN protocol: h2"), "{said}");
    assert!(!said.contains("alert"), "{said}");
    let Some(python) = python_with_grpc() else { return };
    let script = "import grpc, sys
pem = open(sys.argv[2], 'rb').read()
credentials = grpc.ssl_channel_credentials(root_certificates=pem, private_key=pem, certificate_chain=pem)
with grpc.secure_channel(sys.argv[1], credentials) as channel:
    check = channel.unary_unary('/grpc.health.v1.Health/Check')
    print(check(b'', timeout=10, wait_for_ready=True))
    pools = channel.unary_unary('/trestle.v1.PoolService/ListPools')
    print(len(pools(b'', timeout=10)) > 0)
";
    let address = member.admin().to_string();
    let mut command = Command::new(python);
    command.args(["-c", script, &address]).arg(file);
    let said = finish(&mut command).expect_success();
    assert_eq!(said, "b'\\x08\\x01'\nTrue\n");
}

/// Waits until a member has a certificate of its own.
fn has_certificate(cluster: &Cluster) {
    for member in &cluster.members {
        let file = member.data_dir().join("tls").join("member.crt");
        wait_for("a member's certificate", LIMIT, || {
            if file.exists() { Ok(()) } else { Err(format!("no {}", file.display())) }
        });
    }
}

/// Waits until a member's log says this.
fn logged(member: &trestle_testkit::Member, words: &str) {
    wait_for(words, LIMIT, || {
        let log = member.output();
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
}

/// How a child ends, in time.
fn ended(mut child: Child) -> Finished {
    wait_for("the end of the command", LIMIT, || match child.try_wait() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_may_what_its_role_says() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    has_certificate(&cluster);
    let home = Home::new();
    // Through a member that does not have the authority's key.
    let second = cluster.members[1].admin().to_string();
    for (name, role) in [("alice", "admin"), ("olaf", "operator"), ("vera", "viewer")] {
        home.create(&second, name, role);
    }
    let alice = home.context("alice");
    assert!(alice.starts_with("alice@"), "{alice}");
    // The first context is the current one.
    home.run(&["pool", "create", "web"]).expect_success();
    home.run(&["context", "use", &home.context("vera")]).expect_success();
    let listed = home.run(&["user", "list"]);
    assert_eq!(listed.code, Some(1), "{}", listed.stdout);
    assert!(
        listed.stderr.contains("user vera (viewer) may not read users: that takes the role admin"),
        "{}",
        listed.stderr
    );
    assert!(home.run(&["pool", "list"]).expect_success().contains("web"));
    for (user, arguments, allowed) in [
        ("vera", &["pool", "create", "x"][..], false),
        ("vera", &["status"], true),
        ("olaf", &["pool", "create", "y"], true),
        ("olaf", &["leader", "transfer"], true),
        ("olaf", &["member", "remove", "m3"], false),
        ("olaf", &["user", "delete", "vera"], false),
        ("alice", &["user", "list"], true),
    ] {
        let done = home.as_user(user, arguments);
        assert_eq!(done.code == Some(0), allowed, "{user} {arguments:?}: {}{}", done.stdout, done.stderr);
        assert!(allowed || done.stderr.contains("takes the role"), "{}", done.stderr);
    }
    // Alice makes another one, who is let in by another member.
    let carl = Home::new();
    let file = carl.file();
    let create =
        ["user", "create", "carl", "--role", "operator", "--ttl", "30d", "--out", file.to_str().unwrap()];
    home.as_user("alice", &create).expect_success();
    let third = cluster.members[2].admin().to_string();
    carl.as_user("carl", &["--endpoint", &third, "pool", "create", "z"]).expect_success();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    cluster.agreed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_work_with_the_file_of_a_context_as_it_is() {
    if !has_tools(&["openssl"]) {
        return;
    }
    let cluster = Cluster::start(trestled(), 1).await;
    has_certificate(&cluster);
    let home = Home::new();
    home.create(&cluster.endpoints(), "alice", "viewer");
    let file = home.file();
    is_believed_by_other_programs(&cluster.members[0], &file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_let_in_is_told_why_and_so_is_the_log() {
    if !has_tools(&["openssl"]) {
        return;
    }
    let (cluster, other) = (Cluster::start(trestled(), 1).await, Cluster::start(trestled(), 1).await);
    has_certificate(&cluster);
    let (home, foreign) = (Home::new(), Home::new());
    home.create(&cluster.endpoints(), "alice", "admin");
    foreign.create(&other.endpoints(), "mallory", "admin");
    let (alice, mallory) = (Parts::of(&home.file()), Parts::of(&foreign.file()));
    let member = &cluster.members[0];
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    std::fs::write(&ca, &alice.ca).unwrap();
    let now = SystemTime::now();
    let expired = alice.signed_at(&cluster, now - 3 * HOUR);
    let early = alice.signed_at(&cluster, now + 3 * HOUR);
    // Signed by somebody else under the name of this cluster's authority.
    let stranger = {
        let key = PrivateKey::from_pem(&alice.key).unwrap();
        let name = SpiffeId::parse(&uri(&alice.certificate)).unwrap();
        let own = CertificateAuthority::make(PrivateKey::generate().unwrap(), &name.cluster, 1, now).unwrap();
        let request = CertificateRequest::read(&CertificateRequest::make(&key).unwrap()).unwrap();
        let CertificateSubject::User(user) = name.subject else { panic!() };
        let signed = own.sign_user(&request, &user, now, HOUR).unwrap();
        Parts { certificate: to_pem(&signed), key: alice.key.clone(), ca: alice.ca.clone() }
    };
    for (name, shows, client, server) in [
        ("none", None, "certificate required", "must show a user's"),
        ("stranger", Some(&stranger), "unknown ca", "which is no authority of cluster"),
        ("foreign", Some(&mallory), "unsupported certificate", "its certificate is of cluster"),
    ] {
        let file = dir.path().join(name);
        let shown = shows.map(|parts| {
            std::fs::write(&file, parts.text()).unwrap();
            file.as_path()
        });
        let said = s_client(member, &ca, shown);
        assert!(said.contains(client), "{name}: {said}");
        logged(member, server);
    }
    // What trestle says of its own accord, or makes of an alert.
    let told = |home: &Home, words: &str| {
        let refused = home.run(&["pool", "list"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        assert!(refused.stderr.contains(words), "no {words:?} in {}", refused.stderr);
    };
    let with = |parts: &Parts| {
        let home = Home::new();
        std::fs::create_dir_all(home.file().parent().unwrap()).unwrap();
        let block = |key: &str, pem: &str| format!("{key} = \"\"\"\n{pem}\"\"\"\n");
        let text = format!(
            "current = \"a\"\n[contexts.a]\nendpoints = [\"{}\"]\n{}{}{}",
            member.admin(),
            block("certificate", &parts.certificate),
            block("key", &parts.key),
            block("ca", &parts.ca),
        );
        std::fs::write(home.file(), text).unwrap();
        home
    };
    told(&with(&expired), "its certificate expired at");
    told(&with(&early), "its certificate is valid from");
    told(&with(&stranger), "was signed by no authority of the member's cluster");
    told(&with(&mallory), "is not believed to be a member of cluster");
    home.run(&["pool", "list"]).expect_success();
}

/// The name in a certificate.
fn uri(certificate: &str) -> String {
    trestle_identity::CertificateFacts::read(&from_pem(certificate).unwrap()[0]).unwrap().uris.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_and_rotating_a_user_cuts_what_it_has_open() {
    let cluster = Cluster::start(trestled(), 3).await;
    has_certificate(&cluster);
    let home = Home::new();
    for (name, role) in [("alice", "admin"), ("bob", "viewer"), ("carol", "viewer")] {
        home.create(&cluster.endpoints(), name, role);
    }
    let watch = |user: &str| {
        let context = home.context(user);
        let third = cluster.members[2].admin().to_string();
        let mut command = home.command(&["--context", &context, "--endpoint", &third, "watch", "-o", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // A new key for carol, in another file, so that her old context is still there.
    let newer = Home::new();
    let newer_file = newer.file();
    let rotate = ["user", "rotate", "carol", "--out", newer_file.to_str().unwrap()];
    for (user, end, stream, call) in [
        ("bob", &["user", "delete", "bob"][..], "user \"bob\" does not exist", "there is no such user"),
        ("carol", &rotate[..], "is none of user \"carol\"", "its key was rotated"),
    ] {
        let watching = watch(user);
        wait_for("an open watch", LIMIT, || {
            let third = trestle_testkit::get(cluster.members[2].http(), "/metrics").unwrap().body;
            let open =
                third.lines().find(|line| line.starts_with("trestle_port_connections{port=\"admin\"}"));
            match open.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()) {
                Some(open) if open >= 1.0 => Ok(()),
                _ => Err(format!("{open:?}")),
            }
        });
        home.as_user("alice", end).expect_success();
        let finished = ended(watching);
        assert_ne!(finished.code, Some(0), "{}", finished.stdout);
        let told = finished.stderr.replace('\\', "");
        assert!(told.contains(stream) || told.contains(call), "{user}: {told}");
        let refused = home.as_user(user, &["pool", "list"]);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        assert!(refused.stderr.contains(call), "{user}: {}", refused.stderr);
    }
    newer.as_user("carol", &["pool", "list"]).expect_success();
    // Who rotates its own key has the answer, with which it goes on.
    let file = home.file();
    let own = ["user", "rotate", "alice", "--out", file.to_str().unwrap()];
    home.as_user("alice", &own).expect_success();
    // A name that is free again is another user.
    let again = home.as_user("alice", &["user", "create", "alice", "--role", "viewer"]);
    assert_eq!(again.code, Some(4), "{}", again.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_founder_nobody_signs_and_everybody_who_has_a_certificate_goes_on() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    has_certificate(&cluster);
    let home = Home::new();
    home.create(&cluster.endpoints(), "alice", "admin");
    cluster.members[0].kill();
    // It has its certificate on disk.
    cluster.members[1].kill();
    cluster.members[1].start();
    let second = cluster.members[1].admin().to_string();
    wait_for("alice at a member that was restarted", LIMIT, || {
        let listed = home.run(&[
            "--context",
            &home.context("alice"),
            "--endpoint",
            &second,
            "pool",
            "create",
            "web",
            "--if-absent",
        ]);
        if listed.code == Some(0) { Ok(()) } else { Err(listed.stderr) }
    });
    let refused =
        home.as_user("alice", &["--endpoint", &second, "user", "create", "bob", "--role", "viewer"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    let words = "no certificate was signed: the authority's key is on m1 alone (m1: ";
    assert!(
        refused.stderr.contains(words) && refused.stderr.contains("nothing was changed"),
        "{}",
        refused.stderr
    );
    let users = home.as_user("alice", &["--endpoint", &second, "user", "list"]).expect_success();
    assert!(!users.contains("bob"), "{users}");
    cluster.members[0].start();
    let third = cluster.members[2].admin().to_string();
    wait_for("bob", LIMIT, || {
        let made =
            home.as_user("alice", &["--endpoint", &third, "user", "create", "bob", "--role", "viewer"]);
        if made.code == Some(0) { Ok(()) } else { Err(made.stderr) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_in_no_answer_backup_or_snapshot_and_a_restore_leaves_users_alone() {
    let cluster = Cluster::start(trestled(), 1).await;
    has_certificate(&cluster);
    let home = Home::new();
    home.create(&cluster.endpoints(), "alice", "admin");
    let endpoints = cluster.endpoints();
    let data = cluster.members[0].data_dir();
    let backup = home.0.path().join("backup.json");
    let backup = backup.to_str().unwrap();
    trestle(&endpoints, &["pool", "create", "web"]).expect_success();
    trestle(&endpoints, &["backup", backup]).expect_success();
    let saved = std::fs::read_to_string(backup).unwrap();
    assert!(!saved.contains("alice") && !saved.contains("BEGIN"), "{saved}");
    trestle(&endpoints, &["pool", "delete", "web"]).expect_success();
    trestle(&endpoints, &["restore", backup, "--replace"]).expect_success();
    assert!(home.run(&["pool", "list"]).expect_success().contains("web"));
    let secrets: Vec<String> =
        [data.join("ca").join("1.key"), data.join("tls").join("member.key"), home.file()]
            .iter()
            .map(|file| blocks(&std::fs::read_to_string(file).unwrap(), "PRIVATE KEY").remove(0))
            .map(|pem| pem.lines().nth(1).unwrap().to_owned())
            .collect();
    let keys = [data.join("ca"), data.join("tls")];
    for file in walk(&data).into_iter().filter(|file| !keys.iter().any(|keys| file.starts_with(keys))) {
        let bytes = std::fs::read(&file).unwrap();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a key is in {}", file.display());
        }
    }
    let log = cluster.members[0].output();
    assert!(secrets.iter().all(|secret| !log.contains(secret.as_str())), "a key is in the log");
}

/// The files below a directory.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
