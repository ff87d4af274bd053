//! The admin API over a member's UNIX socket: local root, roles of other users, and who asked for what.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::transport::Endpoint;
use tonic::{Code, Streaming};
use trestle_api::peer::ProposeRequest;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::storage;
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::{
    BootstrapClusterRequest, GetClusterStatusRequest, WatchClusterRequest, WatchClusterResponse,
};
use trestle_testkit::{Cluster, Member, Subnet, has_tools, is_root, skip, wait_for};

use crate::{Finished, finish, trestled};

const LIMIT: Duration = Duration::from_secs(20);
/// How long local root may have to wait on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(5);

const VIEWER: &str = "1000";
const STRANGER: &str = "1003";
/// The group of operators; their user is nobody in particular.
const OPERATORS: &str = "2000";
const OPERATOR: &str = "1001";
const ROLES: &str = "socket_roles = [\"uid:1000=viewer\", \"gid:2000=operator\"]\n";

/// Whether processes can be run as other users here.
fn can_be_others() -> bool {
    if !is_root() {
        skip("other users can be had by root only");
        return false;
    }
    has_tools(&["setpriv"])
}

fn endpoint(member: &Member) -> String {
    format!("unix:{}", member.admin_socket().display())
}

/// The command line over a member's socket, as this user.
fn local(member: &Member, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trestle"));
    // A founder's context goes to the member's own files.
    command.env("XDG_CONFIG_HOME", member.admin_socket().parent().unwrap());
    finish(command.env("TRESTLE_ENDPOINT", endpoint(member)).args(arguments))
}

/// The same as another user, in this further group.
fn local_as(member: &Member, (user, group): (&str, &str), arguments: &[&str]) -> Finished {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}"), format!("--groups={group}")]);
    command.arg(env!("CARGO_BIN_EXE_trestle")).args(arguments);
    finish(command.env("TRESTLE_ENDPOINT", endpoint(member)))
}

/// Lets other users find the socket: the directory of a test is its own user's alone.
fn open_directory(member: &Member) {
    let directory = member.admin_socket().parent().unwrap().to_owned();
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
}

#[track_caller]
fn refused(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code, Some(1), "{}{}", finished.stdout, finished.stderr);
    for words in words {
        assert!(finished.stderr.contains(words), "no {words:?} in {}", finished.stderr);
    }
}

async fn alone(more: &str) -> (Member, Subnet) {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), more);
    member.start();
    local(&member, &["cluster", "bootstrap"]).expect_success();
    open_directory(&member);
    (member, subnet)
}

