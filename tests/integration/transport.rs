//! Members among one another over TLS, by the keys that the cluster knows, and what all others get at their ports.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Status};
use trestle_api::peer;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_api::transport::{ChannelOptions, PeerDial, PeerWay, Transport};
use trestle_identity::tls::{PeerTls, ServerLeaf};
use trestle_identity::{
    AuthenticatedMember, CertificateFacts, CertificateRequest, PeerTrust, PrivateKey, SpiffeId, from_pem,
};
use trestle_testkit::{Cluster, Member, wait_for};

use crate::{Finished, finish, trestle, trestled};

const LIMIT: Duration = Duration::from_secs(90);

/// As the user that the member runs as, over its admin socket.
fn local(member: &Member, arguments: &[&str]) -> Finished {
    trestle(&format!("unix:{}", member.admin_socket().display()), arguments)
}

/// A file of one context, of a new admin.
fn admin(member: &Member, name: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("context.toml");
    let out = file.to_str().unwrap();
    local(member, &["user", "create", name, "--role", "admin", "--out", out]).expect_success();
    (home, file)
}

fn with(context: &std::path::Path, arguments: &[&str]) -> Finished {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trestle"));
    command.env_remove("TRESTLE_ENDPOINT").env_remove("TRESTLE_CONTEXT");
    finish(command.arg("--context").arg(context).args(arguments))
}

/// Three members that require TLS, and the file of an admin's context.
async fn secure() -> (Cluster, tempfile::TempDir, PathBuf) {
    let cluster = Cluster::start(trestled(), 3).await;
    local(&cluster.members[0], &["cluster", "secure", "--prepare"]).expect_success();
    for member in &cluster.members {
        local(member, &["member", "enroll"]).expect_success();
    }
    let (home, context) = admin(&cluster.members[0], "ann");
    // The members themselves speak TLS by now; whoever else does not is cut off.
    wait_for("nothing plain among the members", LIMIT, || {
        let done = local(&cluster.members[0], &["cluster", "secure", "--enforce", "--yes"]);
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    });
    for member in &cluster.members {
        let file = member.data_dir().join("tls").join("ca.crt");
        wait_for("the authorities that a member keeps", LIMIT, || {
            if file.exists() { Ok(()) } else { Err(format!("no {}", file.display())) }
        });
    }
    (cluster, home, context)
}

/// What a connection to the peer port is made with.
#[derive(Debug)]
struct Guest {
    own: Option<ServerLeaf>,
    trust: PeerTrust,
}

impl PeerDial for Guest {
    fn way(&self, _: &str) -> PeerWay {
        PeerWay::Tls(Box::new(PeerTls::new(self.own.clone(), self.trust.clone(), None)))
    }

    fn is_secure(&self, _: &str) -> bool {
        true
    }

    fn note_reached(&self, _: &AuthenticatedMember) {}
}

/// What a member shows, by its files.
fn leaf(member: &Member) -> ServerLeaf {
    let read = |name| std::fs::read_to_string(member.data_dir().join("tls").join(name)).unwrap();
    let key = PrivateKey::from_pem(&read("member.key")).unwrap();
    ServerLeaf::new(&from_pem(&read("member.crt")).unwrap()[0], &key).unwrap()
}

/// A connection to the peer port of `to`, of whoever shows `own`.
fn guest(to: &Member, own: Option<ServerLeaf>) -> Channel {
    let authorities = std::fs::read_to_string(to.data_dir().join("tls").join("ca.crt")).unwrap();
    let name = SpiffeId::parse(&leaf(to).facts().uris[0]).unwrap();
    let trust = PeerTrust::by_authorities(name.cluster, &from_pem(&authorities).unwrap());
    let transport = Transport::member(Arc::new(Guest { own, trust }));
    transport.dialer(&to.peer().to_string(), &ChannelOptions::default()).unwrap().connect_lazy()
}

