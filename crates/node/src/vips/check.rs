//! The operator's own checks: a program whose exit code says whether this member should hold virtual IPs, like keepalived's
//! `track_script`, and a service of this machine that must answer.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, timeout};
use trestle_dataplane::{CheckResult, DataPlane, LocalCheck};
use trestle_engine::ownership::OperatorCheck;

use super::shared::Shared;
use crate::config::{Config, VipConfig};
use crate::reaper;

/// The program of this process, even when a newer file has replaced it.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// How much longer than the program the process around it may take to end.
const SPARE: Duration = Duration::from_secs(5);
/// Longest reason, in bytes.
const WORDS_MAX: u64 = 512;

/// Runs the program once, in a process that gives up all rights and ends whatever the program leaves (`check-exec`); the
/// error is why it failed.
async fn run(member: &str, program: &Path, limit: Duration) -> Result<(), String> {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg("check-exec").arg(limit.as_millis().to_string()).arg(member).arg(program);
    // Standard input stays open while this member waits. When it closes, the process ends what it has started, and itself.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env_clear().current_dir("/").process_group(0);
    let mut child = reaper::spawn(&mut command).map_err(|error| format!("was not run: {error}"))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let words = child.stdout.take();
    let told = async {
        let mut said = String::new();
        if let Some(words) = words {
            let read = words.take(WORDS_MAX).read_to_string(&mut said).await;
            read.map_err(|error| format!("was not heard of: {error}"))?;
        }
        let status = child.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
        match said.as_str() {
            "" if status.success() => Ok(()),
            "" => Err(format!("was not run: the process around it ended with {status}")),
            said => Err(said.to_owned()),
        }
    };
    let outcome = timeout(limit + SPARE, told).await;
    if outcome.is_err()
        && let Some(group) = group
    {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
    if let Some(process) = group {
        reaper::forget(process);
    }
    outcome.unwrap_or_else(|_| Err(format!("did not end within {limit:?}")))
}

/// One check of the configuration.
enum Check {
    Program(PathBuf),
    Service(String, Arc<LocalCheck>),
}

impl Check {
    fn name(&self) -> String {
        match self {
            Self::Program(path) => path.display().to_string(),
            Self::Service(url, _) => url.clone(),
        }
    }

    /// Runs the check once. The error says why it failed, in words that follow its name. The answer is `None` when this member
    /// lacked something to run it, which says nothing about the service.
    async fn run(&self, config: &Config, plane: &DataPlane) -> Option<Result<(), String>> {
        let limit = config.vip.check_timeout;
        match self {
            Self::Program(path) => Some(run(config.name.as_str(), path, limit).await),
            Self::Service(_, check) => match timeout(limit + SPARE, plane.check_local(check)).await {
                Ok(Some(CheckResult::NotMade(_)) | None) => None,
                Ok(Some(result)) if result.is_success() => Some(Ok(())),
                Ok(Some(result)) => Some(Err(format!("fails: {result}"))),
                Err(_) => Some(Err(format!("did not end within {limit:?}"))),
            },
        }
    }
}

/// The checks that the configuration names.
fn checks(config: &VipConfig) -> Vec<Check> {
    let program = config.check.iter().cloned().map(Check::Program);
    let service = config.local_check.iter().map(|local| {
        let ca_file = local.ca_file.as_deref();
        let check = LocalCheck::new(local.kind.clone(), local.address, ca_file, config.check_timeout);
        Check::Service(local.url.clone(), Arc::new(check))
    });
    program.chain(service).collect()
}

/// Runs the checks of the configuration for ever, if there are any, and shows their results.
pub(super) async fn follow(config: Arc<Config>, plane: Arc<DataPlane>, shared: Arc<Shared>) {
    let checks = checks(&config.vip);
    join_all(checks.iter().map(|check| follow_one(&config, &plane, &shared, check))).await;
}

async fn follow_one(own: &Config, plane: &DataPlane, shared: &Shared, check: &Check) {
    let config = &own.vip;
    let mut rise_and_fall = OperatorCheck::default();
    let mut ticks = tokio::time::interval(config.check_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(result) = check.run(own, plane).await else { continue };
        let failing = rise_and_fall.observe(result.is_ok(), config.check_rise.get(), config.check_fall.get());
        let mut status = shared.status();
        let name = check.name();
        match (failing, result) {
            (false, Ok(())) => {
                status.checks.remove(&name);
                status.doubted_checks.remove(&name);
            }
            (false, Err(_)) => drop(status.doubted_checks.insert(name)),
            (true, Err(why)) => {
                let words = format!("its own check {name} {why}");
                status.doubted_checks.remove(&name);
                status.checks.insert(name, words);
            }
            // It succeeds again, but not often enough yet.
            (true, Ok(())) => {}
        }
    }
}
