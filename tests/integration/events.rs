//! What happens on members is told, in their logs and by `trestle events`.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::Value;
use trestle_api::v1::event_service_client::EventServiceClient;
use trestle_api::v1::{ListEventsRequest, Verdict, WatchEventsRequest};
use trestle_testkit::{Cluster, Member, Origin, wait_for, wait_until};

use crate::{trestle, trestled};

/// Long enough for what members find out within seconds, on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a line of this level with these words in a member's log, `times` times in all, and never one of another level.
fn logged(member: &Member, level: &str, words: &str, times: usize) {
    wait_for(&format!("{level} {words:?} in the log of {}", member.name), LIMIT, || {
        let output = member.output();
        let lines: Vec<_> = output.lines().filter(|line| line.contains(words)).collect();
        let wrong = lines.iter().find(|line| !line.contains(&format!(" {level} ")));
        assert!(wrong.is_none(), "not of level {level}: {wrong:?}");
        if lines.len() == times { Ok(()) } else { Err(output.clone()) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_has_its_level_in_the_log_once_and_so_has_its_end() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let mut origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let leader = cluster.leader().await;
    let api = cluster.api(leader);
    api.create_pool("web", Some(Duration::from_millis(100))).await.unwrap();
    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.verdict("web", |_| true, Verdict::Healthy).await;

    at_most_16_are_told(cluster.members[leader].admin()).await;
    origin.stop();
    for member in &cluster.members {
        logged(member, "WARN", "backend web/a is unhealthy: connection refused", 1);
        logged(member, "ERROR", "pool web has no usable backend: the only one in use is unhealthy", 1);
    }
    let _again = Origin::start(origin.address(), "origin");
    for member in &cluster.members {
        logged(member, "INFO", "backend web/a is healthy: connected", 1);
        logged(member, "INFO", "pool web has a usable backend again", 1);
    }

    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let (one, gone) = (others[0], format!("member {} ", cluster.members[others[0]].name));
    cluster.members[one].kill();
    logged(&cluster.members[leader], "WARN", &format!("{gone}has not answered for "), 1);
    cluster.members[one].start();
    logged(&cluster.members[leader], "WARN", &format!("{gone}answers again after "), 1);

    for number in &others {
        cluster.members[*number].kill();
    }
    logged(&cluster.members[leader], "ERROR", "no quorum for ", 1);
    // Nor do events need one.
    let listed = trestle(&cluster.members[leader].admin().to_string(), &["events"]).expect_success();
    assert!(listed.lines().any(|line| line.contains("error     no quorum for ")), "{listed}");
    for number in &others {
        cluster.members[*number].start();
    }
    logged(&cluster.members[leader], "INFO", "there is a quorum again after ", 1);
}

/// One client more is told so, until another one has gone.
async fn at_most_16_are_told(admin: SocketAddr) {
    let mut client = EventServiceClient::connect(format!("http://{admin}")).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(client.watch_events(WatchEventsRequest::default()).await.unwrap());
    }
    let refused = client.list_events(ListEventsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("tells 16 clients its events already"), "{refused}");
    drop(streams.pop());
    wait_until("the place of the one that has gone", LIMIT, async || {
        client.list_events(ListEventsRequest::default()).await.map(drop)
    })
    .await;
}

/// `trestle events -f -o json` as it runs, with what it printed so far.
struct Follower {
    process: trestle_testkit::Process,
    _dir: tempfile::TempDir,
}

impl Follower {
    fn start(endpoints: &str, since: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trestle"));
        command.args(["events", "-f", "-o", "json", "--endpoint", endpoints]);
        if !since.is_empty() {
            command.args(["--since", since]);
        }
        let log = dir.path().join("events.log");
        Self { process: trestle_testkit::Process::spawn("trestle events", &mut command, &log), _dir: dir }
    }

    /// The events so far.
    fn events(&self) -> Vec<Value> {
        let output = self.process.output();
        output
            .lines()
            // Notes on standard error are documents too.
            .filter(|line| line.starts_with('{') && !line.starts_with("{\"note\":"))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits for an event of this kind about these words; answers it.
    fn sees(&self, kind: &str, words: &str) -> Value {
        wait_for(&format!("{kind} {words:?}"), LIMIT, || {
            let events = self.events();
            let found = events.iter().find(|event| event["event"] == kind && text(event).contains(words));
            found.cloned().ok_or_else(|| self.process.output())
        })
    }
}

fn text(event: &Value) -> &str {
    event["text"].as_str().unwrap()
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_all_members_are_told_once_each_also_when_the_member_that_tells_them_dies() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let mut origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    // A member that does not lead tells them, until it dies.
    let (teller, witness) = (others[0], others[1]);
    let endpoints = [teller, witness].map(|number| cluster.members[number].admin().to_string()).join(",");
    let follower = Follower::start(&endpoints, "");
    // Nothing of before, and what began after: the stream is there once it is told.
    let api = cluster.api(witness);
    let mut number = 0;
    wait_for("the stream", LIMIT, || {
        number += 1;
        let name = format!("first{number}");
        let at = cluster.members[witness].admin().to_string();
        trestle(&at, &["pool", "create", &name]).expect_success();
        std::thread::sleep(Duration::from_millis(300));
        if follower.events().is_empty() { Err(follower.process.output()) } else { Ok(()) }
    });
    assert!(
        follower.events().iter().all(|event| event["event"] == "configuration"),
        "{:?}",
        follower.events()
    );

    let at = cluster.members[witness].admin().to_string();
    trestle(&at, &["pool", "create", "web", "--health-interval", "100ms", "--request-id", "mine"])
        .expect_success();
    let created = follower.sees("configuration", "pool web created");
    assert_eq!(created["member"], cluster.members[witness].name.as_str(), "{created}");
    assert_eq!(created["detail"]["request_id"], "mine", "{created}");
    assert!(created["detail"]["client"].as_str().is_some_and(|ip| ip.starts_with("127.")), "{created}");
    assert!(text(&created).contains(", asked for by 127."), "{created}");

    api.create_backend("web", "a", origin.address()).await.unwrap();
    api.verdict("web", |_| true, Verdict::Healthy).await;
    origin.stop();
    wait_for("the verdicts of all members", LIMIT, || {
        let seen = |event: &&Value| event["event"] == "backend-down";
        let members: BTreeSet<String> =
            follower.events().iter().filter(seen).map(|event| event["member"].to_string()).collect();
        if members.len() == 3 { Ok(()) } else { Err(format!("{members:?}")) }
    });
    follower.sees("pool-down", "pool web has no usable backend");

    // What the others knew is told on by the next member, and what happens meanwhile.
    cluster.members[teller].kill();
    let gone = cluster.members[teller].name.clone();
    follower.sees("member-unreachable", &format!("member {gone} has not answered"));
    api.create_pool("later", None).await.unwrap();
    follower.sees("configuration", "pool later created");
    assert!(follower.process.output().contains("following on"), "{}", follower.process.output());
    let events = follower.events();
    let once: BTreeSet<_> = ids(&events).into_iter().collect();
    assert_eq!(once.len(), events.len(), "told twice: {:?}", ids(&events));

    all_are_listed(&at, &gone, &events);
    // Whoever begins in the past is told of that and not of what was before.
    let since = created["time"].as_str().unwrap();
    let again = Follower::start(&at, since);
    again.sees("configuration", "pool later created");
    assert!(
        again.events().iter().all(|event| event["time"].as_str().unwrap() >= since),
        "{:?}",
        again.events()
    );
}

/// What was followed is listed too, with what was before, in the order of time; `gone` does not answer.
fn all_are_listed(at: &str, gone: &str, followed: &[Value]) {
    let listed = trestle(at, &["events", "-o", "json"]);
    assert!(listed.stderr.contains(&format!("{gone} does not answer")), "{}", listed.stderr);
    let listed: Vec<Value> = serde_json::from_str(&listed.expect_success()).unwrap();
    let times: Vec<_> = listed.iter().map(|event| event["time"].as_str().unwrap().to_owned()).collect();
    assert!(times.is_sorted(), "{times:?}");
    for (kind, words) in [
        ("member-joined", "joined as number"),
        ("member-promoted", "is a voter now"),
        ("leader", "leads in term"),
        ("configuration", "backend web/a created"),
    ] {
        assert!(listed.iter().any(|e| e["event"] == kind && text(e).contains(words)), "{kind}: {listed:?}");
    }
    let of_follower: BTreeSet<_> = ids(followed).into_iter().filter(|id| !id.starts_with(gone)).collect();
    let of_list: BTreeSet<_> = ids(&listed).into_iter().collect();
    assert!(of_follower.is_subset(&of_list), "{:?}", of_follower.difference(&of_list).collect::<Vec<_>>());
}

/// What `trestle events` lists of one kind, in words.
fn listed(at: &str, kind: &str) -> Vec<Value> {
    let listed = trestle(at, &["events", "-o", "json"]).expect_success();
    let events: Vec<Value> = serde_json::from_str(&listed).unwrap();
    events.into_iter().filter(|event| event["event"] == kind).collect()
}

fn says(events: &[Value], words: &str) -> Value {
    let found = events.iter().find(|event| text(event).contains(words));
    found.cloned().unwrap_or_else(|| panic!("{words:?} is not in {events:#?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_operators_or_names_make_down_is_told_as_one_whose_checks_fail() {
    let cluster = Cluster::start(trestled(), 1).await;
    let (member, at) = (&cluster.members[0], cluster.endpoints());
    let run = |args: &[&str]| trestle(&at, args).expect_success();
    run(&["pool", "create", "named", "--health", "none"]);
    run(&["backend", "add", "named/a", "nowhere.invalid:80"]);
    logged(member, "WARN", "backend named/a has no address: name nowhere.invalid: ", 1);
    let words = "pool named has no usable backend: the name of the only one in use has no address; no listener leads to it";
    logged(member, "ERROR", words, 1);

    let origin = Origin::start((cluster.subnet.ip(11), 0), "origin");
    run(&["pool", "create", "web", "--health-interval", "100ms"]);
    run(&["backend", "add", "web/a", &origin.address().to_string()]);
    run(&["backend", "add", "web/b", &origin.address().to_string()]);
    run(&["listener", "create", "front", "--bind", ":8080", "--pool", "web", "--wait"]);
    cluster.api(0).verdict("web", |_| true, Verdict::Healthy).await;
    run(&["backend", "drain", "web/a"]);
    run(&["backend", "update", "web/b", "--weight", "0", "--wait"]);
    let words = "pool web is down: all of its backends (2) are drained or disabled or have weight 0; new connections are reset";
    logged(member, "ERROR", words, 1);
    run(&["backend", "enable", "web/a"]);
    logged(member, "INFO", "pool web has a usable backend again", 1);
    run(&["pool", "update", "web", "--minimum-healthy", "2"]);
    let words = "pool web is down: 1 of 1 backends in use are left, fewer than its minimum_healthy (2); new connections are reset";
    logged(member, "ERROR", words, 1);
    assert_eq!(says(&listed(&at, "pool-down"), words)["detail"]["pool"], "web");
    run(&["backend", "update", "web/b", "--weight", "1"]);
    logged(member, "INFO", "pool web has a usable backend again", 2);
    // One that is deleted, or that nothing leads to, is not told as down.
    run(&["pool", "create", "later"]);
    run(&["listener", "delete", "front", "--wait"]);
    run(&["pool", "delete", "web", "--wait"]);
    assert_eq!(listed(&at, "pool-down").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_without_its_socket_is_told_and_so_is_that_it_has_it() {
    let cluster = Cluster::start(trestled(), 1).await;
    let (member, at) = (&cluster.members[0], cluster.endpoints());
    let run = |args: &[&str]| trestle(&at, args).expect_success();
    run(&["pool", "create", "web", "--health", "none"]);
    let taken = TcpListener::bind((member.ip, 8090)).unwrap();
    run(&["listener", "create", "late", "--bind", ":8090", "--pool", "web"]);
    let words = format!(
        "listener late is not bound to {}:8090: address already in use by another process",
        member.ip
    );
    logged(member, "ERROR", &words, 1);
    drop(taken);
    logged(member, "INFO", "listener late is bound to all its addresses now", 1);
    let unbound = says(&listed(&at, "listener-unbound"), &words);
    assert_eq!(unbound["detail"], serde_json::json!({"listener": "late", "bound": false}));
    assert_eq!(listed(&at, "listener-bound").len(), 1);
    // A drain closes sockets, and that is wanted.
    run(&["member", "drain", &member.name, "--wait", "--deadline", "1s"]);
    run(&["member", "enable", &member.name, "--wait"]);
    assert_eq!(listed(&at, "listener-unbound").len(), 1);
}

/// The dry run of the restore below.
fn names_what_it_would_change(told: &str) {
    for line in [
        "pools/web updated (health_check.interval, minimum_healthy)",
        "pools/web/backends/a updated (weight)",
        "pools/other deleted",
    ] {
        assert!(told.contains(&format!("\n  {line}\n")), "{line:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_changes_say_which_settings_changed_and_who_asked() {
    let mut cluster = Cluster::start(trestled(), 2).await;
    let new = cluster.prepare();
    cluster.members[new].start();
    let leader = cluster.leader().await;
    let follower = cluster.members[1 - leader].admin().to_string();
    let run = |args: &[&str]| trestle(&follower, args).expect_success();
    run(&["pool", "create", "web"]);
    run(&["backend", "add", "web/a", "10.0.0.1:80"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.json").display().to_string();
    run(&["backup", &file]);
    run(&["pool", "update", "web", "--minimum-healthy", "2", "--health-interval", "5s"]);
    run(&["backend", "update", "web/a", "--weight", "7"]);
    run(&["pool", "create", "other"]);
    let changes = listed(&follower, "configuration");
    let updated = says(&changes, "pool web updated (");
    assert!(
        text(&updated)
            .starts_with("pool web updated (health_check.interval, minimum_healthy), asked for by 127."),
        "{updated}"
    );
    let fields = serde_json::json!(["health_check.interval", "minimum_healthy"]);
    assert_eq!(updated["detail"]["changes"][0]["fields"], fields);
    says(&changes, "backend web/a updated (weight), asked for by 127.");
    run(&["backend", "drain", "web/a", "--deadline", "5m"]);
    run(&["backend", "enable", "web/a"]);
    let changes = listed(&follower, "configuration");
    says(&changes, "backend web/a draining (deadline 5m), asked for by 127.");
    says(&changes, "backend web/a enabled, asked for by 127.");

    names_what_it_would_change(&run(&["restore", &file, "--replace", "--dry-run"]));
    run(&["restore", &file, "--replace"]);
    let restored = says(&listed(&follower, "configuration"), "configuration restored: ");
    for words in [
        "pool web updated (health_check.interval, minimum_healthy)",
        "backend web/a updated (weight)",
        "pool other deleted",
        ", asked for by 127.",
    ] {
        assert!(text(&restored).contains(words), "{words:?}: {restored}");
    }
    assert_eq!(
        run(&["restore", &file, "--replace"]).split(" (rev").next(),
        Some("configuration is what the backup says already, unchanged")
    );

    // Members come and go by a call that is passed on to the leader.
    let (peer, name) = (cluster.members[new].peer().to_string(), cluster.members[new].name.clone());
    let told = format!("member {name} at {peer} would be added as learner (dry run)\n");
    assert_eq!(run(&["member", "add", &peer, "--dry-run"]), told);
    run(&["member", "add", &peer]);
    let told = format!("member {name} would be promoted to voter (dry run)\n");
    assert_eq!(run(&["member", "promote", &name, "--dry-run"]), told);
    run(&["member", "promote", &name]);
    let again = trestle(&follower, &["member", "add", &peer]);
    let told = format!(
        "error: member \"{name}\" is a voter already; \"trestle member add --if-absent\" takes that for done\n"
    );
    assert!(again.code == Some(1) && again.stderr.ends_with(&told), "{}", again.stderr);
    let dry = trestle(&follower, &["member", "remove", &name, "--dry-run"]);
    assert_eq!(dry.stdout, format!("member {name} would be removed (dry run)\n"));
    assert!(dry.stderr.contains("there would be 2 voters: "), "{}", dry.stderr);
    run(&["member", "remove", &name]);
    let joined = says(&listed(&follower, "member-joined"), &format!("member {name} joined as number "));
    let removed = says(&listed(&follower, "member-removed"), &format!("member {name} was removed"));
    for event in [joined, removed] {
        assert!(
            text(&event).contains(", asked for by 127.") && event["detail"]["client"].is_string(),
            "{event}"
        );
    }
}
