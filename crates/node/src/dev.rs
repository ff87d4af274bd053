//! `trestled dev`: a cluster of three in one process, with something to balance, for a first look.

mod forming;

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;
use trestle_api::v1;
use trestle_api::v1::cluster_service_client::ClusterServiceClient;
use trestle_api::v1::listener_service_client::ListenerServiceClient;
use trestle_api::v1::pool_service_client::PoolServiceClient;
use trestle_model::MemberName;

use crate::config::Config;
use crate::samples::sample_backend;
use crate::{Node, StartError};

const MEMBERS: [u8; 3] = [1, 2, 3];
/// Where the listener accepts on each of the three addresses.
const LISTENER_PORT: u16 = 7400;
/// Name and port of each sample backend, on 127.0.0.1.
const SAMPLES: [(&str, u16); 2] = [("a", 7491), ("b", 7492)];
/// Everybody is in this process, so little is worth waiting for at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How often checks look, so that a first user sees verdicts change at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Why the cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A member did not start.
    #[error("member m{number}: {error}")]
    Member {
        /// Which of the three.
        number: u8,
        /// Why.
        error: StartError,
    },
    /// A sample backend's port is taken.
    #[error("sample backend on {address}: {error}; stop what uses that port")]
    Sample {
        /// Its address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The directory for the data could not be made.
    #[error("data directory {path}: {error}")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The members did not form a cluster.
    #[error("forming the cluster: {0}")]
    Forming(String),
}

impl DevError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            DevError::Member { error, .. } => error.exit_code(),
            DevError::Sample { .. } => 69,
            DevError::Directory { .. } | DevError::Forming(_) => 1,
        }
    }
}

impl From<Status> for DevError {
    fn from(status: Status) -> Self {
        DevError::Forming(status.message().to_owned())
    }
}

/// A running cluster of three.
pub struct Dev {
    nodes: Vec<Node>,
    data_dir: PathBuf,
    /// What the printed commands call the cluster by, as shells set it.
    way: String,
    /// Removes the directory when it is dropped; none when the user named one.
    temporary: Option<TempDir>,
}

/// A path as a word of a shell's command.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What a member of three on one machine is configured to be.
fn member(number: u8, data_dir: &Path) -> Result<Config, DevError> {
    let name = MemberName::parse(&format!("m{number}")).map_err(DevError::Forming)?;
    let mut config = Config::on_loopback(name, host(number), data_dir.join(format!("m{number}")));
    config.shutdown_grace = SHUTDOWN_GRACE;
    config.members_in_process = NonZeroUsize::MIN.saturating_add(MEMBERS.len() - 1);
    // They are called over it.
    config.admin_socket.required = true;
    Ok(config)
}

async fn start(number: u8, config: Config) -> Result<Node, DevError> {
    let node = Node::start(config, Arc::new(|| 0)).await;
    node.map_err(|error| DevError::Member { number, error })
}

fn host(member: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, member)
}

