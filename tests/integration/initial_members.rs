//! Members found a cluster by themselves: those that their files name as the initial ones, which have one founding token. There is never a
//! second cluster, whoever is killed or loses its disk.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::peer::{DescribeFoundingRequest, DescribeRequest, FoundingState};
use trestle_identity::{FoundingSide, FoundingToken, TokenText};
use trestle_testkit::{Member, Subnet, get, wait_for};

use crate::joining::wait_until_done;
use crate::{Finished, finish, trestled};

const LIMIT: Duration = Duration::from_secs(60);

/// What `trestled founding-token` prints.
fn founding_token() -> String {
    let printed = finish(Command::new(trestled()).arg("founding-token")).expect_success();
    assert!(printed.starts_with("trestle-founding1.") && printed.lines().count() == 1, "{printed}");
    printed
}

/// Members whose files name one another.
struct Machines {
    members: Vec<Member>,
    /// Their founding tokens, one file each.
    files: Vec<PathBuf>,
    token: String,
    dir: TempDir,
    _subnet: Subnet,
}

impl Machines {
    /// So many of them, each with lines of its own.
    fn new(more: &[&str]) -> Self {
        let (subnet, dir, token) = (Subnet::claim(), tempfile::tempdir().unwrap(), founding_token());
        let ip = |number: usize| subnet.ip(u8::try_from(number + 1).unwrap());
        let all: Vec<_> = (0..more.len()).map(|number| format!("\"{}:7481\"", ip(number))).collect();
        let files: Vec<_> = (0..more.len()).map(|number| dir.path().join(format!("token{number}"))).collect();
        let prepared = more.iter().zip(&files).enumerate().map(|(number, (more, file))| {
            std::fs::write(file, &token).unwrap();
            let (all, file) = (all.join(", "), file.display());
            let more = format!("initial_members = [{all}]\nfounding_token_file = \"{file}\"\n{more}");
            Member::secure(trestled(), &format!("m{}", number + 1), ip(number), &more)
        });
        Self { members: prepared.collect(), files, token, dir, _subnet: subnet }
    }

    fn three() -> Self {
        Self::new(&["", "", ""])
    }

    /// Starts them in this order.
    fn start(&mut self, order: &[usize]) {
        order.iter().for_each(|number| self.members[*number].spawn());
    }

    /// Three that have founded.
    fn founded() -> Self {
        let mut machines = Self::three();
        machines.start(&[0, 1, 2]);
        machines.are_voters(&[0, 1, 2]);
        machines
    }

    /// The command line over a member's socket.
    fn local(&self, number: usize, arguments: &[&str]) -> Finished {
        let socket = self.members[number].admin_socket();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
        command.env("XDG_CONFIG_HOME", self.dir.path());
        finish(command.env("TRESTLE_ENDPOINT", format!("unix:{}", socket.display())).args(arguments))
    }

