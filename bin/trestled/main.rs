//! `trestled`: one member of a Trestle cluster. Arguments, logging, signals, exit code; everything else is in the crates.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use trestle_node::config::{self, Config, Invocation, LogFormat};
use trestle_node::{Dev, DroppedLines, Node, StartError, descriptors};

/// Exit code for a configuration that cannot be used, as in sysexits.h (EX_USAGE).
const EXIT_USAGE: u8 = 64;
/// Exit code when Raft, its storage or another part of the member died while running (EX_IOERR): a restart may mend it.
const EXIT_FAILED: u8 = 74;
/// Log lines that wait for a slow reader of the log; more are dropped and counted, because nothing may wait for it.
const LOG_LINES_QUEUED_MAX: usize = 16_384;

/// How long what still runs at the end is waited for.
const RUNTIME_END_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let invocation = match config::invocation(&config::command().get_matches()) {
        Ok(invocation) => invocation,
        Err(invalid) => {
            for violation in &invalid.0 {
                say(&format!("error: {violation}"));
            }
            return ExitCode::from(EXIT_USAGE);
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
            let rights = trestle_node::give_up_rights(&config);
            let (_guard, dropped) = start_logging(config.log_format, "info");
            info!(open_files = limit.map_or("unlimited".to_owned(), |limit| limit.to_string()), "limit");
            if let Err(error) = rights {
                warn!(%error, "this process keeps more rights than it needs");
            }
            on_runtime(run(*config, dropped))
        }
        Invocation::CheckExec(check) => check.run(),
        Invocation::Dev { data_dir } => {
            let (_guard, _) = start_logging(LogFormat::Text, "warn,trestle_consensus=error");
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
    let quiet = format!("{level},openraft=error,sled=warn,hyper=warn,tonic=warn,tower=warn");
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

/// Ends the process at once at a second signal.
async fn wait_for_signal() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        say("second signal: stopping at once");
        std::process::exit(130);
    });
    Ok(())
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

/// Removes what members that are gone left, and says what.
fn scrub() -> ExitCode {
    match trestle_node::scrub() {
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
    let node = match Node::start(config, dropped).await {
        Ok(node) => node,
        Err(error) => return start_failed(&error),
    };
    tokio::select! {
        failure = node.failed() => return failed(node, &failure).await,
        signal = wait_for_signal() => if let Err(error) = signal { warn!(%error, "signals cannot be received") },
        () = reopen_on_hangup(&node) => {}
    }
    info!("stopping; a second signal stops at once");
    let cut = node.shutdown().await;
    info!(connections_cut = cut, "stopped");
    ExitCode::SUCCESS
}

/// Ends a member that cannot go on; what clients have open may finish. A signal ends that at once.
async fn failed(node: Node, failure: &str) -> ExitCode {
    error!(
        failure,
        "this member cannot go on: it gives up its virtual IPs, takes no new connections, and ends"
    );
    tokio::select! {
        cut = node.give_up() => error!(connections_cut = cut, "ended; start it again"),
        _ = wait_for_signal() => error!("ended by a signal before open connections had finished"),
    }
    ExitCode::from(EXIT_FAILED)
}

async fn dev(data_dir: Option<std::path::PathBuf>) -> ExitCode {
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
        signal = wait_for_signal() => if let Err(error) = signal { warn!(%error, "signals cannot be received") },
    }
    say("stopping the three members; a second signal stops at once");
    dev.shutdown().await;
    ExitCode::SUCCESS
}
