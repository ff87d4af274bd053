//! Every method of every service at both ports, called by everybody who may come there: who gets through, and what the others get.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use trestle_api::transport::{ChannelOptions, Transport};
use trestle_api::v1::UserRole;
use trestle_identity::tls::ServerLeaf;
use trestle_identity::{
    CertificateAuthority, CertificateRequest, CertificateSubject, PrivateKey, SpiffeId, from_pem,
};
use trestle_testkit::{Cluster, Member, wait_for};

use crate::guests::{LIMIT, guest_at, id, keeps_authorities, leaf, local, name, secure, with};
use crate::trestled;

/// Who may call what at the least, as the test of a member's own table has it.
const TABLE: &str = include_str!("../../crates/node/src/access/callers.txt");

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// How long a call that got through may take before nobody waits for its answer any more: some wait for what does not happen.
const ANSWER: Duration = Duration::from_secs(2);

/// Messages without a field, whatever the method.
#[derive(Default)]
struct Empty;

impl Codec for Empty {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Empty {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Empty {
    type Item = ();
    type Error = Status;

    // What is left in the buffer would be the next message's, which nobody reads.
    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

/// Calls a method with an empty message; what comes first.
async fn call(channel: Channel, path: &str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let asked = async {
        let path = PathAndQuery::try_from(path).unwrap();
        let answer = grpc.server_streaming(Request::new(()), path, Empty).await?;
        answer.into_inner().message().await.map(drop)
    };
    tokio::time::timeout(ANSWER, asked).await.unwrap_or(Ok(()))
}

/// What becomes of a caller's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// It may call what has one of these letters in the table, and the rest is denied.
    In(&'static str),
    /// There is none: the handshake fails.
    NoHandshake,
    /// Each call is refused, with these words: it came without TLS, or the time of its user is over.
    Refused(&'static str),
}

/// Somebody at a port.
struct Somebody {
    what: &'static str,
    channel: Channel,
    entry: Entry,
}

/// An authority of a cluster, with its key.
struct Signer {
    /// A name in that cluster.
    of: SpiffeId,
    authority: CertificateAuthority,
}

impl Signer {
    /// That of the cluster which this member has founded.
    fn of(founder: &Member) -> Self {
        let read = |path: [&str; 2]| {
            std::fs::read_to_string(founder.data_dir().join(path[0]).join(path[1])).unwrap()
        };
        let of = name(founder);
        let key = PrivateKey::from_pem(&read(["ca", "1.key"])).unwrap();
        let certificate = from_pem(&read(["tls", "ca.crt"])).unwrap().remove(0);
        let authority = CertificateAuthority::load(key, &of.cluster, &certificate).unwrap();
        Self { of, authority }
    }

    /// One that calls itself the authority of the same cluster, with another key.
    fn impostor(&self) -> Self {
        let key = PrivateKey::generate().unwrap();
        let authority = CertificateAuthority::make(key, &self.of.cluster, 1, SystemTime::now()).unwrap();
        Self { of: self.of.clone(), authority }
    }

    /// Somebody's certificate: `who` is as "user/alice".
    fn sign(&self, key: &PrivateKey, who: &str, at: SystemTime) -> ServerLeaf {
        let request = CertificateRequest::read(&CertificateRequest::make(key).unwrap()).unwrap();
        let name = SpiffeId::parse(&format!("spiffe://{}/{who}", self.of.cluster)).unwrap();
        let signed = match name.subject {
            CertificateSubject::User(user) => self.authority.sign_user(&request, &user, at, HOUR),
            CertificateSubject::Member(id) => self.authority.sign_member(&request, id, &[], at),
        };
        ServerLeaf::new(&signed.unwrap(), key).unwrap()
    }

    fn member(&self, key: &PrivateKey, id: u64, at: SystemTime) -> ServerLeaf {
        self.sign(key, &format!("member/{id}"), at)
    }

    fn user(&self, key: &PrivateKey, user: &str, at: SystemTime) -> ServerLeaf {
        self.sign(key, &format!("user/{user}"), at)
    }
}

fn own_key(member: &Member) -> PrivateKey {
    let file = member.data_dir().join("tls").join("member.key");
    PrivateKey::from_pem(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A user of the cluster, by its key.
async fn user(member: &Member, name: &str, role: UserRole) -> (PrivateKey, ServerLeaf) {
    let (key, made) = member.local_api().create_user(name, role).await.unwrap();
    let shown = ServerLeaf::new(&from_pem(&made.certificate).unwrap()[0], &key).unwrap();
    (key, shown)
}

/// Calls everything as each of them, and compares what they get with the table.
async fn compare(people: &[Somebody], of_the_port: &str) {
    let table: BTreeMap<String, char> = TABLE
        .lines()
        .filter_map(|line| Some((format!("/{}", line.get(2..)?), line.chars().next()?)))
        .collect();
    assert!(table.len() > 60, "{table:?}");
    let is_peers = of_the_port.contains('j');
    let mut wrong = Vec::new();
    for Somebody { what, channel, entry } in people {
        // One after the other where each call takes a connection of its own, which is closed after it.
        let at_once = if matches!(entry, Entry::In(_)) { 8 } else { 1 };
        let answers = stream::iter(&table)
            .map(|(path, least)| async move { (path, *least, call(channel.clone(), path).await) });
        let answers: Vec<_> = answers.buffered(at_once).collect().await;
        for (path, least, answer) in answers {
            let found = answer.as_ref().map_or_else(Status::code, |()| Code::Ok);
            let said = answer.as_ref().err().map(Status::message).unwrap_or_default();
            let good = match entry {
                Entry::NoHandshake => matches!(found, Code::Unavailable | Code::Unknown | Code::Internal),
                // What processes ask that have no certificate yet.
                Entry::Refused(_) if is_peers && path.ends_with("/DescribeFounding") => {
                    !matches!(found, Code::Unauthenticated | Code::PermissionDenied)
                }
                Entry::Refused(words) => found == Code::Unauthenticated && said.contains(words),
                Entry::In(_) if !of_the_port.contains(least) => found == Code::Unimplemented,
                // What a call says of itself is looked at where it is answered.
                Entry::In(letters) if letters.contains(least) => match found {
                    Code::PermissionDenied => {
                        said.contains("in the name of") || said.contains("by root on its own machine")
                    }
                    found => !matches!(found, Code::Unimplemented | Code::Unauthenticated),
                },
                Entry::In(_) => found == Code::PermissionDenied,
            };
            if !good {
                wrong.push(format!("{what}: {path} ({least}): {found:?} {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of the wrong answers:\n{}", wrong.len(), wrong.join("\n"));
}

fn plain(address: std::net::SocketAddr) -> Channel {
    Transport::plain().dialer(&address.to_string(), &ChannelOptions::default()).unwrap().connect_lazy()
}

/// Waits until a member's log says each of these.
fn logged(member: &Member, words: &[&str]) {
    wait_for("the member's own word", LIMIT, || {
        let log = member.output();
        let missing: Vec<_> = words.iter().filter(|words| !log.contains(**words)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no {missing:?} in {log}")) }
    });
}

/// Another cluster, whose member has a certificate.
async fn other_cluster() -> Cluster {
    let cluster = Cluster::start_secure(trestled(), 1).await;
    keeps_authorities(&cluster.members[0]);
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_admin_port_everybody_gets_what_the_table_says_and_nothing_else() {
    let (cluster, _home, _context) = secure().await;
    let other = other_cluster().await;
    let [first, second, third] = &cluster.members[..] else { panic!("three members") };
    let (own, foreign) = (Signer::of(first), Signer::of(&other.members[0]));
    let now = SystemTime::now();
    let (viewer, operator) =
        (user(first, "vera", UserRole::Viewer).await.1, user(first, "olaf", UserRole::Operator).await.1);
    let (alice, shown) = user(first, "alice", UserRole::Admin).await;
    let gone = user(first, "gone", UserRole::Admin).await.1;
    local(first, &["user", "delete", "gone"]).expect_success();
    let removed = leaf(third);
    local(first, &["member", "remove", "m3"]).expect_success();
    let somebody = |what, own: Option<ServerLeaf>, entry| Somebody {
        what,
        channel: guest_at(first, first.admin(), own),
        entry,
    };
    let people = [
        somebody("a viewer", Some(viewer), Entry::In("v")),
        somebody("an operator", Some(operator), Entry::In("vo")),
        somebody("an admin", Some(shown), Entry::In("voa")),
        somebody("nobody", None, Entry::NoHandshake),
        somebody(
            "an admin by another authority",
            Some(own.impostor().user(&alice, "alice", now)),
            Entry::NoHandshake,
        ),
        somebody("an admin of another cluster", Some(foreign.user(&alice, "alice", now)), Entry::NoHandshake),
        somebody(
            "an admin whose time is over",
            Some(own.user(&alice, "alice", now - 3 * HOUR)),
            Entry::Refused("expired at"),
        ),
        somebody(
            "an admin whose time has not come",
            Some(own.user(&alice, "alice", now + 3 * HOUR)),
            Entry::Refused("is valid from"),
        ),
        somebody("an admin under another's name", Some(own.user(&alice, "vera", now)), Entry::NoHandshake),
        somebody("an admin that was deleted", Some(gone), Entry::NoHandshake),
        somebody("a member", Some(leaf(second)), Entry::NoHandshake),
        somebody("a member that was removed", Some(removed), Entry::NoHandshake),
        Somebody {
            what: "a plain caller",
            channel: plain(first.admin()),
            entry: Entry::Refused("without TLS"),
        },
    ];
    compare(&people, "voa").await;
    logged(first, &["must show a user's", "no authority of cluster", "its certificate is of cluster"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_port_of_the_peers_everybody_gets_what_the_table_says_and_nothing_else() {
    let (cluster, _home, _context) = secure().await;
    let other = other_cluster().await;
    let [first, second, third] = &cluster.members[..] else { panic!("three members") };
    let (own, foreign) = (Signer::of(first), Signer::of(&other.members[0]));
    let now = SystemTime::now();
    let alice = user(first, "alice", UserRole::Admin).await.1;
    let (key, stranger) = (own_key(second), PrivateKey::generate().unwrap());
    // Before its removal is known to its own process, which goes then.
    let removed = leaf(third);
    local(first, &["member", "remove", "m3"]).expect_success();
    let (known, newer) = (id(second), 1 << 40);
    let somebody = |what, own: Option<ServerLeaf>, entry| Somebody {
        what,
        channel: guest_at(first, first.peer(), own),
        entry,
    };
    let people = [
        somebody("nobody", None, Entry::In("j")),
        somebody("a member", Some(leaf(second)), Entry::In("jfrm")),
        somebody(
            "a member whose time is over",
            Some(own.member(&key, known, now - 60 * DAY)),
            Entry::In("jfrm"),
        ),
        somebody(
            "a member whose time has not come",
            Some(own.member(&key, known, now + 60 * DAY)),
            Entry::In("jfrm"),
        ),
        somebody("a member that is not known yet", Some(own.member(&stranger, newer, now)), Entry::In("jfr")),
        somebody("a member that was removed", Some(removed), Entry::In("jf")),
        somebody(
            "one not known yet whose time is over",
            Some(own.member(&stranger, newer, now - 60 * DAY)),
            Entry::NoHandshake,
        ),
        somebody(
            "one not known yet by another authority",
            Some(own.impostor().member(&stranger, newer, now)),
            Entry::NoHandshake,
        ),
        somebody("a member by another key", Some(own.member(&stranger, known, now)), Entry::NoHandshake),
        somebody("a member as another one", Some(own.member(&key, id(first), now)), Entry::NoHandshake),
        somebody("a member of another cluster", Some(foreign.member(&key, known, now)), Entry::NoHandshake),
        somebody("an admin", Some(alice), Entry::NoHandshake),
        Somebody {
            what: "a plain caller",
            channel: plain(first.peer()),
            entry: Entry::Refused("without TLS"),
        },
    ];
    compare(&people, "jpfrm").await;
    logged(
        first,
        &[
            "is none of member",
            "no authority of cluster",
            "its certificate is of cluster",
            "let a member in by its key alone",
        ],
    );
}

/// A member that has not heard of a removal knows the removed one still; when it hears of it, that one's connections end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_let_in_where_nobody_knows_of_it_and_no_longer_than_that() {
    let mut cluster = Cluster::start_secure(trestled(), 4).await;
    let context = tempfile::tempdir().unwrap();
    let context = context.path().join("c.toml");
    let made = ["user", "create", "ann", "--role", "admin", "--out", context.to_str().unwrap()];
    local(&cluster.members[0], &made).expect_success();
    let removed = leaf(&cluster.members[3]);
    cluster.members[2].kill();
    let first = cluster.members[0].admin().to_string();
    with(&context, &["--endpoint", &first, "member", "remove", "m4"]).expect_success();
    for member in [0, 1] {
        cluster.members[member].kill();
    }
    cluster.members[2].start();
    let lagging = &cluster.members[2];
    keeps_authorities(lagging);
    let channel = guest_at(lagging, lagging.peer(), Some(removed));
    const REPORT: &str = "/trestle.peer.v1.PeerService/Report";
    let wait = async |what: &str, good: &dyn Fn(Code) -> bool| {
        trestle_testkit::wait_until(what, LIMIT, async || {
            let found =
                call(channel.clone(), REPORT).await.map_or_else(|status| status.code(), |()| Code::Ok);
            if good(found) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    // An empty message is for nobody, which only a member is told.
    wait("an answer of the member that has not heard of it", &|code| {
        !matches!(code, Code::PermissionDenied | Code::Unavailable | Code::Unknown)
    })
    .await;
    for member in [0, 1] {
        cluster.members[member].start();
    }
    wait("the end of that", &|code| code == Code::PermissionDenied).await;
}
