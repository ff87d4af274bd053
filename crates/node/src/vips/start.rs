//! Starts what holds the virtual IPs of a member.

use std::sync::Arc;

use super::command::VipCommand;
use super::driver::{Driver, Identity};
use super::fit::OwnAddresses;
use super::kernel::LinuxHost;
use super::owner::Owner;
use super::{fitness, log_watch, raft_events, silence, watchdog};
use crate::member::Member;

/// Starts the owner's thread and the tasks that bring it news. To be called before Raft starts.
///
/// # Errors
/// When the thread cannot be made.
pub(crate) fn start(member: &Arc<Member>) -> std::io::Result<()> {
    let (commands, queue, shared) = member.vips.ends();
    let Some(queue) = queue else { return Ok(()) };
    match member.id() {
        Some(_) if member.consensus.was_removed() => member.vips.tell(VipCommand::Withdraw),
        Some(me) => member.vips.tell(VipCommand::Begin(me)),
        None => {}
    }
    member.vips.tell(VipCommand::State(member.consensus.view().borrow().state.clone()));
    let weak = Arc::downgrade(member);
    // A member that is gone has no parts to miss.
    let whole: watchdog::Whole = Arc::new(move || weak.upgrade().is_none_or(|member| member.is_whole()));
    let host = LinuxHost {
        name: member.config.name.to_string(),
        real_time: member.config.vip.real_time,
        whole: whole.clone(),
        commands: commands.clone(),
    };
    let identity = Identity { name: member.config.name.clone(), own: OwnAddresses::of(&member.config) };
    let ledger = Box::new(member.consensus.clone());
    let mut owner = Owner {
        driver: Driver::new(shared.clone(), identity, Box::new(host), ledger, member.journal.clone()),
        shared,
        supervisor: member.supervisor.clone(),
        idle_watchdog: watchdog::Systemd::from_environment(&whole),
    };
    // A member that restarts must not vote before its machine is there.
    let (ready, begun) = std::sync::mpsc::sync_channel(1);
    let thread = member.supervisor.thread("vip owner", move |pulse| {
        owner.begin(&queue);
        let _ = ready.send(());
        owner.run(&queue, pulse);
    })?;
    let _ = begun.recv();
    member.vips.runs_in(thread);
    raft_events::follow(member, &commands);
    fitness::follow(member, &commands);
    silence::follow(member);
    log_watch::follow(member);
    Ok(())
}
