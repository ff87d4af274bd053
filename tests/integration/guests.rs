//! Callers of a member's own ports that show what a test likes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use trestle_api::peer;
use trestle_api::transport::{ChannelOptions, PeerDial, PeerWay, Transport};
use trestle_identity::tls::{PeerTls, ServerLeaf};
use trestle_identity::{
    AuthenticatedMember, CertificateSubject, PeerTrust, PrivateKey, SpiffeId, VerificationTime, from_pem,
};
use trestle_testkit::{Cluster, Member, wait_for};

use crate::{Finished, finish, trestle, trestled};

pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// As the user that the member runs as, over its admin socket.
pub(crate) fn local(member: &Member, arguments: &[&str]) -> Finished {
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

pub(crate) fn with(context: &std::path::Path, arguments: &[&str]) -> Finished {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trestle"));
    command.env_remove("TRESTLE_ENDPOINT").env_remove("TRESTLE_CONTEXT");
    finish(command.arg("--context").arg(context).args(arguments))
}

/// Waits until a member keeps the authorities that it believes where a test can read them.
pub(crate) fn keeps_authorities(member: &Member) {
    let file = member.data_dir().join("tls").join("ca.crt");
    wait_for("the authorities that a member keeps", LIMIT, || {
        if file.exists() { Ok(()) } else { Err(format!("no {}", file.display())) }
    });
}

/// Three members that require TLS, and the file of an admin's context.
pub(crate) async fn secure() -> (Cluster, tempfile::TempDir, PathBuf) {
    let cluster = Cluster::start_secure(trestled(), 3).await;
    let (home, context) = admin(&cluster.members[0], "ann");
    cluster.members.iter().for_each(keeps_authorities);
    (cluster, home, context)
}

fn now() -> VerificationTime {
    VerificationTime::by_clock(SystemTime::now())
}

/// What a connection to the peer port is made with.
#[derive(Debug)]
struct Guest {
    own: Option<ServerLeaf>,
    trust: PeerTrust,
}

impl PeerDial for Guest {
    fn way(&self, _: &str) -> PeerWay {
        PeerWay::Tls(Box::new(PeerTls::new(self.own.clone(), self.trust.clone(), None, now())))
    }

    fn is_secure(&self, _: &str) -> bool {
        true
    }

    fn note_reached(&self, _: &AuthenticatedMember) {}
}

/// What a member shows, by its files.
pub(crate) fn leaf(member: &Member) -> ServerLeaf {
    let read = |name| std::fs::read_to_string(member.data_dir().join("tls").join(name)).unwrap();
    let key = PrivateKey::from_pem(&read("member.key")).unwrap();
    ServerLeaf::new(&from_pem(&read("member.crt")).unwrap()[0], &key).unwrap()
}

/// The name that a member has in its certificate.
pub(crate) fn name(member: &Member) -> SpiffeId {
    SpiffeId::parse(&leaf(member).facts().uris[0]).unwrap()
}

/// The id that a member has in its certificate.
pub(crate) fn id(member: &Member) -> u64 {
    let CertificateSubject::Member(id) = name(member).subject else { panic!("no member") };
    id.0
}

/// A connection to the peer port of `to`, of whoever shows `own`.
pub(crate) fn guest(to: &Member, own: Option<ServerLeaf>) -> Channel {
    guest_at(to, to.peer(), own)
}

/// A TLS connection to the peer port of `to`, of somebody without a certificate.
pub(crate) async fn stranger(to: &Member) -> impl AsyncRead + AsyncWrite + Unpin {
    let authorities = std::fs::read_to_string(to.data_dir().join("tls").join("ca.crt")).unwrap();
    let trust = PeerTrust::by_authorities(name(to).cluster, &from_pem(&authorities).unwrap());
    let stream = TcpStream::connect(to.peer()).await.unwrap();
    PeerTls::new(None, trust, None, now()).connect(stream).await.unwrap().0
}

/// A connection to an address of `to`, of whoever shows `own`.
pub(crate) fn guest_at(to: &Member, address: SocketAddr, own: Option<ServerLeaf>) -> Channel {
    let authorities = std::fs::read_to_string(to.data_dir().join("tls").join("ca.crt")).unwrap();
    let trust = PeerTrust::by_authorities(name(to).cluster, &from_pem(&authorities).unwrap());
    let transport = Transport::member(Arc::new(Guest { own, trust }));
    transport.dialer(&address.to_string(), &ChannelOptions::default()).unwrap().connect_lazy()
}

pub(crate) fn to(cluster: &str, member_id: u64) -> Option<peer::Destination> {
    Some(peer::Destination { cluster_id: cluster.to_owned(), member_id, ..Default::default() })
}

pub(crate) fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}
