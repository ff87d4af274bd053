//! From an address to a gRPC channel. What lies between TCP and HTTP/2 on the calling side is decided here and nowhere else:
//! nothing, or TLS with the identity of a user or a member. The accepting side's is `accept/transport.rs` of the node.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint, Error};
use trestle_identity::tls::{ClientTls, PeerTls, connect_to_authority};
use trestle_identity::{AuthenticatedMember, VerificationTime};
use trestle_model::KeyPin;

/// How a channel is made and kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChannelOptions {
    /// How long one attempt to connect may take; `None` for as long as the system tries.
    pub connect_timeout: Option<Duration>,
    /// How a connection that has gone silent is noticed; `None` for not at all.
    pub keep_alive: Option<KeepAlive>,
    /// Bytes that may be on their way before they are read, for one stream and for the connection; `None` for HTTP/2's own
    /// 64 KiB (RFC 9113 §6.9.2).
    pub window: Option<u32>,
}

/// HTTP/2 pings on a silent connection.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Silence after which a ping is sent.
    pub interval: Duration,
    /// How long its answer may take before the connection counts as broken.
    pub timeout: Duration,
    /// Whether pings are sent while no call is open.
    pub while_idle: bool,
}

/// How a member is to be reached at one moment.
#[derive(Debug, Clone)]
pub enum PeerWay {
    /// TCP without encryption.
    Plain,
    /// TLS, as a member, to a member.
    Tls(Box<PeerTls>),
    /// Not at all, for this reason.
    Closed(String),
}

/// Decides how the members are reached, each time that one is.
pub trait PeerDial: fmt::Debug + Send + Sync {
    /// How whoever is at a peer address is reached now.
    fn way(&self, address: &str) -> PeerWay;

    /// Whether that is by TLS: a channel that was made otherwise is to be made anew.
    fn is_secure(&self, address: &str) -> bool;

    /// Notes that a member was reached by TLS.
    fn note_reached(&self, member: &AuthenticatedMember);
}

/// Reaches all members by TCP without encryption.
#[derive(Debug, Clone, Copy)]
pub struct PlainDial;

impl PeerDial for PlainDial {
    fn way(&self, _: &str) -> PeerWay {
        PeerWay::Plain
    }

    fn is_secure(&self, _: &str) -> bool {
        false
    }

    fn note_reached(&self, _: &AuthenticatedMember) {}
}

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    Plain,
    User(ClientTls),
    Member(Arc<dyn PeerDial>),
    Joining(KeyPin),
}

/// What channels are made with.
#[derive(Debug, Clone, Default)]
pub struct Transport(Kind);

impl Transport {
    /// TCP without encryption.
    pub const fn plain() -> Self {
        Self(Kind::Plain)
    }

    /// TLS, as a user of a cluster.
    pub const fn tls(user: ClientTls) -> Self {
        Self(Kind::User(user))
    }

    /// As a member, among members: decided at each connection.
    pub const fn member(dial: Arc<dyn PeerDial>) -> Self {
        Self(Kind::Member(dial))
    }

    /// As a process that joins a cluster, which has no certificate yet, and knows of the cluster nothing but the hash of its authority's
    /// key. Nothing is sent to anybody but a member for which that authority has signed.
    pub const fn joining(authority: KeyPin) -> Self {
        Self(Kind::Joining(authority))
    }

    /// What connects to an address, `HOST:PORT`, or to a UNIX socket, `unix:/PATH`.
    ///
    /// # Errors
    /// When the address is no authority of a URI (RFC 3986 §3.2); parsed addresses are.
    pub fn dialer(&self, address: &str, options: &ChannelOptions) -> Result<Dialer, Error> {
        let endpoint = match socket_path(address) {
            Some(path) => Endpoint::from_shared(format!("unix:{path}"))?,
            None => Endpoint::from_shared(format!("http://{address}"))?,
        };
        let mut endpoint = endpoint.tcp_nodelay(true);
        if let Some(limit) = options.connect_timeout {
            endpoint = endpoint.connect_timeout(limit);
        }
        if let Some(keep_alive) = options.keep_alive {
            endpoint = endpoint
                .http2_keep_alive_interval(keep_alive.interval)
                .keep_alive_timeout(keep_alive.timeout)
                .keep_alive_while_idle(keep_alive.while_idle);
        }
        if let Some(window) = options.window {
            endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
        }
        Ok(Dialer { endpoint, kind: self.0.clone(), address: address.to_owned() })
    }
}

/// The path of a UNIX socket that an endpoint names by `unix:/PATH` or `unix:///PATH`; `None` for another endpoint.
pub fn socket_path(endpoint: &str) -> Option<&str> {
    let path = endpoint.strip_prefix("unix:")?;
    Some(path.strip_prefix("//").unwrap_or(path))
}

/// Connects to one address.
#[derive(Debug, Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    kind: Kind,
    address: String,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What HTTP/2 is spoken on.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin> Stream for Io {}

/// The time of a process that knows no cluster's.
fn own_time() -> VerificationTime {
    VerificationTime::by_clock(SystemTime::now())
}

/// A connection to an address, over which a user or a member has been let in. Its error is what is told: it has no cause below it.
async fn connected(kind: Kind, address: String) -> Result<TokioIo<Box<dyn Stream>>, BoxError> {
    let way = match &kind {
        Kind::Member(dial) => dial.way(&address),
        Kind::Plain | Kind::User(_) | Kind::Joining(_) => PeerWay::Plain,
    };
    if let PeerWay::Closed(why) = way {
        return Err(why.into());
    }
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let io: Box<dyn Stream> = match (kind, way) {
        (Kind::User(user), _) => Box::new(user.connect(stream, own_time()).await?),
        (Kind::Joining(authority), _) => {
            Box::new(connect_to_authority(stream, authority, own_time()).await?.0)
        }
        (Kind::Member(dial), PeerWay::Tls(tls)) => {
            let (io, member) = tls.connect(stream).await?;
            dial.note_reached(&member);
            Box::new(io)
        }
        _ => Box::new(stream),
    };
    Ok(TokioIo::new(io))
}

impl Dialer {
    /// Connects now.
    ///
    /// # Errors
    /// When there is no connection in time, or one side does not believe the other.
    pub async fn connect(&self) -> Result<Channel, Error> {
        let Self { endpoint, kind, address } = self.clone();
        if matches!(kind, Kind::Plain) {
            return endpoint.connect().await;
        }
        let connector = tower::service_fn(move |_: Uri| connected(kind.clone(), address.clone()));
        endpoint.connect_with_connector(connector).await
    }

    /// A channel that connects when it is first used, and again after each failure. Its connections live on the runtime that
    /// this is called on.
    pub fn connect_lazy(&self) -> Channel {
        let Self { endpoint, kind, address } = self.clone();
        if matches!(kind, Kind::Plain) {
            return endpoint.connect_lazy();
        }
        let connector = tower::service_fn(move |_: Uri| connected(kind.clone(), address.clone()));
        endpoint.connect_with_connector_lazy(connector)
    }
}