    fn json(&self, number: usize, arguments: &[&str]) -> Result<Value, String> {
        let said = self.local(number, &[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&said.stdout).map_err(|_| said.stderr)
    }

    /// The cluster that a member belongs to.
    fn cluster(&self, number: usize) -> Option<String> {
        let status = self.json(number, &["status", "--local"]).ok()?;
        let id = status["cluster_id"].as_str().unwrap_or_default();
        (!id.is_empty()).then(|| id.to_owned())
    }

    /// Waits until these are voters of one cluster, by what each says; answers its id.
    #[track_caller]
    fn are_voters(&self, numbers: &[usize]) -> String {
        let names: Vec<_> = numbers.iter().map(|number| self.members[*number].name.clone()).collect();
        for number in numbers {
            wait_for("voters", LIMIT, || {
                let members = self.json(*number, &["member", "list"])?;
                let is_voter = |name: &String| {
                    let all = members.as_array().unwrap();
                    all.iter().any(|member| member["name"] == **name && member["role"] == "voter")
                };
                if names.iter().all(is_voter) { Ok(()) } else { Err(format!("{members:#}")) }
            });
        }
        let mut clusters: Vec<_> = numbers.iter().filter_map(|number| self.cluster(*number)).collect();
        assert_eq!(clusters.len(), numbers.len());
        clusters.dedup();
        assert_eq!(clusters.len(), 1, "{clusters:?}");
        clusters.remove(0)
    }

    /// Waits until an empty member's status says these words, and that it belongs to no cluster.
    #[track_caller]
    fn waits(&self, number: usize, words: &[&str]) {
        wait_for(&format!("what {} waits for", self.members[number].name), LIMIT, || {
            let said = self.local(number, &["status", "--local", "-o", "json"]);
            let status: Value = serde_json::from_str(&said.stdout).map_err(|_| said.stderr.clone())?;
            assert_eq!(status["cluster_id"], "", "{status:#}");
            let problems = status["problems"].as_array().unwrap().iter().filter_map(Value::as_str);
            let problems: String = problems.collect();
            match words.iter().find(|words| !problems.contains(*words)) {
                None => Ok(()),
                Some(words) => Err(format!("no {words:?} in {problems}")),
            }
        });
        let ready = get(self.members[number].http(), "/readyz").unwrap();
        assert_eq!(ready.status, 503);
        for words in words {
            assert!(ready.body.contains(words), "no {words:?} in {}", ready.body);
        }
    }

    /// Loses a member's disk and starts it again.
    fn lose(&mut self, number: usize) {
        if self.members[number].is_running() {
            self.members[number].kill();
        }
        self.members[number].wipe();
        self.members[number].start();
    }

    /// `trestled join` with a token on its standard input, while the daemon does not run.
    fn join(&self, number: usize, token: &str) -> Finished {
        let mut command = Command::new(trestled());
        command.arg("join").arg("--config").arg(self.members[number].config()).arg("-");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn founding(&self) -> FoundingToken {
        FoundingToken::parse(&self.token).unwrap()
    }

    /// What a thief makes of the founding token: the token by which others have joined, to be shown to a member.
    #[track_caller]
    fn stolen(&self, member: usize) -> TokenText {
        let ordinary = wait_until_done("a token", || self.local(member, &["token", "create"]));
        let ordinary = TokenText::parse(&ordinary).unwrap();
        self.founding().join_token(ordinary.authority, ordinary.endpoints)
    }
}

#[test]
fn three_members_found_a_cluster_from_any_order_of_starts_and_the_token_is_spent() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut machines = Machines::three();
        let began = Instant::now();
        machines.start(&order);
        machines.are_voters(&[0, 1, 2]);
        assert!(began.elapsed() < LIMIT, "{order:?}");
        let tokens = machines.json(0, &["token", "list"]).unwrap();
        assert_eq!(tokens[0]["uses_left"], 0, "{tokens:#}");
        let status = machines.json(1, &["status"]).unwrap();
        assert_eq!(status["transport"], "require", "{status:#}");
        for member in &machines.members {
            let output = member.output();
            assert!(!output.contains(machines.token.trim()), "{output}");
            assert!(!output.contains("InProgress"), "{output}");
        }
        // Nobody else founds one by hand, and nobody is told of a problem.
        assert_eq!(status["problems"].as_array().unwrap().len(), 0, "{status:#}");
    }
}

