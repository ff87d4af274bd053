//! The operator's own check: a program that says by its exit code whether this member should hold virtual IPs, as
//! keepalived's `track_script` does.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::Command;
use tokio::time::{MissedTickBehavior, timeout};
use trestle_engine::ownership::OwnCheck;

use crate::member::Member;

/// Runs the program once; the error is why it failed. It is killed when it takes too long.
async fn run(program: &Path, limit: std::time::Duration) -> Result<(), String> {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot be run: {error}"))?;
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("ended with {status}")),
        Ok(Err(error)) => Err(format!("cannot be waited for: {error}")),
        Err(_) => Err(format!("did not end within {limit:?}")),
    }
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
        let result = run(program, config.check_timeout).await;
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
