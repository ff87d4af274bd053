//! From an address to a gRPC channel. What lies between TCP and HTTP/2 on the calling side is decided here and nowhere else:
//! nothing, or TLS with the identity of a user. The accepting side's is `accept/transport.rs` of the node.

use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint, Error};
use trestle_identity::tls::ClientTls;

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

/// What channels are made with.
#[derive(Debug, Clone, Default)]
pub struct Transport(Option<ClientTls>);

impl Transport {
    /// TCP without encryption.
    pub const fn plain() -> Self {
        Self(None)
    }

    /// TLS, as a user of a cluster.
    pub const fn tls(user: ClientTls) -> Self {
        Self(Some(user))
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
        Ok(Dialer { endpoint, tls: self.0.clone().map(|user| (user, address.to_owned())) })
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
    /// Who connects by TLS, and to where.
    tls: Option<(ClientTls, String)>,
}

/// A connection to an address, over which a user has been let in. Its error is what is told: it has no cause below it.
async fn secured(
    user: ClientTls,
    address: String,
) -> Result<TokioIo<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin>, BoxError> {
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(user.connect(stream, SystemTime::now()).await?))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Dialer {
    /// Connects now.
    ///
    /// # Errors
    /// When there is no connection in time, or one side does not believe the other.
    pub async fn connect(&self) -> Result<Channel, Error> {
        let Some((user, address)) = self.tls.clone() else { return self.endpoint.connect().await };
        let connector = tower::service_fn(move |_: Uri| secured(user.clone(), address.clone()));
        self.endpoint.connect_with_connector(connector).await
    }

    /// A channel that connects when it is first used, and again after each failure. Its connections live on the runtime that
    /// this is called on.
    pub fn connect_lazy(&self) -> Channel {
        let Some((user, address)) = self.tls.clone() else { return self.endpoint.connect_lazy() };
        let connector = tower::service_fn(move |_: Uri| secured(user.clone(), address.clone()));
        self.endpoint.connect_with_connector_lazy(connector)
    }
}
