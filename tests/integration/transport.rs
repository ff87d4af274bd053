//! Members among one another over TLS, by the keys that the cluster knows, and what all others get at their ports.

use tonic::Code;
use trestle_api::peer;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::peer::raft_service_client::RaftServiceClient;
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_identity::tls::ServerLeaf;
use trestle_identity::{CertificateFacts, CertificateRequest, PrivateKey, SpiffeId, from_pem};
use trestle_testkit::wait_for;

use crate::guests::{LIMIT, code, guest, leaf, local, secure, stranger, to, with};
use crate::trestle;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_certificate_has_one_small_call_and_little_time() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (cluster, _home, _context) = secure().await;
    let first = &cluster.members[0];
    let large = peer::JoinRequest { certificate_request: vec![0; 64 << 10], ..Default::default() };
    let refused = PeerServiceClient::new(guest(first, None)).join(large.clone()).await.unwrap_err();
    assert!(refused.message().contains("without a certificate has at most 16384 bytes"), "{refused}");
    // A member's may be as large as any.
    let own = Some(leaf(&cluster.members[1]));
    let other = PeerServiceClient::new(guest(first, own)).join(large).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument, "{other}");

    let begun = std::time::Instant::now();
    let mut stream = stranger(first).await;
    // The connection preface of HTTP/2, with SETTINGS that has none (RFC 9113 section 3.4).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    let ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await;
    let lived = begun.elapsed();
    assert!(ended.is_ok() && (5..30).contains(&lived.as_secs()), "{ended:?} after {lived:?}");
    // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 section 6.5.2).
    let settings = said[9..9 + usize::from(said[2])].chunks(6);
    let streams = settings.filter(|setting| setting[..2] == [0, 3]).map(|setting| setting[2..].to_vec());
    assert_eq!(streams.collect::<Vec<_>>(), [[0, 0, 0, 1]]);
}
