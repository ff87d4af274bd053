//! etcd as opponent: three members on loopback, Debian's package, its defaults.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use prost::Message;
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use trestle_testkit::{Process, Subnet, wait_until};

use crate::writes::Writer;

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.StatusResponse`, as far as it says who leads; other answers have the same header.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

async fn call<M: Message + 'static>(
    channel: &Channel,
    path: &'static str,
    message: M,
) -> Result<Answer, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<M, Answer>::default();
    let answer = grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

/// Three members.
pub(crate) struct Etcd {
    leader: Ipv4Addr,
    _processes: Vec<Process>,
    _dirs: Vec<TempDir>,
    _subnet: Subnet,
}

impl Etcd {
    /// Starts them; `None` when etcd is not installed.
    pub(crate) async fn start() -> Option<Self> {
        Command::new("etcd").arg("--version").output().ok()?;
        let subnet = Subnet::claim();
        let peers: Vec<String> = (1..=3).map(|n| format!("e{n}=http://{}:2380", subnet.ip(n))).collect();
        let dirs: Vec<TempDir> = (1..=3).map(|_| TempDir::with_prefix("etcd-").unwrap()).collect();
        let start = |(number, dir): (u8, &TempDir)| {
            let (client, peer) =
                (format!("http://{}:2379", subnet.ip(number)), format!("http://{}:2380", subnet.ip(number)));
            let mut etcd = Command::new("etcd");
            etcd.args(["--name", &format!("e{number}"), "--log-level", "error"]);
            etcd.arg("--data-dir").arg(dir.path().join("data"));
            etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            etcd.args(["--initial-cluster", &peers.join(",")]);
            Process::spawn(format!("etcd {number}"), &mut etcd, &dir.path().join("output.log"))
        };
        let processes = (1..=3).zip(&dirs).map(start).collect();
        let leader = wait_until("etcd's leader", Duration::from_secs(30), async || {
            for number in 1..=3 {
                let ip = subnet.ip(number);
                let found = call(&channel(ip), "/etcdserverpb.Maintenance/Status", ()).await;
                let found = found.map_err(|status| status.to_string())?;
                if found.leader != 0 && found.header.is_some_and(|header| header.member_id == found.leader) {
                    return Ok(ip);
                }
            }
            Err("none".to_owned())
        })
        .await;
        Some(Self { leader, _processes: processes, _dirs: dirs, _subnet: subnet })
    }

    /// Writers to the leader, each with a key of its own and values of 256 bytes.
    pub(crate) fn writers(&self, count: usize) -> Vec<EtcdWriter> {
        let channels: Vec<Channel> =
            (0..count.min(crate::control::CONNECTIONS)).map(|_| channel(self.leader)).collect();
        let writer = |number: usize| EtcdWriter {
            channel: channels[number % channels.len()].clone(),
            key: format!("key-{number:04}").into_bytes(),
        };
        (0..count).map(writer).collect()
    }
}

fn channel(ip: Ipv4Addr) -> Channel {
    Endpoint::from_shared(format!("http://{ip}:2379")).unwrap().connect_lazy()
}

/// Puts one key again and again.
pub(crate) struct EtcdWriter {
    channel: Channel,
    key: Vec<u8>,
}

impl Writer for EtcdWriter {
    async fn write(&mut self, number: u64) -> Result<(), Status> {
        let value = number.to_be_bytes().repeat(32);
        call(&self.channel, "/etcdserverpb.KV/Put", Put { key: self.key.clone(), value }).await.map(drop)
    }
}
