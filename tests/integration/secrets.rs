//! What a member reads from its own files stays there.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use trestle_testkit::{Cluster, get, wait_for};

use crate::{trestle, trestled};

/// Answers 204 to who knows the token, 401 to others.
async fn guarded(address: SocketAddr, token: &'static str) {
    let socket = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut head).await, Ok(1..)) {}
                let known = String::from_utf8_lossy(&head).contains(&format!("Bearer {token}\r\n"));
                let status = if known { "204 Yes" } else { "401 No" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_check_is_in_no_log_and_no_answer() {
    const TOKEN: &str = "pl4nted-t0ken";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let mut cluster =
        Cluster::start_with(trestled(), 1, &format!("check_directory = {:?}\n", dir.path())).await;
    cluster.members[0].stop();
    cluster.members[0].log("trace");
    cluster.members[0].start();
    let backend = SocketAddr::from((cluster.subnet.ip(20), 8080));
    guarded(backend, TOKEN).await;
    let endpoints = cluster.endpoints();
    let run = |arguments: &[&str]| trestle(&endpoints, arguments).expect_success();
    let path = file.to_str().unwrap();
    let mut shown = vec![
        run(&[
            "pool",
            "create",
            "p",
            "--health",
            "http",
            "--health-token-file",
            path,
            "--health-interval",
            "200ms",
        ]),
        run(&["backend", "add", "p/a", &backend.to_string()]),
    ];
    wait_for("the token opens the door", Duration::from_secs(30), || {
        let list = run(&["backend", "list", "p"]);
        if list.contains("healthy on 1/1") { Ok(()) } else { Err(list) }
    });
    for arguments in [
        &["pool", "get", "p", "-o", "json"][..],
        &["pool", "list", "-o", "yaml"],
        &["backend", "get", "p/a", "-o", "json"],
        &["status", "-o", "json"],
    ] {
        shown.push(run(arguments));
    }
    shown.push(get(cluster.members[0].http(), "/metrics").unwrap().body);
    // Told apart from a token that is shown: one that is wrong, and its refusal.
    std::fs::write(&file, format!("{TOKEN}\nand more")).unwrap();
    wait_for("a token that is none", Duration::from_secs(30), || {
        let list = run(&["backend", "get", "p/a"]);
        if list.contains("one line of printable ASCII") { Ok(()) } else { Err(list) }
    });
    shown.push(run(&["backend", "get", "p/a", "-o", "json"]));
    shown.push(cluster.members[0].output());
    let log = shown.last().unwrap();
    assert!(log.contains("TRACE"), "the log is not as long as it could be");
    for text in &shown {
        assert!(!text.contains(TOKEN), "the token is in: {}", &text[..text.len().min(2000)]);
    }

    let refused = trestle(
        &endpoints,
        &["pool", "create", "q", "--health", "http", "--health-header", "Authorization: x"],
    );
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("token_file"), "{}", refused.stderr);
}
