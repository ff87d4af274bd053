//! The sockets of the member's own services, bound before anything else is done, so that a mistake is found at once. An
//! address that this machine does not have yet, as early in the boot, is waited for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::start_error::StartError;
use crate::vips::Systemd;

/// Pause between two looks for an address that is missing: an IPv6 address is usable about a second after it is added.
const LOOK: Duration = Duration::from_millis(200);
/// How often the log tells of a missing address.
const TELL: Duration = Duration::from_secs(10);
/// How long answers of the page for those who wait may take once the member starts.
const PAGE_END: Duration = Duration::from_millis(500);

/// The bound sockets.
pub(crate) struct OwnSockets {
    pub(crate) admin: TcpListener,
    pub(crate) peer: TcpListener,
    pub(crate) http: TcpListener,
}

/// Why an address cannot be bound, in words.
fn refused(key: &'static str, address: SocketAddr, error: &std::io::Error) -> StartError {
    let why = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!(
                "another process uses it; stop that one (\"ss -ltnp sport = :{}\" names it) or choose another port",
                address.port()
            )
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        _ => error.to_string(),
    };
    StartError::Bind { key, address, why }
}

/// A socket that is bound, or not yet.
struct RequestedSocket {
    key: &'static str,
    address: SocketAddr,
    bound: Option<TcpListener>,
}

impl RequestedSocket {
    fn new(key: &'static str, address: SocketAddr) -> Self {
        Self { key, address, bound: None }
    }

    /// Binds the address if this machine has it.
    async fn try_bind(&mut self) -> Result<(), StartError> {
        if self.bound.is_none() {
            match TcpListener::bind(self.address).await {
                Ok(listener) => self.bound = Some(listener),
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {}
                Err(error) => return Err(refused(self.key, self.address, &error)),
            }
        }
        Ok(())
    }
}

/// What is waited for, with the addresses that there are.
fn missing(wanted: &[&RequestedSocket]) -> String {
    let lacking = wanted.iter().filter(|wanted| wanted.bound.is_none());
    let names: Vec<String> = lacking.map(|wanted| format!("{} {}", wanted.key, wanted.address)).collect();
    let here: BTreeSet<IpAddr> = trestle_dataplane::interfaces::addresses().into_iter().collect();
    let here: Vec<String> = here.iter().map(ToString::to_string).collect();
    format!("not on this machine yet: {}; the addresses here are {}", names.join(", "), here.join(", "))
}

/// Answers for the HTTP address while another address is missing: alive, and not ready.
struct WaitingPage {
    text: Arc<Mutex<String>>,
    end: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl WaitingPage {
    fn serve(socket: std::net::TcpListener) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(socket)?;
        let text = Arc::new(Mutex::new(String::new()));
        let end = CancellationToken::new();
        let said = text.clone();
        let not_ready = async move || {
            let text = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (StatusCode::SERVICE_UNAVAILABLE, text + "\n")
        };
        let router = Router::new().route("/livez", get(async || "ok\n")).fallback(not_ready);
        let ended = end.clone().cancelled_owned();
        let server = async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(ended).await;
            if let Err(error) = serving {
                warn!(%error, "the HTTP address is not served while another address is missing");
            }
        };
        Ok(Self { text, end, server: tokio::spawn(server) })
    }

    fn say(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn end(mut self) {
        self.end.cancel();
        if tokio::time::timeout(PAGE_END, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

/// A second handle on a listening socket: whoever accepts gets the next connection.
fn shared(listener: TcpListener) -> std::io::Result<(TcpListener, std::net::TcpListener)> {
    let listener = listener.into_std()?;
    let other = listener.try_clone()?;
    Ok((TcpListener::from_std(listener)?, other))
}

impl OwnSockets {
    /// Binds all three. Waits for as long as an address is not on this machine.
    ///
    /// # Errors
    /// When one is in use, or may not be bound.
    pub(crate) async fn bind(config: &Config) -> Result<Self, StartError> {
        let mut admin = RequestedSocket::new("admin_address", config.admin_address);
        let mut peer = RequestedSocket::new("peer_address", config.peer_address);
        let mut http = RequestedSocket::new("http_address", config.http_address);
        let (mut told, mut page) = (None::<Instant>, None::<WaitingPage>);
        // The service manager counts from the start of the process.
        let whole: crate::vips::Whole = std::sync::Arc::new(|| true);
        let mut watchdog = Systemd::from_environment(&whole);
        let (admin, peer, http) = loop {
            for wanted in [&mut admin, &mut peer, &mut http] {
                wanted.try_bind().await?;
            }
            match (admin.bound.take(), peer.bound.take(), http.bound.take()) {
                (Some(admin), Some(peer), Some(http)) => break (admin, peer, http),
                (a, p, h) => (admin.bound, peer.bound, http.bound) = (a, p, h),
            }
            let text = missing(&[&admin, &peer, &http]);
            if told.is_none_or(|told| told.elapsed() >= TELL) {
                warn!("waiting for an address: {text}");
                told = Some(Instant::now());
            }
            if page.is_none()
                && let Some(listener) = http.bound.take()
            {
                let (own, other) = shared(listener)?;
                http.bound = Some(own);
                page = Some(WaitingPage::serve(other)?);
            }
            if let Some(page) = &page {
                page.say(&text);
            }
            if let Some(watchdog) = &mut watchdog {
                watchdog.feed(Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        };
        if let Some(page) = page {
            page.end().await;
        }
        if told.is_some() {
            info!("all addresses are on this machine");
        }
        Ok(Self { admin, peer, http })
    }
}
