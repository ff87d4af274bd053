//! `trestled`: one member of a Trestle cluster. Arguments, logging, signals, exit code; everything else is in the crates.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use trestle_node::config::{self, Config, Invocation, LogFormat, NotConfigured, TokenSource};
use trestle_node::{
    Dev, DroppedLines, JoinError, Node, RecoveryError, RecoveryPlan, SampleClient, StartError, descriptors,
};

/// Exit code when Raft, its storage or another part of the member died while running (EX_IOERR): a restart may mend it.
const EXIT_FAILED: u8 = 74;
/// Exit code when the system refuses what every process needs (EX_OSERR).
const EXIT_SYSTEM: u8 = 71;
/// Log lines that wait for a slow reader of the log; more are dropped and counted, because nothing may wait for it.
const LOG_LINES_QUEUED_MAX: usize = 16_384;

/// Bytes that are read from standard input in search of a token: more than one has.
const TOKEN_READ_MAX: u64 = 64 * 1024;

/// How long what still runs at the end is waited for.
const RUNTIME_END_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let invocation = match config::invocation(&config::command().get_matches()) {
        Ok(invocation) => invocation,
        Err(error) => {
            match &error {
                NotConfigured::Mistakes(found) => {
                    found.0.iter().for_each(|violation| say(&format!("error: {violation}")));
                }
                NotConfigured::Unreadable { .. } => say(&format!("error: {error}")),
            }
            return ExitCode::from(error.exit_code());
        }
    };
    match invocation {
        Invocation::Check(config) => {
            let _ = writeln!(std::io::stdout(), "{config}");
            ExitCode::SUCCESS
        }
        Invocation::Run(config) => {
            let limit = descriptors::raise_limit();
            // Rights belong to threads, and new ones inherit them: before any other starts.
            let rights = trestle_node::drop_capabilities(&config);
            let (_guard, dropped) = start_logging(config.log_format, "info");
            info!(open_files = limit.map_or("unlimited".to_owned(), |limit| limit.to_string()), "limit");
            if let Err(error) = rights {
                warn!(%error, "this process keeps more rights than it needs");
            }
            on_runtime(run(*config, dropped))
        }
        Invocation::CheckExec(check) => check.run(),
        Invocation::Recover { config, yes } => {
            let (_guard, _) = start_logging(LogFormat::Text, "warn");
            on_runtime(recover(*config, yes))
        }
        Invocation::Join { config, token } => {
            let (_guard, _) = start_logging(LogFormat::Text, "warn");
            on_runtime(join(*config, token))
        }
        Invocation::FoundingToken { out: None } => founding_token(),
        Invocation::FoundingToken { out: Some(path) } => founding_token_file(&path),
        Invocation::HealthCheck(config) => on_runtime(health_check(*config)),
        Invocation::SampleBackend { name, address } => on_runtime(sample_backend(name, address)),
        Invocation::SampleClient { target } => on_runtime(sample_client(target)),
        Invocation::Dev { data_dir } => {
            let (_guard, _) = start_logging(LogFormat::Text, "warn,trestle_consensus=error,openraft=off");
            descriptors::raise_limit();
            on_runtime(dev(data_dir))
        }
        Invocation::Scrub => scrub(),
    }
}

