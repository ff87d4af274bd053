//! The operator's own check: a program that says by its exit code whether this member should hold virtual IPs, as
//! keepalived's `track_script` does.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, timeout};
use trestle_engine::ownership::OwnCheck;

use crate::member::Member;
use crate::reaper;

/// This program, also when a newer one has taken its place meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// How much later than the program the process around it must have ended.
const SPARE: Duration = Duration::from_secs(5);
/// Longest reason, in bytes.
const WORDS_MAX: u64 = 512;

/// Runs the program once, in a process that gives up all rights and ends whatever the program leaves (`check-exec`); the
/// error is why it failed.
async fn run(member: &str, program: &Path, limit: Duration) -> Result<(), String> {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg("check-exec").arg(limit.as_millis().to_string()).arg(member).arg(program);
    // Standard input stays open for as long as this member waits; then the process ends what it has started, and itself.
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

/// Runs the check of the configuration for ever, if there is one, and shows what it says.
pub(super) async fn follow(member: Arc<Member>) {
    let config = &member.config.vip;
    let Some(program) = &config.check else { return };
    let mut check = OwnCheck::default();
    let mut ticks = tokio::time::interval(config.check_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = run(member.config.name.as_str(), program, config.check_timeout).await;
        let failing = check.observe(result.is_ok(), config.check_rise.get(), config.check_fall.get());
        let mut shown = member.vips.shared.shown();
        match (failing, result) {
            (false, _) => shown.check = None,
            (true, Err(why)) => shown.check = Some(format!("its own check {} {why}", program.display())),
            // It succeeds again, but not often enough yet.
            (true, Ok(())) => {}
        }
    }
}
