//! Machines join by tokens: three of them form a cluster that lets nobody in without TLS, and what a token is refused for.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use trestle_identity::TokenText;
use trestle_testkit::{Member, Subnet, wait_for};

use crate::{Finished, finish, trestled};

const LIMIT: Duration = Duration::from_secs(60);

/// Members of one cluster to be, on addresses of their own.
pub(crate) struct Machines {
    pub(crate) members: Vec<Member>,
    subnet: Subnet,
}

impl Machines {
    /// The first one, which does not run yet.
    pub(crate) fn prepared() -> Self {
        let mut machines = Self { members: Vec::new(), subnet: Subnet::claim() };
        machines.prepare("");
        machines
    }

    /// The first founds the cluster.
    pub(crate) fn found() -> Self {
        let mut machines = Self::prepared();
        machines.members[0].start();
        machines.local(0, &["cluster", "bootstrap"]).expect_success();
        machines
    }

    /// Two more join the founder by one token, and all three become voters.
    pub(crate) fn become_three(&mut self) {
        let token = self.token(0, &["--uses", "2"]);
        for _ in 0..2 {
            let number = self.prepare("");
            self.join(number, &token).expect_success();
            self.members[number].start();
        }
        self.have_roles(0, &[("m1", "voter"), ("m2", "voter"), ("m3", "voter")]);
    }

    /// One more, with lines for its configuration file; answers its place.
    pub(crate) fn prepare(&mut self, more: &str) -> usize {
        let number = self.members.len() + 1;
        let ip = self.subnet.ip(u8::try_from(number).unwrap());
        self.members.push(Member::secure(trestled(), &format!("m{number}"), ip, more));
        number - 1
    }

    /// The command line over a member's socket.
    pub(crate) fn local(&self, number: usize, arguments: &[&str]) -> Finished {
        let socket = self.members[number].admin_socket();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
        // A founder's context goes to the member's own files.
        command.env("XDG_CONFIG_HOME", socket.parent().unwrap());
        finish(command.env("TRESTLE_ENDPOINT", format!("unix:{}", socket.display())).args(arguments))
    }

    /// A new token, of a member.
    pub(crate) fn token(&self, number: usize, arguments: &[&str]) -> String {
        let words = [&["token", "create"], arguments].concat();
        let made = wait_until_done("a token", || self.local(number, &words));
        made.trim().to_owned()
    }

    /// Runs `trestled join` with a token on its standard input.
    pub(crate) fn join(&self, number: usize, token: &str) -> Finished {
        ended(self.joining(number, token))
    }

    fn joining(&self, number: usize, token: &str) -> Child {
        let mut command = Command::new(trestled());
        command.arg("join").arg("--config").arg(self.members[number].config()).arg("-");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        child
    }

    /// Waits until the members of these names have these roles, by what one of them says.
    pub(crate) fn have_roles(&self, asked: usize, wanted: &[(&str, &str)]) {
        wait_for("the members' roles", LIMIT, || {
            let listed = self.local(asked, &["member", "list", "-o", "json"]);
            let members: Value = serde_json::from_str(&listed.stdout).map_err(|_| listed.stderr.clone())?;
            let has = |(name, role): &(&str, &str)| {
                members
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|member| member["name"] == *name && member["role"] == *role)
            };
            if wanted.iter().all(has) { Ok(()) } else { Err(format!("{members:#}")) }
        });
    }

    /// The tokens that a member lists.
    pub(crate) fn tokens(&self, number: usize) -> Vec<Value> {
        let listed = self.local(number, &["token", "list", "-o", "json"]).expect_success();
        serde_json::from_str(&listed).unwrap()
    }
}

fn ended(child: Child) -> Finished {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What a command says that succeeds before long: after a member was killed a leader is elected first.
#[track_caller]
pub(crate) fn wait_until_done(what: &str, mut run: impl FnMut() -> Finished) -> String {
    let mut said = String::new();
    wait_for(what, LIMIT, || {
        let finished = run();
        said = finished.stdout;
        if finished.code == Some(0) { Ok(()) } else { Err(finished.stderr) }
    });
    said
}

#[track_caller]
pub(crate) fn refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(code), "{}{}", finished.stdout, finished.stderr);
    for words in words {
        assert!(finished.stderr.contains(words), "no {words:?} in {}", finished.stderr);
    }
}

/// Waits until a member has the key of the authority, for itself alone.
fn has_authority_key(member: &Member) {
    let file = member.data_dir().join("ca").join("1.key");
    wait_for("the authority's key", LIMIT, || match std::fs::metadata(&file) {
        Ok(found) if found.permissions().mode() & 0o777 == 0o600 => Ok(()),
        other => Err(format!("{}: {other:?}", file.display())),
    });
}