fn on_runtime(body: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => {
            runtime.spawn(trestle_node::reap_orphans());
            let code = runtime.block_on(body);
            // A part that hangs is no reason not to end.
            runtime.shutdown_timeout(RUNTIME_END_MAX);
            code
        }
        Err(error) => {
            say(&format!("error: the API's threads cannot be started: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// To standard error; that it may be closed is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Logs to standard error through a bounded queue. The libraries below are quiet by default: openraft says a lot.
fn start_logging(format: LogFormat, level: &str) -> (WorkerGuard, DroppedLines) {
    // Of two directives for one target the last counts.
    let quiet = format!("openraft=error,sled=warn,hyper=warn,tonic=warn,tower=warn,{level}");
    // What h2 warns of, each client can do thousands of times a second; the member tells it once a minute by itself.
    let wanted = std::env::var("TRESTLE_LOG").ok().filter(|wanted| EnvFilter::try_new(wanted).is_ok());
    let wanted = wanted.unwrap_or(quiet);
    let h2 = if wanted.contains("h2=") { "" } else { ",h2=error" };
    let filter = EnvFilter::new(wanted + h2);
    let queue = NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES_QUEUED_MAX).lossy(true);
    let (writer, guard) = queue.finish(std::io::stderr());
    let dropped = writer.error_counter();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    (guard, Arc::new(move || dropped.dropped_lines() as u64))
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on a signal ends nothing by itself. As the first process of a container, this one would not even be ended
    /// by a signal that it does not listen to.
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }

    /// Ends the process at once at the next signal.
    fn end_at_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            say("second signal: stopping at once");
            std::process::exit(130);
        });
    }
}

fn no_signals(error: &std::io::Error) -> ExitCode {
    say(&format!("error: signals cannot be received: {error}"));
    ExitCode::from(EXIT_SYSTEM)
}

/// Opens the access log anew at each SIGHUP, which logrotate sends after it has renamed the file.
async fn reopen_on_hangup(node: &Node) {
    match signal(SignalKind::hangup()) {
        Ok(mut hangups) => {
            while hangups.recv().await.is_some() {
                node.reopen_logs();
            }
        }
        Err(error) => warn!(%error, "SIGHUP cannot be received"),
    }
    std::future::pending().await
}

/// Prints a new founding token.
fn founding_token() -> ExitCode {
    let printed = trestle_node::new_founding_token()
        .and_then(|token| writeln!(std::io::stdout(), "{}", token.to_text().expose()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

/// Writes a new founding token to a file, unless that is there.
fn founding_token_file(path: &Path) -> ExitCode {
    let shown = path.display();
    match trestle_node::write_founding_token(path) {
        Ok(true) => say(&format!("{shown} has a new founding token")),
        Ok(false) => say(&format!("{shown} is there, and stays as it is")),
        Err(error) => {
            say(&format!("error: {shown}: {error}"));
            return ExitCode::from(EXIT_SYSTEM);
        }
    }
    ExitCode::SUCCESS
}

async fn health_check(config: Config) -> ExitCode {
    match trestle_node::check_health(&config).await {
        Ok(said) => {
            let _ = writeln!(std::io::stdout(), "{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&format!("error: {why}"));
            ExitCode::FAILURE
        }
    }
}

async fn sample_backend(name: String, address: SocketAddr) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return no_signals(&error),
    };
    let served = async { trestle_node::sample_backend(name, address).await?.await };
    tokio::select! {
        served = served => match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("error: {address}: {error}"));
                ExitCode::from(EXIT_SYSTEM)
            }
        },
        () = signals.next() => ExitCode::SUCCESS,
    }
}

async fn sample_client(target: SocketAddr) -> ExitCode {
    match Signals::listen() {
        Ok(mut signals) => {
            SampleClient::of(target).run(signals.next()).await;
            ExitCode::SUCCESS
        }
        Err(error) => no_signals(&error),
    }
}

