//! The authority that signs a cluster's certificates is replaced while the cluster serves: nobody is cut off, whoever was off meanwhile
//! comes back, and whoever dies over it leaves nothing that cannot be gone on with.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::Streaming;
use tonic::transport::Channel;
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_api::v1;
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::pool_service_client::PoolServiceClient;
use trestle_identity::PrivateKey;
use trestle_identity::tls::ClientTls;
use trestle_testkit::{has_tools, wait_for};

use crate::identities::is_believed_by_other_programs;
use crate::joining::{Machines, refused, wait_until_done};
use crate::{Finished, finish};

const LIMIT: Duration = Duration::from_secs(90);
/// Watches that are open while the authority is replaced.
const STREAMS: usize = 50;

/// Three voters, and files for contexts.
struct Place {
    machines: Machines,
    files: tempfile::TempDir,
}

impl Place {
    fn three() -> Self {
        let mut machines = Machines::found();
        machines.become_three();
        let place = Self { machines, files: tempfile::tempdir().unwrap() };
        place.is_settled(1, &["m1", "m2", "m3"]);
        place
    }

    /// The file of one context, of a new user.
    fn user(&self, name: &str, role: &str) -> PathBuf {
        let file = self.files.path().join(format!("{name}.toml"));
        let out = file.to_str().unwrap();
        let words = ["user", "create", name, "--role", role, "--out", out];
        wait_until_done("a user", || self.machines.local(0, &words));
        file
    }

    /// What a member says of authorities.
    fn listed(&self, asked: usize) -> Result<Value, String> {
        let said = self.machines.local(asked, &["ca", "list", "-o", "json"]);
        serde_json::from_str(&said.stdout).map_err(|_| said.stderr)
    }

    /// The states of all authorities, by generation.
    fn states(&self, asked: usize) -> Vec<(u64, String)> {
        wait_for("a list of authorities", LIMIT, || -> Result<_, String> {
            let listed = self.listed(asked)?;
            let one = |one: &Value| {
                (one["generation"].as_u64().unwrap(), one["state"].as_str().unwrap().to_owned())
            };
            Ok(listed["authorities"].as_array().ok_or("none")?.iter().map(one).collect())
        })
    }

    /// Waits until these members have the key of an authority and show its certificates, by what the first one that runs says.
    fn is_settled(&self, generation: u64, members: &[&str]) {
        self.is_settled_by(0, generation, members, members);
    }

    fn is_settled_by(&self, asked: usize, generation: u64, keys: &[&str], certified: &[&str]) {
        wait_for("keys and certificates", LIMIT, || -> Result<(), String> {
            let listed = self.listed(asked)?;
            let all = listed["authorities"].as_array().ok_or("none")?;
            let one = all.iter().find(|one| one["generation"] == generation);
            let has = |field: &str, wanted: &[&str]| {
                one.is_some_and(|one| one[field].as_array().unwrap().iter().eq(wanted.iter()))
            };
            let done = has("key_members", keys) && has("certified_members", certified);
            if done { Ok(()) } else { Err(format!("{listed:#}")) }
        });
    }

    /// Replaces the authority by what a member is asked, as often as it takes; answers what it told at last.
    fn rotate(&self, asked: usize) -> String {
        let mut told = String::new();
        wait_until_done("the rotation", || {
            let said = self.machines.local(asked, &["ca", "rotate"]);
            told.clone_from(&said.stderr);
            said
        });
        told
    }

    /// Which member leads.
    fn leader(&self, asked: usize) -> usize {
        wait_for("a leader", LIMIT, || -> Result<_, String> {
            let said = self.machines.local(asked, &["leader", "show", "-o", "json"]);
            let shown: Value = serde_json::from_str(&said.stdout).map_err(|_| said.stderr)?;
            let name = shown["leader"].as_str().ok_or_else(|| format!("{shown}"))?.to_owned();
            self.machines.members.iter().position(|member| member.name == name).ok_or(name)
        })
    }
}

/// The command line with a context of a file, which may also name other endpoints.
fn with(context: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
    command.env_remove("TRESTLE_ENDPOINT").env_remove("TRESTLE_CONTEXT");
    finish(command.arg("--context").arg(context).args(arguments))
}

/// What TLS takes of the only context of a file, and its endpoints.
fn identity(file: &Path) -> (ClientTls, Vec<String>) {
    let text = std::fs::read_to_string(file).unwrap();
    let found: toml::Table = toml::from_str(&text).unwrap();
    let context = found["contexts"].as_table().unwrap().values().next().unwrap();
    let field = |name: &str| context[name].as_str().unwrap();
    let endpoints = context["endpoints"].as_array().unwrap();
    let endpoints = endpoints.iter().map(|one| one.as_str().unwrap().to_owned()).collect();
    (ClientTls::new(field("ca"), field("certificate"), field("key")).unwrap(), endpoints)
}

