//! The access log of a data plane: what its lines say, and that nothing waits for who reads them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trestle_dataplane::{AccessLog, AccessLogFormat, CloseReason, DataPlaneSettings};
use trestle_model::{BackendSpec, MemberName, PoolSpec};

use crate::harness::*;

fn logging(file: &Path, format: AccessLogFormat) -> DataPlaneSettings {
    let member = MemberName::parse("m1").unwrap();
    DataPlaneSettings {
        access_log: Some(AccessLog { format, file: Some(file.to_owned()), member }),
        ..settings()
    }
}

/// The lines of a file once there are `count`, each split into its columns.
async fn lines(file: &Path, count: usize) -> Vec<Vec<String>> {
    let read = || std::fs::read_to_string(file).unwrap_or_default();
    until(&format!("{count} lines in {}", file.display()), || read().lines().count() >= count).await;
    read().lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn each_connection_gets_a_line_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let server = Server::start("a").await;
    let mut plane = Plane::with(logging(&file, AccessLogFormat::Text));
    let spec = PoolSpec { connect_retries: 1, ..unchecked() };
    plane.pool("works", spec.clone(), &[("a", at(server.address))]).await;
    plane.pool("refuses", spec.clone(), &[("a", at(free())), ("b", at(free()))]).await;
    plane.pool("empty", spec, &[]).await;
    let front = plane.listener("works", "works").await;

    let mut client = Client::connect(front).await.unwrap();
    assert!(client.works().await);
    let from = client.stream.local_addr().unwrap().to_string();
    client.finish().await;
    let mut closed = Client::connect(front).await.unwrap();
    assert_eq!(plane.plane.close_connections(&[plane.plane.connections()[0].id]), 1);
    assert!(closed.end().await.is_some());
    let refuses = plane.listener("refuses", "refuses").await;
    assert!(turned_away(refuses).await);
    let empty = plane.listener("empty", "empty").await;
    assert!(turned_away(empty).await);

    let all = lines(&file, 4).await;
    assert!(all.iter().all(|line| line.len() == 15 && line[14] == "m1"), "{all:?}");
    let of = |reason: &str| all.iter().find(|line| line[13] == reason).unwrap();
    let (works, a) = (front.to_string(), server.address.to_string());
    let line = of("client_closed");
    assert_eq!(line[1..10], [&from, "works", &works, "works", "a", &a, "-", "4", "5"]);
    assert!(line[0].ends_with('Z') && line[0].len() == "2026-01-01T00:00:00.000Z".len(), "{line:?}");
    let [connect, duration] = [10, 11].map(|column| line[column].parse::<f64>().unwrap());
    assert!(connect <= duration, "{line:?}");
    assert_eq!(of("closed_by_operator")[2], "works");
    assert_eq!(
        of("connect_failed")[2..13],
        [
            "refuses",
            &refuses.to_string(),
            "refuses",
            "-",
            "-",
            "-",
            "0",
            "0",
            "-",
            &of("connect_failed")[11],
            "1"
        ]
    );
    assert_eq!(of("no_backend")[4], "-");
}

#[tokio::test]
async fn everything_is_written_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let server = Server::start("a").await;
    let mut plane = Plane::with(logging(&file, AccessLogFormat::Json));
    plane.pool("p", unchecked(), &[("a", at(server.address))]).await;
    let front = plane.listener("l", "p").await;
    servers(front, 20).await;
    let open = Client::connect(front).await.unwrap();
    assert_eq!(plane.plane.finish(Duration::from_millis(10)).await, 1);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"reason\":\"client_closed\"")).count(), 20);
    assert_eq!(text.lines().filter(|line| line.contains("\"reason\":\"member_shutdown\"")).count(), 1);
    drop(open);
}

fn pipe(dir: &Path) -> PathBuf {
    let path = dir.join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Connections that are turned away, so that many of them cost little.
async fn many(plane: &mut Plane, count: u64) {
    plane.pool("p", unchecked(), &[]).await;
    let front = plane.listener("l", "p").await;
    for _ in 0..count {
        assert!(turned_away(front).await);
    }
    plane.until_closed("l", CloseReason::NoBackend, count).await;
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = pipe(dir.path());
    let mut plane = Plane::with(logging(&path, AccessLogFormat::Text));
    // More lines than wait for the thread that writes, which waits for a reader.
    many(&mut plane, 17_000).await;
    let dropped = plane.plane.access_log_dropped();
    assert!((1..17_000).contains(&dropped), "{dropped} dropped");

    // Once there is one, the log goes on, and says what is missing.
    let reader = std::thread::spawn(move || {
        let reader = BufReader::new(std::fs::File::open(path).unwrap());
        let found = reader.lines().map(Result::unwrap).find(|line| line.starts_with('#'));
        found.unwrap()
    });
    let note = tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
    assert!(note.contains(&format!(" m1: {dropped} lines were dropped")), "{note}");

    // The reader is gone: lines are dropped, and connections go on.
    let more = async {
        while plane.plane.access_log_dropped() == dropped {
            assert!(
                turned_away(plane.plane.table().listeners[&listener_name("l")].bound().next().unwrap()).await
            );
        }
    };
    soon("lines without a reader are dropped", more).await;
}

#[tokio::test]
async fn a_stopped_member_does_not_wait_for_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("a").await;
    let mut plane = Plane::with(logging(&pipe(dir.path()), AccessLogFormat::Text));
    plane.pool("p", unchecked(), &[("a", BackendSpec { weight: 1, ..at(server.address) })]).await;
    let front = plane.listener("l", "p").await;
    servers(front, 3).await;
    assert_eq!(soon("the end", plane.plane.finish(Duration::from_secs(1))).await, 0);
}

#[tokio::test]
async fn a_renamed_file_is_left_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (file, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let mut plane = Plane::with(logging(&file, AccessLogFormat::Text));
    many(&mut plane, 3).await;
    assert_eq!(lines(&file, 3).await.len(), 3);
    std::fs::rename(&file, &moved).unwrap();
    plane.plane.reopen_access_log();
    until("the new file is there before it is needed", || file.exists()).await;
    let front = plane.plane.table().listeners[&listener_name("l")].bound().next().unwrap();
    assert!(turned_away(front).await);
    assert_eq!(lines(&file, 1).await.len(), 1);
    assert_eq!(lines(&moved, 3).await.len(), 3);
}
