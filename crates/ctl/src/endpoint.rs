//! Endpoints: which are asked, and what answers at one that is no admin port of a member of the cluster.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use trestle_api::peer::DescribeRequest;
use trestle_api::peer::peer_service_client::PeerServiceClient;
use trestle_api::status::{CLUSTER_RECOVERED, MEMBER_REMOVED, NO_CLUSTER};
use trestle_api::transport::socket_path;
use trestle_api::v1;
use trestle_model::{HostPort, Invalid, Violations};

/// Where a member serves its admin API to users of its own machine, unless its file says otherwise.
const DEFAULT_SOCKET: &str = "/run/trestle/admin.sock";
/// Where it serves it otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:7480";

/// The endpoints that were named; where none was, the socket of this machine's member if this user may connect to one, or else
/// its address.
///
/// # Errors
/// Every one that is neither an address nor a socket.
pub(crate) fn named(given: &[String]) -> Result<Vec<String>, Invalid> {
    if given.is_empty() {
        let socket = has_socket().then(|| format!("unix:{DEFAULT_SOCKET}"));
        return Ok(vec![socket.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned())]);
    }
    let mut found = Violations::new();
    for endpoint in given {
        let rule = "must be HOST:PORT, as in 127.0.0.1:7480, or the path of an admin socket, as in \
                    unix:/run/trestle/admin.sock; separate several with commas";
        let is_socket = socket_path(endpoint).is_some_and(|path| path.starts_with('/'));
        if !is_socket && HostPort::parse(endpoint).is_err() {
            found.add("--endpoint", endpoint, rule);
        }
    }
    found.into_result().map(|()| given.to_vec())
}

/// Whether this user may use the admin socket of this machine's member.
pub(crate) fn has_socket() -> bool {
    is_usable(Path::new(DEFAULT_SOCKET))
}

/// Whether there is a socket that this user may connect to: that takes the right to write it (unix(7)).
fn is_usable(path: &Path) -> bool {
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket && access(path, Access::WRITE_OK).is_ok()
}

/// How long it may take to find out what listens at an address that took a connection and did not talk gRPC.
const LOOK: Duration = Duration::from_secs(2);
/// Far more than the HTTP port of a member answers.
const ANSWER_MAX: u64 = 4096;

/// Why the cluster cannot be managed at an endpoint that answers: another one is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// A member that belongs to no cluster.
    NoCluster,
    /// A member that belongs to none yet, and asks members of one to be taken in.
    Joining,
    /// A member that was removed from its cluster.
    Removed,
    /// A member of before the cluster was made anew.
    Recovered,
    /// The port of a member where Prometheus asks.
    HttpPort,
    /// A web server that is no member's.
    Http,
    /// The port of a member where other members ask.
    PeerPort,
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCluster => "belongs to no cluster yet",
            Self::Joining => "belongs to no cluster yet, and asks to be taken into one",
            Self::Removed => "was removed from its cluster",
            Self::Recovered => "is of before the cluster was made anew, and takes no part in it any more",
            Self::HttpPort => "is the HTTP port of a member; the admin port is 7480 by default",
            Self::Http => {
                "is the port of a web server, and not of a member; the admin port is 7480 by default"
            }
            Self::PeerPort => "is the peer port of a member; the admin port is 7480 by default",
        })
    }
}

impl Outside {
    /// What a refusal says of the member that refuses.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        match status.get_details_error_info()?.reason.as_str() {
            NO_CLUSTER => Some(Self::NoCluster),
            MEMBER_REMOVED => Some(Self::Removed),
            CLUSTER_RECOVERED => Some(Self::Recovered),
            _ => None,
        }
    }

    /// What a member's status, which is answered anywhere, says of it.
    pub(crate) fn of_member(status: &v1::ClusterStatus) -> Option<Self> {
        let own = match status.members.as_slice() {
            [own] => own,
            _ => return None,
        };
        match (status.cluster_id.is_empty(), own.raft_state()) {
            (true, _) if own.join_addresses.is_empty() && own.waits_for.is_empty() => Some(Self::NoCluster),
            (true, _) => Some(Self::Joining),
            (false, v1::RaftState::Removed) => Some(Self::Removed),
            (false, _) => None,
        }
    }

    /// Whether it is a member without a cluster.
    pub(crate) fn has_no_cluster(self) -> bool {
        matches!(self, Self::NoCluster | Self::Joining)
    }
}

/// Whether the peer port of a member is at the other end, which answers what the admin port does not know.
pub(crate) async fn is_peer_port(channel: Channel, deadline: Instant) -> bool {
    let mut peer = PeerServiceClient::new(channel);
    let limit = deadline.min(Instant::now() + LOOK);
    match timeout_at(limit, peer.describe(DescribeRequest {})).await {
        Ok(Ok(_)) => true,
        // What it answers may be for members only.
        Ok(Err(status)) => matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated),
        Err(_) => false,
    }
}

/// What talks HTTP/1 at an address, if anything does; nobody is asked at a socket, whose path somebody chose for it.
pub(crate) async fn http_at(address: &str, deadline: Instant) -> Option<Outside> {
    if socket_path(address).is_some() {
        return None;
    }
    let limit = deadline.min(Instant::now() + LOOK);
    let answer = timeout_at(limit, ask_over_http(address)).await.ok()?.ok()?;
    let is_http = answer.starts_with("HTTP/1.");
    // A member names all its pages where it is asked for one that it does not have.
    let is_member = ["/livez", "/readyz", "/metrics"].iter().all(|page| answer.contains(page));
    is_http.then_some(if is_member { Outside::HttpPort } else { Outside::Http })
}

async fn ask_over_http(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /admin HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A server may reset the connection behind its answer.
    let _ = stream.take(ANSWER_MAX).read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn named_by(given: &[&str]) -> Result<Vec<String>, Invalid> {
        named(&given.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn an_endpoint_is_an_address_or_a_socket() {
        let given = ["127.0.0.1:7480", "m1.example:7480", "unix:/run/a.sock", "unix:///run/b.sock"];
        assert_eq!(named_by(&given).unwrap(), given);
        let wrong = ["m1", "unix:", "unix:run/a.sock", "unix://run/a.sock", "/run/a.sock", "http://a:1"];
        let found = named_by(&wrong).unwrap_err().0;
        assert_eq!(found.len(), wrong.len(), "{found:?}");
        assert!(found[0].rule.contains("unix:/run/trestle/admin.sock"), "{found:?}");
    }

    #[test]
    fn only_a_socket_is_used_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        assert!(!is_usable(&path));
        std::fs::write(&path, "").unwrap();
        assert!(!is_usable(&path));
        std::fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(is_usable(&path));
    }
}