fn channel(user: &ClientTls, endpoint: &str) -> Channel {
    let transport = Transport::tls(user.clone());
    transport.dialer(endpoint, &ChannelOptions::default()).unwrap().connect_lazy()
}

fn pool(name: String) -> v1::CreatePoolRequest {
    v1::CreatePoolRequest { pool_id: name, pool: Some(v1::Pool::default()), ..Default::default() }
}

/// Creates pools until it is told to stop, and counts them; answers each failure. Every other one is on a connection of its own.
async fn write(
    user: ClientTls,
    endpoints: Vec<String>,
    (stop, written): (Arc<AtomicBool>, Arc<AtomicU32>),
) -> Vec<String> {
    let kept: Vec<_> = endpoints.iter().map(|endpoint| channel(&user, endpoint)).collect();
    let (mut done, mut failed) = (0_u32, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let at = done as usize / 2 % endpoints.len();
        let way = if done % 2 == 0 { kept[at].clone() } else { channel(&user, &endpoints[at]) };
        match PoolServiceClient::new(way).create_pool(pool(format!("p{done}"))).await {
            Ok(_) => {}
            Err(status) => failed.push(format!("p{done} at {}: {status}", endpoints[at])),
        }
        done += 1;
        written.store(done, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    failed
}

/// Reads a watch until a pool of this name comes; what ends it before that is told.
async fn watch(mut stream: Streaming<v1::WatchClusterResponse>, last: &'static str) -> Result<(), String> {
    loop {
        let Some(message) = stream.message().await.map_err(|status| status.to_string())? else {
            return Err("it ended".to_owned());
        };
        if format!("{message:?}").contains(last) {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_fails_no_call_and_ends_no_stream() {
    let place = tokio::task::spawn_blocking(Place::three).await.unwrap();
    let (file, unused) = (place.user("alice", "admin"), place.user("bob", "viewer"));
    let (user, endpoints) = identity(&file);
    let mut watches = Vec::new();
    for number in 0..STREAMS {
        let way = channel(&user, &endpoints[number % endpoints.len()]);
        let stream = ClusterServiceClient::new(way).watch_cluster(v1::WatchClusterRequest::default()).await;
        watches.push(tokio::spawn(watch(stream.unwrap().into_inner(), "the-last-one")));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU32::new(0));
    let writing = tokio::spawn(write(user.clone(), endpoints.clone(), (stop.clone(), written.clone())));
    let (place, context) = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        // It finds another leader by itself, which there may be on a machine that does much else.
        let said = with(&file, &["--timeout", "30s", "ca", "rotate"]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        for step in
            ["authority 2 is made, with its key on", "its key is on m1, m2, m3", "m1, m2, m3 believe it"]
        {
            assert!(said.stderr.contains(step), "{}", said.stderr);
        }
        assert!(said.stderr.contains("trestle ca retire 1"), "{}", said.stderr);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        place.is_settled(2, &["m1", "m2", "m3"]);
        assert_eq!(place.states(0), [(1, "trusted".to_owned()), (2, "active".to_owned())]);
        let retired = with(&file, &["ca", "retire", "1"]).expect_success();
        assert!(retired.contains("authority 1 is believed no more"), "{retired}");
        refused(&with(&file, &["ca", "retire", "2"]), 1, &["signs, and cannot be retired"]);
        (place, file)
    })
    .await
    .unwrap();
    // A while under the new authority alone.
    let before = written.load(Ordering::Relaxed);
    let more = async {
        while written.load(Ordering::Relaxed) < before + 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, more).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let failed = writing.await.unwrap();
    assert!(failed.is_empty() && before > 0, "{before} writes during the rotation: {failed:#?}");
    PoolServiceClient::new(channel(&user, &endpoints[0]))
        .create_pool(pool("the-last-one".to_owned()))
        .await
        .unwrap();
    for watching in watches {
        let ended = tokio::time::timeout(LIMIT, watching).await.unwrap().unwrap();
        assert_eq!(ended, Ok(()));
    }
    // Contexts of before: one that was in use has learned, one that was not goes on all the same, and learns then.
    for (file, words) in [(&context, "alice"), (&unused, "bob")] {
        with(file, &["pool", "list"]).expect_success();
        let ca = std::fs::read_to_string(file).unwrap();
        let certificates = ca.matches("BEGIN CERTIFICATE").count();
        assert_eq!(certificates, 2, "{words}: {ca}");
    }
    drop(place);
}

#[test]
fn a_member_that_was_off_for_two_rotations_comes_back_by_itself() {
    let mut place = Place::three();
    let old = place.user("old", "admin");
    // A newer member may lead by then, which the one that is off has never heard of.
    let token = place.machines.token(0, &[]);
    wait_until_done("the transfer", || place.machines.local(0, &["leader", "transfer", "--to", "m1"]));
    place.machines.members[2].kill();
    let newer = place.machines.prepare("");
    place.machines.join(newer, &token).expect_success();
    place.machines.members[newer].start();
    place.machines.have_roles(0, &[("m4", "voter")]);
    for generation in 2..=3_u64 {
        let said = place.rotate(0);
        assert!(said.contains("m3 does not answer: "), "{said}");
        let former = (generation - 1).to_string();
        let told = place.machines.local(0, &["ca", "retire", &former]);
        refused(&told, 1, &["m3 does not answer (", "nothing was changed"]);
        let to = if generation == 2 { "m2" } else { "m4" };
        wait_until_done("the transfer", || place.machines.local(0, &["leader", "transfer", "--to", to]));
        wait_until_done("the retirement", || place.machines.local(0, &["ca", "retire", &former, "--yes"]));
    }
    let states = |place: &Place| place.states(0).iter().map(|(_, state)| state.clone()).collect::<Vec<_>>();
    assert_eq!(states(&place), ["retired", "retired", "active"]);
    assert_eq!(place.leader(0), 3);
    place.machines.members[2].start();
    place.is_settled_by(2, 3, &["m1", "m2", "m3", "m4"], &["m1", "m2", "m3", "m4"]);
    place.machines.have_roles(2, &[("m3", "voter")]);
    wait_until_done("a write at the member that was off", || {
        place.machines.local(2, &["pool", "create", "web", "--if-absent"])
    });
    // A context that knows the first authority alone, after the second one came and went.
    let said = with(&old, &["pool", "list"]).expect_success();
    assert!(said.contains("web"), "{said}");
}

#[test]
fn whoever_leads_goes_on_with_a_rotation_whose_leader_was_killed() {
    let mut place = Place::three();
    for step in 0..5_u64 {
        let leader = place.leader(0);
        let asked = (leader + 1) % 3;
        let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
        let socket = format!("unix:{}", place.machines.members[asked].admin_socket().display());
        let generation = step + 2;
        if step == 0 {
            // As if it had been killed after it made the key, and the log knows nothing of it.
            let key = PrivateKey::generate().unwrap();
            let file = place.machines.members[leader].data_dir().join("ca").join("2.key");
            trestle_identity::write_private(&file, key.to_pem().expose().as_bytes()).unwrap();
            place.machines.members[leader].kill();
        } else {
            command.env("TRESTLE_ENDPOINT", &socket).args(["ca", "rotate"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let told = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
            let seen = told.take(usize::try_from(step).unwrap()).count();
            assert_eq!(seen, usize::try_from(step).unwrap());
            place.machines.members[leader].kill();
            let _ = child.wait().unwrap();
        }
        // Without it, unless nobody else has the key yet.
        wait_for("the rotation without the one that was killed", LIMIT, || {
            let said = place.machines.local(asked, &["ca", "rotate"]);
            let is_waiting = said.stderr.contains("because the leader does not have its key");
            if said.code == Some(0) || is_waiting { Ok(()) } else { Err(said.stderr) }
        });
        place.machines.members[leader].start();
        place.rotate(asked);
        // Not a further one, and everybody has it, whoever was killed too.
        let newest = place.states(asked).pop().unwrap();
        assert_eq!(newest, (generation, "active".to_owned()), "step {step}");
        place.is_settled_by(asked, generation, &["m1", "m2", "m3"], &["m1", "m2", "m3"]);
        let former = (generation - 1).to_string();
        wait_until_done("the retirement", || place.machines.local(asked, &["ca", "retire", &former]));
        wait_for("the leader that was killed", LIMIT, || {
            place
                .machines
                .local(leader, &["pool", "list"])
                .code
                .filter(|code| *code == 0)
                .map(drop)
                .ok_or("no".to_owned())
        });
    }
}

#[test]
fn machines_join_in_the_middle_by_tokens_of_before_and_a_learner_has_no_key() {
    let mut place = Place::three();
    let (before, learner) =
        (place.machines.token(0, &["--uses", "3"]), place.machines.token(0, &["--learner"]));
    let old = place.user("old", "viewer");
    place.rotate(1);
    let [voter, watcher, late] = [(); 3].map(|()| place.machines.prepare(""));
    place.machines.join(voter, &before).expect_success();
    place.machines.join(watcher, &learner).expect_success();
    for number in [voter, watcher] {
        place.machines.members[number].start();
    }
    place.machines.have_roles(0, &[("m4", "voter"), ("m5", "learner")]);
    place.is_settled_by(0, 2, &["m1", "m2", "m3", "m4"], &["m1", "m2", "m3", "m4", "m5"]);
    assert!(!place.machines.members[watcher].data_dir().join("ca").exists());
    if has_tools(&["openssl"]) {
        // By a context's file of before, whose only authority is the first one.
        is_believed_by_other_programs(&place.machines.members[0], &old);
    }
    // A member whose certificate is of the old one: it is shown again what it had.
    refused(&place.machines.local(0, &["ca", "retire", "7"]), 1, &["authority \"7\" does not exist"]);
    place.machines.local(0, &["ca", "retire", "1"]).expect_success();
    assert!(place.machines.tokens(0).is_empty());
    refused(&place.machines.join(late, &before), 77, &["is not known: it was revoked"]);
    place.machines.join(late, &place.machines.token(0, &[])).expect_success();
}

#[test]
fn an_authority_is_not_retired_while_a_member_shows_its_certificate() {
    let place = Place::three();
    // It cannot keep another certificate: a directory is where the file is to be written.
    let tls = place.machines.members[2].data_dir().join("tls").join("member.crt");
    let before = std::fs::read(&tls).unwrap();
    std::fs::remove_file(&tls).unwrap();
    std::fs::create_dir(&tls).unwrap();
    let said = place.machines.local(0, &["--timeout", "60s", "ca", "rotate"]);
    refused(&said, 1, &["m3 has no certificate of authority 2 within 30 s, though it answers"]);
    let told = place.machines.local(0, &["ca", "retire", "1"]);
    refused(&told, 1, &["m3 shows a certificate that it has signed", "nothing was changed"]);
    std::fs::remove_dir(&tls).unwrap();
    std::fs::write(&tls, before).unwrap();
    place.rotate(0);
    place.is_settled(2, &["m1", "m2", "m3"]);
    place.machines.local(0, &["ca", "retire", "1"]).expect_success();
}

#[test]
fn a_lost_key_is_put_back_from_a_backup() {
    let place = Place::three();
    let (admin, viewer) = (place.user("alice", "admin"), place.user("vera", "viewer"));
    let path = |name: &str| place.files.path().join(name).to_str().unwrap().to_owned();
    let (sealed, passphrase, wrong) = (path("sealed.json"), path("passphrase"), path("wrong"));
    std::fs::write(&passphrase, "correct horse battery\n").unwrap();
    std::fs::write(&wrong, "correct horse\n").unwrap();
    let backup = |context: &Path, file: &str, with_: &str| {
        with(context, &["--timeout", "60s", "backup", "--with-ca-key", "--passphrase-file", with_, file])
    };
    refused(&backup(&viewer, &path("none"), &passphrase), 1, &["takes the role admin"]);
    std::fs::write(path("short"), "horse").unwrap();
    refused(
        &backup(&admin, &path("none"), &path("short")),
        2,
        &["must have at least 12 characters, and has 5"],
    );
    assert!(!Path::new(&path("none")).exists());
    backup(&admin, &sealed, &passphrase).expect_success();
    let key = place.machines.members[0].data_dir().join("ca").join("1.key");
    let secret = std::fs::read_to_string(&key).unwrap().lines().nth(1).unwrap().to_owned();
    assert!(!std::fs::read_to_string(&sealed).unwrap().contains(&secret));
    // A backup without the key has none, and what a restore sends has none either.
    with(&admin, &["backup", &path("plain.json")]).expect_success();
    assert!(!std::fs::read_to_string(path("plain.json")).unwrap().contains("authority_key"));
    with(&admin, &["restore", &sealed, "--replace"]).expect_success();

    for member in &place.machines.members {
        std::fs::remove_file(member.data_dir().join("ca").join("1.key")).unwrap();
    }
    place.is_settled_by(0, 1, &[], &["m1", "m2", "m3"]);
    let refused_user = place.machines.local(0, &["user", "create", "bob", "--role", "viewer"]);
    refused(&refused_user, 1, &["no certificate was signed"]);
    let restore = |file: &str, passphrase: &str| {
        let words = ["--timeout", "60s", "restore", "--ca-key-only", "--passphrase-file", passphrase, file];
        place.machines.local(1, &words)
    };
    refused(&restore(&sealed, &wrong), 2, &["the passphrase is another one"]);
    refused(&restore(&path("plain.json"), &passphrase), 2, &["has no key"]);
    let said = restore(&sealed, &passphrase).expect_success();
    assert!(said.contains("m2 has the key of authority 1"), "{said}");
    place.is_settled(1, &["m1", "m2", "m3"]);
    assert_eq!(std::fs::read_to_string(&key).unwrap().lines().nth(1), Some(secret.as_str()));
    place.user("bob", "viewer");
    let status = place.machines.local(0, &["status"]);
    assert!(!status.stdout.contains("does not have the key"), "{}", status.stdout);
}

#[test]
fn an_authority_whose_key_is_lost_everywhere_is_replaced_without_it() {
    let place = Place::three();
    let old = place.user("old", "admin");
    for member in &place.machines.members {
        std::fs::remove_file(member.data_dir().join("ca").join("1.key")).unwrap();
    }
    place.is_settled_by(0, 1, &[], &["m1", "m2", "m3"]);
    let status = place.machines.local(1, &["status"]);
    let words = "it does not have the key of authority 1 any more";
    assert!(status.stdout.contains(words), "{}{}", status.stdout, status.stderr);
    let told = place.machines.local(0, &["ca", "rotate"]);
    refused(&told, 1, &["trestle restore --ca-key-only", "trestle ca rotate --yes", "Nothing was changed"]);
    place.machines.local(0, &["ca", "rotate", "--yes"]).expect_success();
    place.is_settled(2, &["m1", "m2", "m3"]);
    assert!(!place.machines.local(1, &["status"]).stdout.contains(words));
    // Nothing leads from the old authority to the new one.
    refused(&with(&old, &["pool", "list"]), 1, &["which is no authority of cluster"]);
    let out = place.files.path().join("new.toml");
    let rotate = ["user", "rotate", "old", "--out", out.to_str().unwrap()];
    place.machines.local(2, &rotate).expect_success();
    with(&out, &["pool", "list"]).expect_success();
}

#[test]
fn a_learner_that_is_made_all_of_the_cluster_has_no_key_and_gets_it_from_a_backup_or_goes_on_without() {
    let mut machines = Machines::found();
    let token = machines.token(0, &["--learner"]);
    let learner = machines.prepare("");
    machines.join(learner, &token).expect_success();
    machines.members[learner].start();
    machines.have_roles(0, &[("m1", "voter"), ("m2", "learner")]);
    let mut place = Place { machines, files: tempfile::tempdir().unwrap() };
    place.is_settled_by(0, 1, &["m1"], &["m1", "m2"]);
    let admin = place.user("alice", "admin");
    let directory = place.files.path().to_owned();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (sealed, passphrase) = (path("sealed.json"), path("passphrase"));
    std::fs::write(&passphrase, "correct horse battery\n").unwrap();
    let words = ["--timeout", "60s", "backup", "--with-ca-key", "--passphrase-file", &passphrase, &sealed];
    with(&admin, &words).expect_success();

    place.machines.members[0].kill();
    place.machines.members[learner].stop();
    let config = place.machines.members[learner].config();
    let mut recover = Command::new(crate::trestled());
    recover.args(["recover", "--yes", "--config"]).arg(config).stdin(Stdio::null());
    finish(&mut recover).expect_success();
    place.machines.members[learner].start();
    let local = |words: &[&str]| place.machines.local(learner, words);
    wait_for("what is wrong", LIMIT, || {
        let status = local(&["status"]);
        let told = status.stdout.contains("no member of the cluster has the key of authority 1");
        if told { Ok(()) } else { Err(status.stdout + &status.stderr) }
    });
    refused(&local(&["user", "create", "bob", "--role", "viewer"]), 1, &["no certificate was signed"]);
    // Who had a certificate goes on.
    wait_until_done("a write", || with(&admin, &["pool", "create", "web", "--if-absent"]));
    let words = ["--timeout", "60s", "restore", "--ca-key-only", "--passphrase-file", &passphrase, &sealed];
    local(&words).expect_success();
    wait_until_done("a user", || local(&["user", "create", "bob", "--role", "viewer"]));
    std::fs::remove_file(place.machines.members[learner].data_dir().join("ca").join("1.key")).unwrap();
    local(&["ca", "rotate", "--yes"]).expect_success();
    place.is_settled_by(learner, 2, &["m2"], &["m2"]);
    let out = path("new.toml");
    local(&["user", "rotate", "alice", "--out", &out]).expect_success();
    with(Path::new(&out), &["pool", "list"]).expect_success();
}