#[test]
fn a_late_one_is_waited_for_by_name_and_nobody_founds_by_hand_meanwhile() {
    let mut machines = Machines::three();
    machines.members[0].start();
    machines.members[1].start();
    let third = machines.members[2].peer().to_string();
    let waits = format!("waits for {third} (does not answer: connection refused");
    machines.waits(0, &[&waits, "before it founds the cluster"]);
    machines.waits(1, &["which founds the cluster once all initial members answer", &third]);
    let refused = machines.local(1, &["cluster", "bootstrap"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("found one by hand take initial_members"), "{}", refused.stderr);
    let log = machines.members[0].output();
    assert_eq!(log.matches(&waits).count(), 1, "{log}");
    machines.members[2].start();
    machines.are_voters(&[0, 1, 2]);
    assert_eq!(get(machines.members[0].http(), "/readyz").unwrap().status, 200);
}

#[test]
fn another_token_or_other_names_in_one_file_found_nothing_and_are_told_on_both_sides() {
    let mut machines = Machines::three();
    std::fs::write(&machines.files[2], founding_token()).unwrap();
    machines.start(&[0, 1, 2]);
    let third = machines.members[2].peer().to_string();
    let first = machines.members[0].peer().to_string();
    let other = "has another founding token than this member";
    machines.waits(0, &[&format!("{third} ({other}")]);
    machines.waits(2, &[&format!("{first} ({other}")]);
    // Half of a file.
    std::fs::write(&machines.files[2], &machines.token[..30]).unwrap();
    machines.waits(2, &["the checksum of its founding token does not match"]);
    machines.waits(0, &[&format!("{third} (has no founding token")]);
    // The token is right now, and the names are not.
    let config = machines.members[2].config();
    let right = std::fs::read_to_string(&config).unwrap();
    let own = format!("initial_members = [\"{third}\"");
    let at = right.find("initial_members = [").unwrap();
    let end = at + right[at..].find(']').unwrap();
    machines.members[2].kill();
    std::fs::write(&machines.files[2], &machines.token).unwrap();
    std::fs::write(&config, format!("{}{own}, \"{first}\"{}", &right[..at], &right[end..])).unwrap();
    machines.members[2].start();
    let lists = format!("has other initial_members, [{third}, {first}], than this member, [{first}, ");
    machines.waits(0, &[&lists]);
    machines.waits(2, &["has other initial_members", &format!("than this member, [{third}, {first}]")]);
    machines.members[2].kill();
    std::fs::write(&config, right).unwrap();
    machines.members[2].start();
    machines.are_voters(&[0, 1, 2]);
}

#[test]
fn a_lost_disk_founds_no_second_cluster_and_the_member_comes_back_as_it_says() {
    let mut machines = Machines::founded();
    let cluster = machines.cluster(1).unwrap();
    // The first one, while another one is down as well: there is no quorum.
    machines.members[2].kill();
    machines.lose(0);
    machines.waits(0, &[&format!("cluster {cluster}")]);
    // And while all others are: it cannot know.
    machines.members[1].kill();
    machines.waits(0, &["before it founds the cluster", "does not answer"]);
    machines.members[1].start();
    machines.members[2].start();
    let says = ["trestle member remove", "trestle token create", "trestled join"];
    machines.waits(0, &[&[cluster.as_str()], &says[..]].concat());

    wait_until_done("the removal", || machines.local(1, &["member", "remove", "m1"]));
    let token = wait_until_done("a token", || machines.local(1, &["token", "create"]));
    machines.members[0].stop();
    machines.join(0, &token).expect_success();
    machines.members[0].start();
    assert_eq!(machines.are_voters(&[0, 1, 2]), cluster);

    // Two at once, the first one among them: the last member has no quorum, and nobody founds.
    machines.members[1].kill();
    machines.members[1].wipe();
    machines.lose(0);
    machines.members[1].start();
    machines.waits(0, &[&cluster]);
    machines.waits(1, &[&cluster]);
}

#[test]
fn with_a_use_left_a_lost_disk_is_told_of_its_old_name_and_comes_back_by_that_use() {
    // The fourth is refused for its timing, so its use stays.
    let mut machines = Machines::new(&["", "", "", "profile = \"wide\"\n"]);
    machines.start(&[0, 1, 2, 3]);
    let cluster = machines.are_voters(&[0, 1, 2]);
    machines.waits(3, &[&cluster, "start it with the same profile"]);
    assert_eq!(machines.json(0, &["token", "list"]).unwrap()[0]["uses_left"], 1);
    machines.lose(0);
    machines.waits(0, &[&cluster, "\"trestle member remove m1\" lets it join anew"]);
    wait_until_done("the removal", || machines.local(1, &["member", "remove", "m1"]));
    assert_eq!(machines.are_voters(&[0, 1, 2]), cluster);
    // Whoever has stolen the file has nothing by it now.
    let stolen = machines.stolen(1).id.to_string();
    let tokens = machines.json(1, &["token", "list"]).unwrap();
    let uses = tokens.as_array().unwrap().iter().find(|token| token["id"] == stolen.as_str());
    assert!(uses.is_none_or(|token| token["uses_left"] == 0), "{tokens:#}");
}

#[test]
fn a_stolen_token_is_worth_nothing_after_the_founding_and_strangers_learn_nothing_before() {
    let mut machines = Machines::three();
    machines.members[0].start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |machines: &Machines, question: DescribeFoundingRequest| {
        let at = format!("http://{}", machines.members[0].peer());
        runtime.block_on(async {
            PeerServiceClient::connect(at).await.unwrap().describe_founding(question).await
        })
    };
    // Who has no token learns that there is one. No other call is answered without TLS.
    let strange = DescribeFoundingRequest { nonce: vec![1; 32], proof: vec![2; 32], ..Default::default() };
    let told = ask(&machines, strange.clone()).unwrap().into_inner();
    assert_eq!(told.state(), FoundingState::OtherToken);
    assert!(
        told.peer_address.is_empty() && told.initial_members.is_empty() && told.proof.is_empty(),
        "{told:?}"
    );
    let short = ask(&machines, DescribeFoundingRequest::default()).unwrap_err();
    assert_eq!(short.code(), tonic::Code::InvalidArgument, "{short}");
    let at = format!("http://{}", machines.members[0].peer());
    let plain = runtime.block_on(async {
        PeerServiceClient::connect(at).await.unwrap().describe(DescribeRequest {}).await.unwrap_err()
    });
    assert_eq!(plain.code(), tonic::Code::Unauthenticated, "{plain}");

    machines.members[1].start();
    machines.members[2].start();
    let cluster = machines.are_voters(&[0, 1, 2]);
    let told = ask(&machines, strange).unwrap().into_inner();
    assert!(told.state() == FoundingState::OtherToken && told.cluster_id.is_empty(), "{told:?}");
    // The thief has all that an initial member has.
    let token = machines.founding();
    let own = "192.0.2.1:7481";
    let nonce = vec![3; 32];
    let proof = token.proof(FoundingSide::Question, &[&nonce, own.as_bytes()]).to_vec();
    let question =
        DescribeFoundingRequest { nonce, peer_address: own.to_owned(), initial_members: Vec::new(), proof };
    let told = ask(&machines, question).unwrap().into_inner();
    assert_eq!((told.state(), told.cluster_id.as_str()), (FoundingState::InCluster, cluster.as_str()));
    let stolen = machines.stolen(0);
    assert_eq!(told.authority, stolen.authority.0);
    let text = stolen.to_text();
    let thief = Machines::new(&[""]);
    let refused = thief.join(0, text.expose());
    assert_eq!(refused.code, Some(77), "{}", refused.stderr);
    // It was forgotten when another one was made.
    assert!(refused.stderr.contains("or it was used up"), "{}", refused.stderr);
    // The file itself is no token to join by.
    let refused = thief.join(0, &machines.token);
    assert_eq!(refused.code, Some(65), "{}", refused.stderr);
}

#[test]
fn whenever_all_are_killed_while_they_found_there_is_one_cluster_in_the_end() {
    for round in 0..20_u64 {
        let mut machines = Machines::three();
        machines.start(&[0, 1, 2]);
        // From before the first question to after the last vote, in steps that no two rounds share.
        std::thread::sleep(Duration::from_millis(300 + round * 150));
        machines.members.iter_mut().for_each(Member::kill);
        let before: Vec<_> =
            machines.members.iter().map(|member| member.data_dir().join("identity").exists()).collect();
        machines.start(&[2, 0, 1]);
        let cluster = machines.are_voters(&[0, 1, 2]);
        println!("round {round}: had identities {before:?}, cluster {cluster}");
    }
}

#[test]
fn a_founding_that_was_interrupted_goes_on_after_a_restart() {
    let mut machines = Machines::three();
    // It gets as far as an identity: where the authority's key is to go there is a file.
    let data = machines.members[0].data_dir();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("ca"), "").unwrap();
    machines.start(&[0, 1, 2]);
    wait_for("the failure", LIMIT, || {
        let log = machines.members[0].output();
        if log.contains("does not get the cluster founded yet") { Ok(()) } else { Err(log) }
    });
    assert!(data.join("identity").exists());
    machines.waits(1, &["which knows too little yet of its cluster"]);
    machines.members[0].kill();
    std::fs::remove_file(data.join("ca")).unwrap();
    machines.members[0].start();
    machines.are_voters(&[0, 1, 2]);
}

