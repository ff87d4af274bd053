//! `--wait`: a listener that is bound or is not and why, drains that are waited for to their end, and what their lists say.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trestle_testkit::{Cluster, Origin, Process, wait_for};

use crate::shutdown::{ask, serve};
use crate::{trestle, trestled};

const LIMIT: Duration = Duration::from_secs(30);

/// The command, running.
fn begin(dir: &TempDir, name: &str, endpoints: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
    Process::spawn(
        "trestle",
        command.env("TRESTLE_ENDPOINT", endpoints).args(arguments),
        &dir.path().join(name),
    )
}

/// Waits until the command has said something.
fn said(process: &Process, words: &str) {
    wait_for(words, LIMIT, || if process.output().contains(words) { Ok(()) } else { Err(process.output()) });
}

/// What the command said, without which member had the revision in force first.
fn lines(output: &str) -> Vec<&str> {
    output.lines().filter(|line| !line.ends_with("in force")).collect()
}

fn connect(target: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(target).unwrap();
    assert!(ask(&mut stream).unwrap().contains("origin"));
    stream
}

/// A cluster that leads port 8080 to an origin, with two connections through each member.
async fn busy(size: u8) -> (Cluster, Origin, Vec<TcpStream>) {
    let mut cluster = Cluster::start(trestled(), size).await;
    let origin = serve(&mut cluster).await;
    let targets = cluster.members.iter().flat_map(|member| [(member.ip, 8080); 2]);
    let open = targets.map(|target| connect(target.into())).collect();
    (cluster, origin, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_is_waited_for_until_it_is_bound_everywhere() {
    let cluster = Cluster::start(trestled(), 2).await;
    let (endpoints, [one, two]) = (cluster.endpoints(), [0, 1].map(|number| cluster.members[number].ip));
    trestle(&endpoints, &["pool", "create", "web", "--health", "none"]).expect_success();
    let taken = TcpListener::bind((two, 8080)).unwrap();
    let create = ["listener", "create", "front", "--bind", "0.0.0.0:8080", "--pool", "web", "--wait"];
    let done = trestle(&endpoints, &[&["--timeout", "1s"], &create[..]].concat());
    assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.starts_with("listener front created (revision "), "{}", done.stdout);
    assert_eq!(
        lines(&done.stderr),
        [
            format!("m1: bound at {one}:8080"),
            format!(
                "m2: not bound: {two}:8080: address already in use by another process; stop that process or choose another \
                 address or port"
            ),
            "error: listener front is not bound on m2; see \"trestle listener get front\"".to_owned(),
        ]
    );

    // It waits for what another program still has for a moment.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            drop(taken);
        });
        let done = trestle(&endpoints, &["listener", "update", "front", "--accept-rate", "100", "--wait"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(
            lines(&done.stderr).contains(&format!("m2: bound at {two}:8080").as_str()),
            "{}",
            done.stderr
        );
    });

    // Nobody wants it on a member that is drained.
    trestle(&endpoints, &["member", "drain", "m2", "--wait"]).expect_success();
    let create = ["listener", "create", "late", "--bind", "0.0.0.0:8081", "--pool", "web", "--wait"];
    let done = trestle(&endpoints, &create);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let last = ["m1: bound at ", "m2: not bound while the member is drained"];
    assert_eq!(lines(&done.stderr), [format!("{}{one}:8081", last[0]), last[1].to_owned()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_of_a_backend_is_waited_for_until_no_connection_is_left() {
    let (cluster, _origin, mut open) = busy(2).await;
    let (endpoints, dir) = (cluster.endpoints(), TempDir::new().unwrap());
    let drain = ["--timeout", "1s", "backend", "drain", "web/a", "--wait"];
    let row = |words: &str| {
        let list = trestle(&endpoints, &["backend", "list", "web"]).expect_success();
        assert!(list.contains(words), "{list}");
    };
    // Ctrl-C leaves it in force.
    let mut waiting = begin(&dir, "interrupted", &endpoints, &drain);
    said(&waiting, "web/a: 4 connections are left\n");
    waiting.interrupt();
    assert_eq!(waiting.exited(LIMIT).code(), Some(1), "{}", waiting.output());
    let words =
        "error: interrupted: backend web/a goes on draining; \"trestle backend enable web/a\" ends that\n";
    assert!(waiting.output().ends_with(words), "{}", waiting.output());
    row("   draining, 4 open   ");

    // It takes as long as the connections do, whatever --timeout says.
    let mut waiting = begin(&dir, "waiting", &endpoints, &drain);
    said(&waiting, "web/a: 4 connections are left\n");
    open.drain(..3);
    said(&waiting, "web/a: 1 connection is left\n");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(waiting.status(), None, "{}", waiting.output());
    drop(open);
    assert_eq!(waiting.exited(LIMIT).code(), Some(0), "{}", waiting.output());
    assert!(waiting.output().ends_with("web/a: no connection is left\n"), "{}", waiting.output());
    row("   drained   ");

    // Somebody else ends it.
    trestle(&endpoints, &["backend", "enable", "web/a", "--wait"]).expect_success();
    let _open = connect((cluster.members[0].ip, 8080).into());
    let mut waiting = begin(&dir, "ended", &endpoints, &drain);
    said(&waiting, "web/a: 1 connection is left\n");
    trestle(&endpoints, &["backend", "enable", "web/a"]).expect_success();
    assert_eq!(waiting.exited(LIMIT).code(), Some(1), "{}", waiting.output());
    let words =
        "error: backend web/a is not draining any more: it was enabled, disabled or removed meanwhile\n";
    assert!(waiting.output().ends_with(words), "{}", waiting.output());
}

/// The seconds of each line that begins with `words`: rounded down, and one less where the first look took long.
fn seconds_told(output: &str, words: &str) -> Vec<u64> {
    let seconds = |line: &str| line.strip_prefix(words)?.strip_suffix('s')?.parse().ok();
    output.lines().filter_map(seconds).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_shows_how_much_time_is_left_and_its_deadline_ends_it() {
    let (cluster, _origin, mut open) = busy(2).await;
    let (endpoints, dir) = (cluster.endpoints(), TempDir::new().unwrap());
    let shown = |list: &[&str], words: &str| {
        wait_for(words, LIMIT, || {
            let list = trestle(&endpoints, list).expect_success();
            if list.contains(words) && list.contains("s left   ") { Ok(()) } else { Err(list) }
        });
    };
    // A member's drain ends what is open on it, and nothing elsewhere.
    let began = Instant::now();
    let drain = ["--timeout", "1s", "member", "drain", "m2", "--deadline", "5s", "--wait"];
    let mut waiting = begin(&dir, "member", &endpoints, &drain);
    shown(&["member", "list"], "draining, 2 open, ");
    assert_eq!(waiting.exited(LIMIT).code(), Some(0), "{}", waiting.output());
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}: {}", began.elapsed(), waiting.output());
    let output = waiting.output();
    assert!(
        matches!(seconds_told(&output, "m2: 2 connections are left, closed in ")[..], [3 | 4]),
        "{output}"
    );
    assert!(output.ends_with("m2: no connection is left\n"), "{output}");
    let ended = |stream: &mut TcpStream| !matches!(stream.read(&mut [0; 1]), Ok(1..));
    assert!(open.iter_mut().skip(2).all(ended));
    assert!(open.iter_mut().take(2).all(|stream| ask(stream).unwrap().contains("origin")));

    // Another deadline counts from when the drain began.
    trestle(&endpoints, &["member", "enable", "m2", "--wait"]).expect_success();
    wait_for("m2 to take connections again", LIMIT, || {
        TcpStream::connect((cluster.members[1].ip, 8080)).map(drop)
    });
    let _open = connect((cluster.members[1].ip, 8080).into());
    let done = trestle(&endpoints, &["member", "drain", "m2", "--deadline", "5m"]);
    let words = "1 connection is left there: see \"trestle connection list --member m2\"; end the drain with \"trestle member \
                 enable m2\"\n";
    assert!(done.stderr.ends_with(words), "{}", done.stderr);
    shown(&["member", "list"], "draining, 1 open, 4m");
    trestle(&endpoints, &["member", "drain", "m2", "--deadline", "1s", "--wait"]).expect_success();

    let mut waiting =
        begin(&dir, "backend", &endpoints, &["backend", "drain", "web/a", "--deadline", "4s", "--wait"]);
    shown(&["backend", "list", "web"], "draining, 2 open, ");
    assert_eq!(waiting.exited(LIMIT).code(), Some(0), "{}", waiting.output());
    let output = waiting.output();
    assert!(
        matches!(seconds_told(&output, "web/a: 2 connections are left, closed in ")[..], [2 | 3]),
        "{output}"
    );
    assert!(output.ends_with("web/a: no connection is left\n"), "{output}");
    let refused = trestle(&endpoints, &["member", "drain", "m1", "--deadline", "8days"]);
    assert_eq!(refused.stderr, "error: drain_timeout \"691200s\": must be 1ms to 604800s\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_cannot_be_says_the_one_reason() {
    let mut cluster = Cluster::start_with(trestled(), 3, "profile = \"wide\"\n").await;
    let learner = cluster.prepare();
    cluster.members[learner].start();
    let endpoints = cluster.endpoints();
    let peer = cluster.members[learner].peer().to_string();
    trestle(&endpoints, &["member", "add", &peer]).expect_success();
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    let [drained, dead] = [others[0], others[1]].map(|number| cluster.members[number].name.clone());
    trestle(&endpoints, &["member", "drain", &drained, "--wait"]).expect_success();
    cluster.members[others[1]].kill();
    let refusal = |arguments: &[&str]| {
        let done = trestle(&endpoints, arguments);
        assert_eq!(done.code, Some(1), "{}{}", done.stdout, done.stderr);
        done.stderr
    };
    let enable = format!("is drained: end that with \"trestle member enable {drained}\"");
    for command in [["leader", "transfer"], ["vip", "move"]] {
        let to = |name: &str| refusal(&[&command[..], &["--to", name]].concat());
        assert_eq!(
            to(&drained),
            format!("error: member \"{drained}\" cannot take over: it {enable}, or name another member\n")
        );
        assert_eq!(
            to("m4"),
            "error: member \"m4\" cannot take over: it does not vote: promote it with \"trestle member promote m4\" first, or \
             name another member\n"
        );
        let silent = to(&dead);
        let words = format!("error: member \"{dead}\" cannot take over: it does not answer (");
        assert!(silent.starts_with(&words), "{silent}");
    }
    let nobody = refusal(&["leader", "transfer"]);
    assert!(nobody.starts_with("error: nobody can take over: "), "{nobody}");
    for words in
        [format!("{drained} {enable}"), format!("{dead} does not answer ("), "m4 does not vote: ".to_owned()]
    {
        assert!(nobody.contains(&words), "{words:?} is not in {nobody}");
    }
}