impl Dev {
    /// Starts the sample backends and the members, and forms the cluster if the data directory holds none yet.
    ///
    /// # Errors
    /// [`DevError`] when a port is taken, a directory cannot be used, or the cluster does not form.
    pub async fn start(data_dir: Option<PathBuf>) -> Result<Self, DevError> {
        let (data_dir, temporary) = match data_dir {
            Some(dir) => (dir, None),
            None => {
                let dir = tempfile::Builder::new().prefix("trestle-dev-").tempdir();
                let dir = dir.map_err(|error| DevError::Directory { path: std::env::temp_dir(), error })?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        std::fs::create_dir_all(&data_dir)
            .map_err(|error| DevError::Directory { path: data_dir.clone(), error })?;
        for (name, port) in SAMPLES {
            start_sample(name, SocketAddr::new(host(1).into(), port)).await?;
        }
        // An absolute path is one wherever the printed commands are typed.
        let data_dir = std::path::absolute(&data_dir)
            .map_err(|error| DevError::Directory { path: data_dir.clone(), error })?;
        let (nodes, way) = Self::form(&data_dir).await?;
        Ok(Self { nodes, data_dir, way, temporary })
    }

    /// Starts the members and makes them a cluster, as far as they are none yet. Answers how it is called too.
    async fn form(data_dir: &Path) -> Result<(Vec<Node>, String), DevError> {
        let [first, others @ ..] = MEMBERS;
        let config = member(first, data_dir)?;
        let socket = config.admin_socket.path.clone().unwrap_or_default();
        let mut nodes = vec![start(first, config).await?];
        let channel = forming::over_socket(&socket)?;
        let is_new = forming::found(channel.clone()).await?;
        let mut joining = Vec::new();
        for number in others {
            let config = member(number, data_dir)?;
            match config.data_dir.join("identity").exists() {
                true => nodes.push(start(number, config).await?),
                false => joining.push((number, config)),
            }
        }
        if !joining.is_empty() {
            let token = forming::token(channel.clone(), joining.len()).await?;
            for (number, config) in joining {
                forming::join(&config, &token).await?;
                nodes.push(start(number, config).await?);
            }
        }
        forming::all_vote(channel.clone(), MEMBERS.len()).await?;
        let context = data_dir.join("context.toml");
        let way = match forming::write_context(channel.clone(), &context).await? {
            true => format!("TRESTLE_CONTEXT={}", shell_word(&context)),
            false => format!("TRESTLE_ENDPOINT=unix:{}", shell_word(&socket)),
        };
        if is_new {
            let revision = add_sample_service(channel.clone()).await?;
            let wait = v1::WaitForRevisionRequest { revision, timeout: None };
            let mut progress = ClusterServiceClient::new(channel).wait_for_revision(wait).await?.into_inner();
            while progress.message().await?.is_some() {}
        }
        Ok((nodes, way))
    }

    /// Resolves when a member cannot go on, with the reason.
    pub async fn failed(&self) -> String {
        let failures = self.nodes.iter().map(|node| Box::pin(node.failed()));
        futures_util::future::select_all(failures).await.0
    }

    /// Stops the members; all at once, because there is nobody left to hand over to.
    pub async fn shutdown(self) {
        futures_util::future::join_all(self.nodes.into_iter().map(Node::stop)).await;
        drop(self.temporary);
    }

    /// What is running, and what to try next.
    pub fn description(&self) -> String {
        let mut text = String::new();
        let (build, trestle) = trestle_command();
        let kept =
            if self.temporary.is_some() { "removed at the end; keep it with --data-dir DIR" } else { "kept" };
        let samples = SAMPLES.map(|(name, port)| format!("{name} = 127.0.0.1:{port}")).join(", ");
        let _ = write!(
            text,
            "A cluster of three is running; Ctrl-C stops it.\n\n  \
             members    m1 = 127.0.0.1, m2 = 127.0.0.2, m3 = 127.0.0.3 (each: admin 7480, peers 7481, HTTP 7482)\n  \
             listener   web, on port {LISTENER_PORT} of every member\n  \
             pool       web, with two sample backends: {samples}\n  \
             data       {} ({kept})\n\nTry in another terminal:\n\n",
            self.data_dir.display()
        );
        if let Some(build) = build {
            let _ = writeln!(text, "  {build}\n      builds the command that manages a cluster, once");
        }
        for (command, what) in [
            (
                format!("export {}", self.way),
                "whom trestle calls, and as which user: one that may do everything",
            ),
            (
                format!("curl http://127.0.0.1:{LISTENER_PORT}"),
                "balanced; so it is on 127.0.0.2 and 127.0.0.3",
            ),
            (format!("{trestle} status"), "the members, and what is wrong"),
            (format!("{trestle} top"), "traffic and health, live; q ends it"),
            (format!("{trestle} backend list web"), "the backends, and how many members find each healthy"),
            (format!("{trestle} backend drain web/a"), "no new connections to a; enable brings it back"),
            (format!("{trestle} --endpoint 127.0.0.3:7480 pool get web -o yaml"), "the same from any member"),
        ] {
            let _ = writeln!(text, "  {command}\n      {what}");
        }
        text
    }
}

/// How the user can call the CLI from where the daemon was started, and how it is built if it is not there yet.
fn trestle_command() -> (Option<&'static str>, String) {
    let Ok(beside) = std::env::current_exe().map(|exe| exe.with_file_name("trestle")) else {
        return (None, "trestle".to_owned());
    };
    let build = match (beside.exists(), cfg!(debug_assertions)) {
        (true, _) => None,
        (false, true) => Some("cargo build --bin trestle"),
        (false, false) => Some("cargo build --release --bin trestle"),
    };
    let here = std::env::current_dir().ok();
    let short = here.and_then(|here| beside.strip_prefix(here).ok().map(|path| path.to_owned()));
    let command =
        short.map_or_else(|| beside.display().to_string(), |short| format!("./{}", short.display()));
    (build, command)
}

async fn start_sample(name: &str, address: SocketAddr) -> Result<(), DevError> {
    let serve = sample_backend(name.to_owned(), address).await;
    tokio::spawn(serve.map_err(|error| DevError::Sample { address, error })?);
    Ok(())
}

/// A pool of the sample backends and a listener that leads to it; answers the last revision.
async fn add_sample_service(channel: Channel) -> Result<u64, DevError> {
    let mut pools = PoolServiceClient::new(channel.clone());
    let interval = Some(trestle_api::convert::duration(CHECK_INTERVAL));
    let health_check = Some(v1::HealthCheck { interval, ..Default::default() });
    let pool = Some(v1::Pool { health_check, ..Default::default() });
    pools
        .create_pool(v1::CreatePoolRequest { pool_id: "web".to_owned(), pool, ..Default::default() })
        .await?;
    for (name, port) in SAMPLES {
        let address = format!("{}:{port}", host(1));
        let request = v1::CreateBackendRequest {
            parent: "pools/web".to_owned(),
            backend_id: name.to_owned(),
            backend: Some(v1::Backend { address, ..Default::default() }),
            ..Default::default()
        };
        pools.create_backend(request).await?;
    }
    let binds = vec![format!("0.0.0.0:{LISTENER_PORT}")];
    let listener = Some(v1::Listener { binds, pool: "pools/web".to_owned(), ..Default::default() });
    let request = v1::CreateListenerRequest { listener_id: "web".to_owned(), listener, ..Default::default() };
    let created = ListenerServiceClient::new(channel).create_listener(request).await?;
    Ok(created.into_inner().revision)
}
