//! Input that breaks a rule: a clear error that names field, value and rule, and nothing is changed.

mod names;
mod values;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tonic::{Code, Status};
use trestle_api::v1::{
    Backend, CreateBackendRequest, CreateListenerRequest, CreatePoolRequest, Listener, Pool,
};
use trestle_testkit::{Api, Cluster};

use crate::trestled;

/// A refused call: what was tried, the answer, the code it must have, and what the message must say.
type Case = (String, Status, Code, Vec<String>);

fn case(what: impl Into<String>, answer: Result<(), Status>, code: Code, says: &[&str]) -> Case {
    let what = what.into();
    let status = answer.err().unwrap_or_else(|| Status::new(Code::Ok, "accepted"));
    (what, status, code, says.iter().map(|part| (*part).to_owned()).collect())
}

async fn pool(api: &Api, id: &str, pool: Pool) -> Result<(), Status> {
    let request = CreatePoolRequest { pool_id: id.to_owned(), pool: Some(pool), ..Default::default() };
    api.pools().create_pool(request).await.map(drop)
}

async fn backend(api: &Api, id: &str, backend: Backend) -> Result<(), Status> {
    let (parent, backend_id) = ("pools/web".to_owned(), id.to_owned());
    let request = CreateBackendRequest { parent, backend_id, backend: Some(backend), ..Default::default() };
    api.pools().create_backend(request).await.map(drop)
}

async fn listener(api: &Api, id: &str, binds: &[&str], pool: &str) -> Result<(), Status> {
    let binds = binds.iter().map(|bind| (*bind).to_owned()).collect();
    let listener = Some(Listener { binds, pool: pool.to_owned(), ..Default::default() });
    let request = CreateListenerRequest { listener_id: id.to_owned(), listener, ..Default::default() };
    api.listeners().create_listener(request).await.map(drop)
}

fn at(address: &str) -> Backend {
    Backend { address: address.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_rule_is_refused_and_changes_nothing() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    // Through a follower, so that the leader's answer is seen to come back whole.
    let leader = cluster.leader().await;
    let api = cluster.api((leader + 1) % 3);
    api.create_pool("web", Some(Duration::from_secs(2))).await.unwrap();
    api.create_listener("front", "0.0.0.0:8080", "web").await.unwrap();
    let before = cluster.agreed().await;

    let mut wrong = Vec::new();
    for (what, status, code, says) in [
        names::names(&api).await,
        names::addresses(&api).await,
        Box::pin(values::values(&api)).await,
        values::requests(&api).await,
    ]
    .concat()
    {
        let said = status.message();
        if status.code() != code || says.iter().any(|part| !said.contains(part.as_str())) {
            wrong.push(format!(
                "{what}: {code:?} with {says:?} was expected, not {:?}: {said}",
                status.code()
            ));
        }
        if said.chars().any(char::is_control) || said.len() > 2_000 {
            wrong.push(format!("{what}: the message is not fit to print: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} answers are not as they should be:\n  {}", wrong.len(), wrong.join("\n  "));
    let after = cluster.agreed().await;
    assert_eq!(after.members[0].digest, before.members[0].digest, "a refused request changed something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_messages_and_noise_hurt_nobody() {
    let mut cluster = Cluster::start(trestled(), 3).await;
    let api = cluster.api(0);
    for size in [1 << 20, 64 << 20] {
        let status = pool(&api, &"x".repeat(size), Pool::default()).await.unwrap_err();
        let codes = [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted];
        assert!(codes.contains(&status.code()), "{} bytes: {status:?}", size);
        assert!(status.message().len() < 2_000, "the message does not repeat the whole value");
    }
    let member = &cluster.members[0];
    for address in [member.admin(), member.peer(), member.http()] {
        for noise in [
            b"\0".repeat(4096),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".repeat(100),
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // The member may close before it has read all.
            let _ = stream.write_all(&noise);
            let _ = stream.read(&mut [0; 1024]);
        }
    }
    api.create_pool("after", None).await.unwrap();
    assert_eq!(cluster.agreed().await.counts.unwrap().pools, 1);
}