/// Removes what members that are gone left, and says what.
fn scrub() -> ExitCode {
    match trestle_node::cleanup() {
        Ok(done) => {
            let _ = write!(std::io::stdout(), "{done}");
            if done.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn start_failed(error: &StartError) -> ExitCode {
    error!(%error, "not started");
    say(&format!("error: {error}"));
    ExitCode::from(error.exit_code())
}

async fn run(config: Config, dropped: DroppedLines) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return no_signals(&error),
    };
    let started = tokio::select! {
        started = Node::start(config, dropped) => started,
        () = signals.next() => {
            info!("stopped before it had started");
            return ExitCode::SUCCESS;
        }
    };
    let node = match started {
        Ok(node) => node,
        Err(error) => return start_failed(&error),
    };
    tokio::select! {
        failure = node.failed() => return failed(node, &failure, signals).await,
        () = signals.next() => {}
        () = reopen_on_hangup(&node) => {}
    }
    signals.end_at_next();
    info!("stopping; a second signal stops at once");
    let cut = node.shutdown().await;
    info!(connections_cut = cut, "stopped");
    ExitCode::SUCCESS
}

/// Ends a member that cannot go on; what clients have open may finish. A signal ends that at once.
async fn failed(node: Node, failure: &str, mut signals: Signals) -> ExitCode {
    error!(
        failure,
        "this member cannot go on: it gives up its virtual IPs, takes no new connections, and ends"
    );
    tokio::select! {
        cut = node.give_up() => error!(connections_cut = cut, "ended; start it again"),
        () = signals.next() => error!("ended by a signal before open connections had finished"),
    }
    ExitCode::from(EXIT_FAILED)
}

/// Whether the person at the terminal says so.
fn confirmed() -> bool {
    let _ =
        write!(std::io::stdout(), "Go on? Only \"yes\" does it: ").and_then(|()| std::io::stdout().flush());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

async fn recover(config: Config, yes: bool) -> ExitCode {
    let failed = |error: RecoveryError| {
        say(&format!("error: {error}"));
        ExitCode::from(error.exit_code())
    };
    let recovery = match RecoveryPlan::prepare(&config).await {
        Ok(recovery) => recovery,
        Err(error) => return failed(error),
    };
    let _ = write!(std::io::stdout(), "{recovery}");
    if !yes && !confirmed() {
        say("error: nothing was changed; answer \"yes\", or give --yes");
        return ExitCode::FAILURE;
    }
    match recovery.commit() {
        Ok(done) => {
            let _ = writeln!(std::io::stdout(), "{done}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(error),
    }
}

/// The text of a token. What is typed ends with the line.
fn token(source: &TokenSource) -> Result<String, JoinError> {
    let unreadable = |path: &str, error| JoinError::TokenFile { path: path.into(), error };
    match source {
        TokenSource::Variable => Ok(std::env::var(config::TOKEN_VARIABLE).unwrap_or_default()),
        TokenSource::File(path) => {
            std::fs::read_to_string(path).map_err(|error| unreadable(&path.display().to_string(), error))
        }
        TokenSource::Stdin => {
            let stdin = std::io::stdin();
            let mut text = String::new();
            if stdin.is_terminal() {
                let _ = write!(std::io::stderr(), "Token: ");
                stdin.read_line(&mut text).map_err(|error| unreadable("standard input", error))?;
            } else {
                stdin
                    .take(TOKEN_READ_MAX)
                    .read_to_string(&mut text)
                    .map_err(|error| unreadable("standard input", error))?;
            }
            Ok(text)
        }
    }
}

async fn join(config: Config, source: TokenSource) -> ExitCode {
    let joined = match token(&source) {
        Ok(token) => Box::pin(trestle_node::enroll(config, &token)).await,
        Err(error) => Err(error),
    };
    match joined {
        Ok(joined) => {
            let _ = writeln!(std::io::stdout(), "{joined}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dev(data_dir: Option<std::path::PathBuf>) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return no_signals(&error),
    };
    let dev = match Dev::start(data_dir).await {
        Ok(dev) => dev,
        Err(error) => {
            say(&format!("error: {error}"));
            return ExitCode::from(error.exit_code());
        }
    };
    let _ = writeln!(std::io::stdout(), "{}", dev.description());
    tokio::select! {
        failure = dev.failed() => {
            say(&format!("error: {failure}"));
            return ExitCode::from(EXIT_FAILED);
        }
        () = signals.next() => {}
    }
    signals.end_at_next();
    say("stopping the three members; a second signal stops at once");
    dev.shutdown().await;
    ExitCode::SUCCESS
}