/// Whether a file below a directory has these bytes.
fn is_below(directory: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => is_below(&entry.path(), bytes),
            kind if kind.is_file() => {
                let found = std::fs::read(entry.path()).unwrap();
                found.windows(bytes.len()).any(|part| part == bytes)
            }
            _ => false,
        }
    })
}

#[test]
fn three_machines_become_three_voters_and_any_of_them_signs_for_the_next() {
    let mut machines = Machines::found();
    let token = machines.token(0, &["--uses", "2"]);
    // By the command, and by the daemon itself.
    let second = machines.prepare("");
    let said = machines.join(second, &token).expect_success();
    assert!(said.contains("it becomes a voter once it has caught up"), "{said}");
    assert!(machines.join(second, &token).expect_success().contains("already"));
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("token");
    std::fs::write(&file, &token).unwrap();
    let third = machines.prepare(&format!("join_token_file = \"{}\"\n", file.display()));
    for number in [second, third] {
        machines.members[number].start();
    }
    machines.have_roles(0, &[("m1", "voter"), ("m2", "voter"), ("m3", "voter")]);
    assert_eq!(machines.tokens(0)[0]["uses_left"], 0);
    machines.members.iter().for_each(has_authority_key);

    // The founder is gone.
    machines.members[0].kill();
    let learner = machines.token(second, &["--learner"]);
    let fourth = machines.prepare("");
    let said = machines.join(fourth, &learner).expect_success();
    assert!(said.contains("trestle member promote m4"), "{said}");
    machines.members[fourth].start();
    machines.have_roles(second, &[("m4", "learner")]);
    assert!(!machines.members[fourth].data_dir().join("ca").exists());
    wait_until_done("the promotion", || machines.local(second, &["member", "promote", "m4"]));
    has_authority_key(&machines.members[fourth]);

    for token in [token, learner] {
        let parsed = TokenText::parse(&token).unwrap();
        for member in &machines.members {
            assert!(!member.output().contains(&token), "{}", member.name);
            assert!(!is_below(&member.data_dir(), parsed.secret.expose()), "{}", member.name);
        }
    }
}

#[test]
fn of_two_machines_that_race_for_one_use_one_joins() {
    let mut machines = Machines::found();
    let (one, other) = (machines.prepare(""), machines.prepare(""));
    let token = machines.token(0, &[]);
    let racing = [machines.joining(one, &token), machines.joining(other, &token)];
    let done = racing.map(ended);
    let winners: Vec<_> = done.iter().map(|finished| finished.code == Some(0)).collect();
    assert!(winners[0] != winners[1], "{} {}", done[0].stderr, done[1].stderr);
    let (winner, loser) = if winners[0] { (one, 1) } else { (other, 0) };
    refused(&done[loser], 77, &["is used up: 1 member joined by it, as many as might"]);

    // The answer got lost: what the winner kept of it is its key alone.
    let data = machines.members[winner].data_dir();
    for gone in ["identity", "tls/member.crt", "tls/ca.crt"] {
        std::fs::remove_file(data.join(gone)).unwrap();
    }
    std::fs::remove_dir_all(data.join("store")).unwrap();
    machines.join(winner, &token).expect_success();
    machines.members[winner].start();
    let name = machines.members[winner].name.clone();
    machines.have_roles(0, &[(&name, "voter")]);
}

#[test]
fn a_token_that_is_not_whole_revoked_or_shown_to_an_impostor_takes_nobody_in() {
    let mut machines = Machines::found();
    let machine = machines.prepare("");
    let token = machines.token(0, &[]);
    let join = |token: &str| machines.join(machine, token);
    refused(
        &join(&token[..token.len() - 5]),
        65,
        &["the checksum does not match: a part of the token is missing"],
    );
    refused(&join(""), 65, &["the token is empty"]);
    refused(&join("hello"), 65, &["it is no token"]);

    let other = Machines::found();
    let mut parsed = TokenText::parse(&token).unwrap();
    parsed.endpoints = vec![other.members[0].peer().into()];
    let impostor = join(parsed.to_text().expose());
    refused(&impostor, 69, &["is not believed to be a member of the cluster that is to be joined"]);
    assert!(other.members[0].output().find(&parsed.id.to_string()).is_none());
    // Nobody listens at the first of both.
    parsed.endpoints = [machine, 0].map(|number| machines.members[number].peer().into()).into();
    let id = parsed.id.to_string();
    machines.local(0, &["token", "revoke", &id]).expect_success();
    refused(&join(parsed.to_text().expose()), 77, &[&id, "is not known: it was revoked"]);
    assert!(machines.tokens(0).is_empty());
    // None of this left more than a key behind, and a good token works.
    machines.join(machine, &machines.token(0, &[])).expect_success();
}

