//! A part of a member dies: the member gives up what others can take over, ends what it serves in order, and can be started
//! again.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use trestle_api::v1::ListPoolsRequest;

use crate::shutdown::{ask, ends_in_order, serving};
use crate::trestled;

const LIMIT: Duration = Duration::from_secs(60);

/// The daemon, with writes beyond a limit on the size of files as errors instead of signals (setrlimit(2)).
fn limitable(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("trestled");
    let script = format!("#!/bin/sh\ntrap '' XFSZ\nexec {} \"$@\"\n", trestled().display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_cannot_be_written_lets_connections_finish_and_can_be_started_again() {
    let dir = TempDir::with_prefix("trestle-limitable-").unwrap();
    let (mut cluster, _origin) = serving(limitable(&dir), 1).await;
    let api = cluster.api(0);
    let member = &mut cluster.members[0];
    let target = SocketAddr::from((member.ip, 8080));
    let mut open = TcpStream::connect(target).unwrap();
    open.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(ask(&mut open).unwrap().contains("origin"));

    // As a full disk does: nothing can be added any more.
    let process = member.process().id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &process, "--fsize=16384"]).status().unwrap();
    assert!(limited.success());
    let mut written = 0;
    while api.create_pool(&format!("pool-{written}"), None).await.is_ok() {
        written += 1;
        assert!(written < 5000, "the log goes on");
    }
    let status = ends_in_order(member, target, open, LIMIT);
    assert_eq!(status.code(), Some(74), "{}", member.output());
    assert!(member.output().contains("this member cannot go on"), "{}", member.output());

    member.start();
    cluster.leader().await;
    // A linearizable read has all that was acknowledged; a status has what was applied so far.
    let request = ListPoolsRequest { page_size: 1000, ..Default::default() };
    let there = cluster.api(0).pools().list_pools(request).await.unwrap().into_inner().pools.len();
    assert!(there > written, "{there} of {written} are there, and one that was made before");
    let mut again = TcpStream::connect(target).unwrap();
    assert!(ask(&mut again).unwrap().contains("origin"));
}