fn mode(path: &Path) -> u32 {
    let found = std::fs::symlink_metadata(path).unwrap();
    assert!(found.file_type().is_socket());
    found.permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_there_while_its_process_is_and_what_a_dead_one_left_is_replaced() {
    let (mut member, subnet) = alone("").await;
    let socket = member.admin_socket();
    assert_eq!(mode(&socket), 0o660);
    local(&member, &["pool", "create", "web", "--wait"]).expect_success();

    let mut second = Member::new(trestled(), "m2", subnet.ip(2), "");
    let text = std::fs::read_to_string(second.config()).unwrap();
    let theirs = second.admin_socket().display().to_string();
    std::fs::write(second.config(), text.replace(&theirs, &socket.display().to_string())).unwrap();
    second.spawn();
    let status = second.exited();
    let output = second.output();
    assert_eq!(status.code(), Some(69), "{output}");
    assert!(output.contains("another process listens on it") && output.contains("admin_socket"), "{output}");

    member.kill();
    assert!(socket.exists());
    let nobody = local(&member, &["status"]);
    refused(&nobody, &[&format!("{}: connection refused", endpoint(&member))]);
    member.start();
    wait_for("the list over the new socket", LIMIT, || {
        let listed = local(&member, &["pool", "list"]);
        if listed.stdout.contains("web") { Ok(()) } else { Err(listed.stderr) }
    });
    assert_eq!(member.stop().code(), Some(0), "{}", member.output());
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_path_switches_it_off() {
    let subnet = Subnet::claim();
    let mut member = Member::new(trestled(), "m1", subnet.ip(1), "");
    let text = std::fs::read_to_string(member.config()).unwrap();
    let own = member.admin_socket().display().to_string();
    std::fs::write(member.config(), text.replace(&own, "")).unwrap();
    member.start();
    assert!(!member.admin_socket().exists());
    member.api().status().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_may_do_what_its_role_says_and_others_are_told_what_to_do() {
    if !can_be_others() {
        return;
    }
    let (member, _subnet) = alone(ROLES).await;
    assert_eq!(mode(&member.admin_socket()), 0o666);
    let viewer = |arguments: &[&str]| local_as(&member, (VIEWER, "7"), arguments);
    let operator = |arguments: &[&str]| local_as(&member, (OPERATOR, OPERATORS), arguments);
    local(&member, &["pool", "create", "root"]).expect_success();
    assert!(viewer(&["pool", "list"]).expect_success().contains("root"));
    refused(
        &viewer(&["pool", "create", "web"]),
        &["uid 1000 (viewer) may not create pools", "role operator"],
    );

    operator(&["pool", "create", "web"]).expect_success();
    operator(&["backend", "add", "web/a", "10.0.0.1:80"]).expect_success();
    operator(&["pool", "update", "web", "--health", "http", "--health-path", "/readyz"]).expect_success();
    let sends =
        ["pool", "update", "web", "--health", "exchange", "--health-send", "PING", "--health-expect", "+"];
    refused(&operator(&sends), &["uid 1001 (operator)", "pool.health_check.exchange", "role admin"]);
    let token = ["pool", "update", "web", "--health-token-file", "/etc/trestle/checks/token"];
    refused(&operator(&token), &["pool.health_check.http.token_file"]);
    local(&member, &token).expect_success();
    // What an admin has set stays while an operator changes the rest.
    operator(&["pool", "update", "web", "--health-path", "/healthz"]).expect_success();
    refused(&operator(&["pool", "update", "web", "--health", "tcp"]), &["token_file"]);
    refused(&operator(&["member", "remove", "m1"]), &["may not delete", "role admin"]);
    refused(&operator(&["vip", "create", "10.99.0.9/32", "--interface", "lo"]), &["role admin"]);

    let stranger = local_as(&member, (STRANGER, "7"), &["status"]);
    refused(&stranger, &["uid 1003 has no role on this member", "socket_roles", "uid:1003=operator"]);
    refused(&local_as(&member, ("65534", OPERATORS), &["status"]), &["uid 65534", "user namespace"]);
    let json = local_as(&member, (STRANGER, "7"), &["pool", "list", "-o", "json"]);
    let error: Value = serde_json::from_str(json.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "PERMISSION_DENIED", "{error}");
    for _ in 0..20 {
        local_as(&member, (STRANGER, "7"), &["pool", "list"]);
    }
    let output = member.output();
    let lines: Vec<_> = output.lines().filter(|line| line.contains("trestle::audit")).collect();
    let of_stranger = lines.iter().filter(|line| line.contains("uid 1003")).count();
    assert!((1..=2).contains(&of_stranger), "one a minute: {lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("uid 1000 (viewer)") && line.contains("CreatePool")),
        "{lines:#?}"
    );
}

/// Streams that keep a connection each busy, from addresses of their own, until no more are let in.
async fn crowd(subnet: &Subnet, member: &Member) -> Vec<Streaming<WatchClusterResponse>> {
    let mut streams = Vec::new();
    for host in 20..220 {
        let endpoint = Endpoint::from_shared(format!("http://{}", member.admin())).unwrap();
        let endpoint = endpoint.local_address(Some(subnet.ip(host).into())).timeout(ANSWER_MAX);
        let Ok(channel) = endpoint.connect().await else { break };
        match ClusterServiceClient::new(channel).watch_cluster(WatchClusterRequest::default()).await {
            Ok(stream) => streams.push(stream.into_inner()),
            Err(_) => break,
        }
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_the_admin_port_takes_no_place_from_local_root() {
    let subnet = Subnet::claim();
    let dir = tempfile::tempdir().unwrap();
    let limited = dir.path().join("trestled");
    let script = format!("#!/bin/sh\nulimit -n 600\nexec {} \"$@\"\n", trestled().display());
    std::fs::write(&limited, script).unwrap();
    std::fs::set_permissions(&limited, PermissionsExt::from_mode(0o755)).unwrap();
    let mut member = Member::new(&limited, "m1", subnet.ip(1), "");
    member.start();
    member.api().cluster().bootstrap_cluster(BootstrapClusterRequest::default()).await.unwrap();
    let streams = crowd(&subnet, &member).await;
    assert!(streams.len() > 20, "{}", streams.len());
    let over_tcp =
        member.api().cluster().get_cluster_status(GetClusterStatusRequest { local_only: true }).await;
    assert!(over_tcp.is_err(), "the port is not full: {} streams", streams.len());
    for _ in 0..3 {
        let begun = Instant::now();
        local(&member, &["status"]).expect_success();
        local(&member, &["pool", "list"]).expect_success();
        assert!(begun.elapsed() < ANSWER_MAX, "{:?}", begun.elapsed());
    }
}

/// Who asked for the newest change of this pool, as a member tells it: in words, and for programs.
fn who(member: &Member, pool: &str) -> (String, String) {
    let listed = local(member, &["events", "-o", "json"]).expect_success();
    let events: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let about = format!("pool {pool} created");
    let found = events.iter().rev().find(|event| event["text"].as_str().unwrap().starts_with(&about));
    let event = found.unwrap_or_else(|| panic!("{about}: {events:#?}"));
    let text = event["text"].as_str().unwrap().split_once(", asked for by ").unwrap().1;
    (text.to_owned(), event["detail"]["actor"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_passed_on_has_its_callers_name_and_rights() {
    if !can_be_others() {
        return;
    }
    let mut cluster = Cluster::start_with(trestled(), 3, ROLES).await;
    cluster.members.iter().for_each(open_directory);
    let leader = cluster.leader().await;
    let follower = &cluster.members[(leader + 1) % 3];
    let operator = |arguments: &[&str]| local_as(follower, (OPERATOR, OPERATORS), arguments);
    operator(&["pool", "create", "by-operator"]).expect_success();
    local(follower, &["pool", "create", "by-root"]).expect_success();
    crate::trestle(&follower.admin().to_string(), &["pool", "create", "by-address", "--wait"])
        .expect_success();
    let address = follower.ip.to_string();
    for member in &cluster.members {
        for (pool, wanted) in [("by-operator", "uid 1001 (operator)"), ("by-root", "local root")] {
            assert_eq!(who(member, pool), (wanted.to_owned(), wanted.to_owned()), "{}", member.name);
        }
        let (text, actor) = who(member, "by-address");
        assert!(text == actor && text.starts_with("127."), "{text} {actor} {address}");
    }
    refused(&operator(&["vip", "create", "10.99.0.9/32", "--interface", "lo"]), &["role admin"]);
    refused(&operator(&["member", "remove", "m1"]), &["may not delete", "role admin"]);
    let viewer = local_as(follower, (VIEWER, "7"), &["leader", "transfer"]);
    refused(&viewer, &["uid 1000 (viewer) may not move"]);

    // The leader goes by the caller, whatever the member that passes it on has let through.
    let status = cluster.agreed().await;
    let leader = cluster.leader().await;
    let channel = Endpoint::from_shared(format!("http://{}", cluster.members[leader].peer())).unwrap();
    let mut peer = PeerServiceClient::new(channel.connect().await.unwrap());
    let user = storage::LocalUser { uid: 1000, role: storage::Role::Viewer.into() };
    let actor = storage::Actor { kind: Some(storage::actor::Kind::LocalUser(user)) };
    let drain = storage::DrainMember { name: "m1".to_owned(), draining: true, ..Default::default() };
    let proposal = |actor| storage::Proposal {
        command: Some(storage::proposal::Command::DrainMember(drain.clone())),
        origin: Some(storage::Origin { member_id: 2, actor: Some(actor), ..Default::default() }),
        ..Default::default()
    };
    let request = |actor| ProposeRequest {
        cluster_id: status.cluster_id.clone(),
        proposal: Some(proposal(actor)),
        ..Default::default()
    };
    let denied = peer.propose(request(actor)).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    assert!(denied.message().contains("uid 1000 (viewer) may not drain"), "{denied}");
    let unknown = peer.propose(request(storage::Actor::default())).await.unwrap_err();
    assert_eq!(unknown.code(), Code::PermissionDenied, "{unknown}");

    operator_moves_leadership(&mut cluster).await;
}

/// What only the leader can do is passed on for those who may ask for it.
async fn operator_moves_leadership(cluster: &mut Cluster) {
    let before = cluster.leader().await;
    let follower = &cluster.members[(before + 1) % 3];
    local_as(follower, (OPERATOR, OPERATORS), &["leader", "transfer"]).expect_success();
    assert_ne!(cluster.leader().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_member_itself_the_command_needs_no_option() {
    if !is_root() {
        return skip("a directory /run of its own takes root");
    }
    if !has_tools(&["unshare", "nsenter", "mount"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let apart = dir.path().join("trestled");
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"' {} \"$@\"\n",
        trestled().display()
    );
    std::fs::write(&apart, script).unwrap();
    std::fs::set_permissions(&apart, PermissionsExt::from_mode(0o755)).unwrap();
    let subnet = Subnet::claim();
    let mut member = Member::new(&apart, "m1", subnet.ip(1), "");
    let text = std::fs::read_to_string(member.config()).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("admin_socket")).collect();
    std::fs::write(member.config(), without.join("\n")).unwrap();
    member.start();
    let id = member.process().id().to_string();
    let trestle = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &id, env!("CARGO_BIN_EXE_trestle")]).args(arguments);
        finish(command.env("XDG_CONFIG_HOME", dir.path()).env_remove("TRESTLE_ENDPOINT"))
    };
    trestle(&["cluster", "bootstrap"]).expect_success();
    assert!(trestle(&["status"]).expect_success().contains("m1"));
}