#[test]
fn a_founders_context_learns_of_the_other_members_and_works_on_when_the_first_is_down() {
    let mut machines = Machines::found();
    let home = machines.members[0].admin_socket().parent().unwrap().to_owned();
    let file = home.join("trestle").join("config.toml");
    let by = |context: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
        command.env("XDG_CONFIG_HOME", &home).env_remove("TRESTLE_ENDPOINT").args(["--context", context]);
        finish(command.args(arguments))
    };
    let contexts = || -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
        command.env("XDG_CONFIG_HOME", &home).args(["context", "list", "-o", "json"]);
        serde_json::from_str(&finish(&mut command).expect_success()).unwrap()
    };
    let name = contexts()[0]["name"].as_str().unwrap().to_owned();
    assert_eq!(contexts()[0]["endpoints"].as_array().unwrap().len(), 1);
    let copy = home.join("copy.toml");
    std::fs::copy(&file, &copy).unwrap();
    machines.become_three();

    // A file that is named is left as it is.
    by(copy.to_str().unwrap(), &["status"]).expect_success();
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&file).unwrap());
    by(&name, &["status"]).expect_success();
    let endpoints: Vec<_> = machines.members.iter().map(|member| member.admin().to_string()).collect();
    assert_eq!(contexts()[0]["endpoints"], Value::from(endpoints));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    machines.members[0].kill();
    wait_until_done("a call without the first member", || by(&name, &["user", "list"]));
    assert_ne!(by(copy.to_str().unwrap(), &["user", "list"]).code, Some(0));
}

#[test]
fn a_member_that_was_enrolled_and_never_started_is_told_of_in_the_status() {
    let mut machines = Machines::found();
    let token = machines.token(0, &[]);
    let second = machines.prepare("");
    machines.join(second, &token).expect_success();
    let says = |words: &str| {
        let status = machines.local(0, &["status", "-o", "json"]);
        if status.stdout.contains(words) {
            Ok(())
        } else {
            Err(format!("{}{}", status.stdout, status.stderr))
        }
    };
    let at = machines.members[second].peer();
    let words = format!(
        "m2 has joined by a token and is waited for, to be a voter: {at} does not answer as m2: connection refused"
    );
    wait_for("the words", LIMIT, || says(&words));
    machines.members[second].start();
    machines.have_roles(0, &[("m1", "voter"), ("m2", "voter")]);
    let status = machines.local(0, &["status", "-o", "json"]).expect_success();
    assert!(!status.contains("has joined by a token"), "{status}");
    assert!(!machines.members[0].output().contains("InProgress"), "{}", machines.members[0].output());
}

/// The disk of a member is lost that joined by its `join_token_file`.
#[test]
fn a_lost_disk_is_told_of_its_old_name_and_joins_by_a_new_token_in_its_file() {
    let mut machines = Machines::found();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("token");
    std::fs::write(&file, machines.token(0, &["--uses", "4"])).unwrap();
    let line = format!("join_token_file = \"{}\"\n", file.display());
    for _ in 0..2 {
        let number = machines.prepare(&line);
        machines.members[number].start();
    }
    machines.have_roles(0, &[("m1", "voter"), ("m2", "voter"), ("m3", "voter")]);
    machines.members[2].kill();
    machines.members[2].wipe();
    machines.members[2].start();
    wait_for("what it says", LIMIT, || {
        let log = machines.members[2].output();
        if log.contains("trestle member remove m3") { Ok(()) } else { Err(log) }
    });
    wait_until_done("the removal", || machines.local(0, &["member", "remove", "m3"]));
    machines.have_roles(0, &[("m1", "voter"), ("m2", "voter"), ("m3", "voter")]);
}

/// The shortest life that a token can have is a minute.
#[test]
fn a_token_whose_time_is_over_takes_nobody_in() {
    let mut machines = Machines::found();
    let token = machines.token(0, &["--ttl", "1m", "--uses", "2"]);
    let machine = machines.prepare("");
    let made = std::time::SystemTime::now();
    wait_for("the token's end", Duration::from_secs(90), || {
        let age = made.elapsed().unwrap_or_default();
        if age > Duration::from_secs(60) { Ok(()) } else { Err(format!("{age:?}")) }
    });
    refused(&machines.join(machine, &token), 77, &["has expired", "by the clock of the leader"]);
    assert_eq!(machines.tokens(0)[0]["uses_left"], 2);
}
