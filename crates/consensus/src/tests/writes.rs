//! Writes and reads through any member.

use std::collections::BTreeSet;
use std::sync::Arc;

use trestle_api::status::Failure;
use trestle_model::{
    Bind, CheckKind, Cidr, ClientIdentity, Command, HttpCheck, ListenerName, ListenerSpec, NamePattern,
    Outcome, PoolName, PoolSpec, Proposal, Request as Named, Route, StatusRange, TlsCheck, defaults,
};

use super::cluster::{Cluster, create_pool, delete_pool, named, proposal};
use crate::store::PROPOSAL_MAX;
use crate::{DEFAULT_WAIT, Error};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_takes_writes_and_answers_reads() {
    let cluster = Cluster::of(3).await;
    let mut revisions = BTreeSet::new();
    for (at, name) in [(0, "a"), (1, "b"), (2, "c")] {
        let accepted = cluster.at(at).propose(proposal(create_pool(name)), DEFAULT_WAIT).await.unwrap();
        assert!(matches!(accepted.outcome, Outcome::Pool(_, 0)), "{accepted:?}");
        revisions.insert(accepted.revision);
        for reader in 0..3 {
            let view = cluster.at(reader).read(DEFAULT_WAIT).await.unwrap();
            assert!(view.state.pools.contains_key(&PoolName::parse(name).unwrap()), "{name} at {reader}");
            assert!(view.state.revision >= accepted.revision);
        }
    }
    assert_eq!(revisions.len(), 3);
    cluster.converged(&[0, 1, 2]).await;
    let status = cluster.at(cluster.leader().await).status();
    assert_eq!((status.voters.len(), status.learners.len(), status.matched.len()), (3, 0, 2));
    assert!(status.last_quorum_ack.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_the_same_from_every_member() {
    let cluster = Cluster::of(3).await;
    cluster.at(0).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    for at in 0..3 {
        let refused = cluster.at(at).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap_err();
        assert_eq!(refused.to_status().code(), tonic::Code::AlreadyExists, "at {at}: {refused}");
        assert!(refused.to_string().contains("pool \"a\" exists already"), "at {at}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_certain_to_be_refused_takes_no_entry() {
    let cluster = Cluster::of(3).await;
    cluster.at(0).propose(proposal(create_pool("a")), DEFAULT_WAIT).await.unwrap();
    let first = cluster.at(1).propose(named("once", create_pool("b")), DEFAULT_WAIT).await.unwrap();
    let leader = cluster.leader().await;
    let last = cluster.at(leader).status().last_log_index;
    for at in [0, 1, 2, leader] {
        for _ in 0..20 {
            let refused = cluster.at(at).propose(proposal(create_pool("a")), DEFAULT_WAIT).await;
            assert!(matches!(refused, Err(Error::Refused(_) | Error::Relayed(_))), "{refused:?}");
            let refused = cluster.at(at).propose(named("x", delete_pool("missing")), DEFAULT_WAIT).await;
            assert!(refused.unwrap_err().to_string().contains("\"missing\" does not exist"));
            let other = Named { fingerprint: 9, ..named("once", create_pool("c")).request.unwrap() };
            let other = Proposal { origin: None, request: Some(other), ..proposal(create_pool("c")) };
            let refused = cluster.at(at).propose(other, DEFAULT_WAIT).await.unwrap_err();
            assert!(refused.to_string().contains("was used for a different request"), "{refused}");
            let again = cluster.at(at).propose(named("once", create_pool("b")), DEFAULT_WAIT).await;
            assert_eq!(again.unwrap(), first);
        }
    }
    assert_eq!(cluster.leader().await, leader, "a change of leaders writes entries of its own");
    assert_eq!(cluster.at(leader).status().last_log_index, last);
}

/// Names are created and deleted by many at once: each answer must be one that the order in the log allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_without_an_entry_is_as_right_as_one_from_the_log() {
    let cluster = Cluster::of(3).await;
    let work = (0..4).map(|name| {
        let cluster = &cluster;
        async move {
            let name = format!("p{name}");
            for round in 0..40 {
                let at = round % 3;
                // Each write comes after the answer to the one before it, through another member.
                let write = |command| cluster.at(at).propose(proposal(command), DEFAULT_WAIT);
                write(create_pool(&name)).await.unwrap();
                assert!(write(create_pool(&name)).await.is_err());
                write(delete_pool(&name)).await.unwrap();
                assert!(write(delete_pool(&name)).await.is_err());
            }
        }
    });
    futures_util::future::join_all(work).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_applied_once_whoever_forwards_it() {
    let cluster = Cluster::of(3).await;
    let mut answers = Vec::new();
    for at in [0, 1, 2, 1] {
        answers.push(cluster.at(at).propose(named("once", create_pool("a")), DEFAULT_WAIT).await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    cluster.at(2).propose(proposal(delete_pool("a")), DEFAULT_WAIT).await.unwrap();
    // Applied again it would create the pool again.
    assert_eq!(
        cluster.at(1).propose(named("once", create_pool("a")), DEFAULT_WAIT).await.unwrap(),
        answers[0]
    );
    cluster.converged(&[0, 1, 2]).await;
    assert!(cluster.pools(0).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_the_log_would_not_take_is_refused_before_it_is_proposed() {
    let cluster = Cluster::of(1).await;
    let binds = vec![Bind::parse("10.0.0.1:1").unwrap(); PROPOSAL_MAX / 12];
    let spec = ListenerSpec::new(binds, PoolName::parse("a").unwrap());
    let refused = refusal(&cluster, Command::create((listener("l"), spec))).await;
    let most = format!(
        "the most that the log takes is {PROPOSAL_MAX}; give fewer or shorter settings, or split it up"
    );
    assert!(refused.ends_with(&most), "{refused}");
}

fn listener(name: &str) -> ListenerName {
    ListenerName::parse(name).unwrap()
}

async fn refusal(cluster: &Cluster, command: Command) -> String {
    let refused = cluster.at(0).propose(proposal(command), DEFAULT_WAIT).await.unwrap_err();
    assert!(matches!(refused, Error::Failed(Failure::TooLarge { .. })), "{refused}");
    refused.to_string()
}

/// A check with all texts as long as they may be.
fn largest_check() -> CheckKind {
    let file =
        |letter: &str| -> Arc<str> { format!("/{}", letter.repeat(defaults::CHECK_FILE_MAX - 1)).into() };
    let label = "a".repeat(63);
    let pem = "-----BEGIN CERTIFICATE-----";
    let tls = TlsCheck {
        ca: Some(format!("{pem}{}", "x".repeat(defaults::CHECK_CA_MAX - pem.len())).into()),
        server_name: Some([&label[..], &label, &label, &label[..61]].join(".").into()),
        min_days_left: defaults::CHECK_DAYS_MAX,
        identity: Some(ClientIdentity { certificate_file: file("c"), key_file: file("k") }),
    };
    let expect = (0..defaults::CHECK_RANGES_MAX).map(|n| format!("{}-599", 100 + n));
    let mut check = HttpCheck {
        tls: Some(tls),
        path: format!("/{}", "p".repeat(defaults::CHECK_TEXT_MAX - 1)).into(),
        host: Some("a.example".into()),
        body_contains: Some("b".repeat(defaults::CHECK_TEXT_MAX).into()),
        expect: expect.map(|range| StatusRange::parse(&range).unwrap()).collect(),
        ..HttpCheck::default()
    };
    check.headers = (0..defaults::CHECK_HEADERS_MAX)
        .map(|n| (format!("x-{n}").into(), "v".repeat(defaults::CHECK_TEXT_MAX).into()))
        .collect();
    CheckKind::Http(check)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_settings_fit_into_an_entry() {
    let cluster = Cluster::of(1).await;
    let propose = |command| cluster.at(0).propose(proposal(command), DEFAULT_WAIT);
    let pool = PoolName::parse(&"p".repeat(63)).unwrap();
    let mut spec = PoolSpec::default();
    spec.health.kind = largest_check();
    propose(Command::create((pool.clone(), spec))).await.unwrap();
    // All addresses, networks and routes of a listener that there may be fit together.
    let binds: Vec<Bind> = (0..defaults::BINDS_MAX)
        .map(|n| Bind::parse(&format!("[2001:db8::{n:x}]:30000-30511")).unwrap())
        .collect();
    assert_eq!(binds.iter().map(|bind| bind.ports()).sum::<usize>(), defaults::LISTENER_PORTS_MAX);
    let networks = || -> Vec<Cidr> {
        let network = |n| Cidr::parse(&format!("2001:db8:1111:2222:3333:4444:5555:{n:x}/128")).unwrap();
        (0x1000..).take(defaults::NETWORKS_MAX).map(network).collect()
    };
    let name = NamePattern::parse(&format!("{}.example", ["n"; 60].join("."))).unwrap();
    let route =
        Route { server_names: vec![name; defaults::ROUTE_NAMES_MAX], alpn: Vec::new(), pool: pool.clone() };
    let spec = ListenerSpec {
        allow: networks(),
        deny: networks(),
        accept_proxy_from: networks(),
        routes: vec![route; defaults::ROUTES_MAX],
        ..ListenerSpec::new(binds, pool)
    };
    propose(Command::create((listener("l"), spec))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_on_every_member_see_each_change_once() {
    const WRITES: usize = 200;
    let cluster = Cluster::of(3).await;
    let from = cluster.at(0).read(DEFAULT_WAIT).await.unwrap().state.revision + 1;
    let watch = |at: usize| {
        let mut subscription = cluster.at(at).history().subscribe(from).unwrap();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < WRITES {
                seen.push(subscription.next().await.unwrap().revision);
            }
            seen
        })
    };
    let early = [watch(0), watch(1), watch(2)];
    let mut written = Vec::new();
    for i in 0..WRITES {
        let accepted =
            cluster.at(i % 3).propose(proposal(create_pool(&format!("p{i}"))), DEFAULT_WAIT).await.unwrap();
        written.push(accepted.revision);
    }
    let late = [watch(0), watch(1), watch(2)];
    for seen in early.into_iter().chain(late) {
        assert_eq!(seen.await.unwrap(), written);
    }
}