#[test]
fn a_single_initial_member_founds_at_once_without_a_token_for_others() {
    let mut machines = Machines::new(&[""]);
    machines.members[0].start();
    machines.are_voters(&[0]);
    assert_eq!(machines.json(0, &["token", "list"]).unwrap().as_array().unwrap().len(), 0);
    // A restart founds nothing.
    let cluster = machines.cluster(0).unwrap();
    machines.members[0].kill();
    machines.members[0].start();
    assert_eq!(machines.are_voters(&[0]), cluster);
}

/// What compose gives each service of the shipped file as its environment.
fn composed() -> Vec<Vec<(String, String)>> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/compose-host.yaml")).unwrap();
    let mut services: Vec<Vec<(String, String)>> = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("environment:") {
            // The others have what the first one has, and then their own.
            let shared = services.first().cloned().unwrap_or_default();
            services.push(shared);
        }
        let set = line.trim().split_once(": ").filter(|(name, _)| name.starts_with("TRESTLE_"));
        if let (Some(own), Some((name, value))) = (services.last_mut(), set) {
            own.retain(|(known, _)| known != name);
            own.push((name.to_owned(), value.to_owned()));
        }
    }
    services
}

#[test]
fn the_shipped_compose_file_for_the_hosts_addresses_founds_a_cluster_of_its_three_members() {
    let services = composed();
    assert_eq!(services.len(), 3);
    for (number, environment) in services.iter().enumerate() {
        let mut command = Command::new(trestled());
        command.env_clear().envs(environment.iter().cloned()).arg("--check-config");
        let shown = finish(&mut command).expect_success();
        for part in [
            format!("name = \"m{}\"", number + 1),
            format!("advertise_peer_address = \"127.0.0.{}:7481\"", number + 1),
            "initial_members = [\"127.0.0.1:7481\", \"127.0.0.2:7481\", \"127.0.0.3:7481\"]".to_owned(),
            "founding_token_file = \"/founding/token\"".to_owned(),
            "insecure = false".to_owned(),
        ] {
            assert!(shown.contains(&part), "no {part} in {shown}");
        }
    }
}