fn to(cluster: &str, member_id: u64) -> Option<peer::Destination> {
    Some(peer::Destination { cluster_id: cluster.to_owned(), member_id, ..Default::default() })
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_tls_is_required_members_go_on_and_the_others_are_told_why_not() {
    let (mut cluster, _home, context) = secure().await;
    let endpoints = cluster.endpoints();
    let refused = trestle(&endpoints, &["pool", "list"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("without TLS"), "{}", refused.stderr);
    let plain = Transport::plain();
    let peers = plain.dialer(&cluster.members[0].peer().to_string(), &ChannelOptions::default()).unwrap();
    let refused = PeerServiceClient::new(peers.connect_lazy()).describe(peer::DescribeRequest {}).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("its peer port without"), "{refused}");

    with(&context, &["pool", "create", "one"]).expect_success();
    // Elections and forwarded writes by TLS.
    let leader = usize::from(local(&cluster.members[0], &["status"]).expect_success().contains("m1 leads"));
    let killed = if leader == 1 { 0 } else { 1 };
    cluster.members[killed].kill();
    for (at, member) in cluster.members.iter().enumerate().filter(|(at, _)| *at != killed) {
        wait_for("a write without a member", LIMIT, || {
            let done = local(member, &["pool", "create", &format!("two-{at}"), "--if-absent"]);
            if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
        });
    }
    // Nobody is there from whose log a member could learn whom to believe.
    for member in cluster.members.iter_mut().enumerate().filter(|(at, _)| *at != killed) {
        member.1.kill();
    }
    for member in &mut cluster.members {
        member.start();
    }
    wait_for("a write after all have restarted", LIMIT, || {
        let done = with(&context, &["pool", "create", "three", "--if-absent"]);
        if done.code == Some(0) { Ok(()) } else { Err(done.stderr) }
    });
    wait_for("every member to answer the others", LIMIT, || {
        let status = with(&context, &["status", "-o", "json"]).expect_success();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let members = status["members"].as_array().unwrap();
        match members.iter().find(|member| member["reachable"] != true) {
            None => Ok(()),
            Some(silent) => Err(silent.to_string()),
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_of_the_peer_port_gets_what_it_may() {
    let (cluster, _home, context) = secure().await;
    let [first, second, third] = &cluster.members[..] else { panic!("three members") };
    let own = SpiffeId::parse(&leaf(first).facts().uris[0]).unwrap().cluster.to_string();
    let report = || peer::ReportRequest { to: to(&own, 1), ..Default::default() };
    let issue = || {
        let user = peer::UserSubject { name: "mallory".to_owned(), lifetime: None };
        let subject = Some(peer::issue_certificate_request::Subject::User(user));
        let certificate_request = CertificateRequest::make(&PrivateKey::generate().unwrap()).unwrap();
        peer::IssueCertificateRequest { to: to(&own, 1), certificate_request, subject }
    };
    let append = peer::AppendEntriesRequest { to: to(&own, 1), ..Default::default() };

    // Somebody without a certificate learns which cluster it is.
    let stranger = guest(first, None);
    let mut service = PeerServiceClient::new(stranger.clone());
    let said = service.describe(peer::DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!((said.cluster_id.as_str(), said.name.as_str(), said.member_id), (own.as_str(), "", 0));
    assert_eq!(code(service.report(report()).await), Code::PermissionDenied);
    assert_eq!(code(service.issue_certificate(issue()).await), Code::PermissionDenied);
    assert_eq!(code(service.propose(peer::ProposeRequest::default()).await), Code::PermissionDenied);
    assert_eq!(code(service.adopt(peer::AdoptRequest::default()).await), Code::PermissionDenied);
    let appended = RaftServiceClient::new(stranger).append_entries(append).await;
    assert_eq!(code(appended), Code::PermissionDenied);

    // A member, which is nobody else.
    let mut member = PeerServiceClient::new(guest(first, Some(leaf(second))));
    assert_eq!(member.describe(peer::DescribeRequest {}).await.unwrap().into_inner().name, "m1");
    member.report(report()).await.unwrap();
    let other = peer::RegisterStartRequest { cluster_id: own.clone(), member_id: 1, ..Default::default() };
    let refused = member.register_start(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("in the name of member 1"), "{refused}");

    // A user is no member.
    let text = std::fs::read_to_string(&context).unwrap();
    let certificate = from_pem(&text).unwrap().remove(0);
    let begin = text.find("-----BEGIN PRIVATE KEY").unwrap();
    let end = text.find("-----END PRIVATE KEY-----").unwrap() + "-----END PRIVATE KEY-----".len();
    let key = PrivateKey::from_pem(&format!("{}\n", &text[begin..end])).unwrap();
    assert!(CertificateFacts::read(&certificate).unwrap().uris[0].contains("/user/ann"));
    let user = ServerLeaf::new(&certificate, &key).unwrap();
    let refused = PeerServiceClient::new(guest(first, Some(user))).describe(peer::DescribeRequest {}).await;
    assert_eq!(code(refused), Code::Unavailable);

    // A member that was removed: what it has open ends, and it may no more than ask whether that is so.
    let mut gone = PeerServiceClient::new(guest(first, Some(leaf(third))));
    let wait = peer::AwaitRevisionRequest {
        to: to(&own, 1),
        revision: u64::MAX,
        timeout: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
    };
    let waiting = tokio::spawn(async move { gone.await_revision(wait).await.map(drop) });
    with(&context, &["member", "remove", "m3"]).expect_success();
    let ended = tokio::time::timeout(LIMIT, waiting).await.expect("it stays open").unwrap();
    assert_ne!(code(ended), Code::Ok);
    let mut service = PeerServiceClient::new(guest(first, Some(leaf(third))));
    let refused = service.report(report()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("was removed from this cluster"), "{refused}");
    // It has heard of it, from those who know.
    wait_for("the removed member's own word", LIMIT, || {
        let said = local(third, &["status"]);
        let told = format!("{}{}", said.stdout, said.stderr);
        if told.contains("was removed") { Ok(()) } else { Err(told) }
    });
}
