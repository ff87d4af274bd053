//! Starts what holds the virtual IPs of a member.

use std::sync::Arc;

use trestle_dataplane::DataPlane;

use super::command::VipCommand;
use super::driver::{Driver, Identity};
use super::fit::OwnAddresses;
use super::fitness::Surroundings;
use super::kernel::LinuxHost;
use super::owner::Owner;
use super::succession::Succession;
use super::{check, fitness, log_watch, owner_watch, raft_events, watchdog};
use crate::events::Journal;
use crate::supervise::{Lifetime, Supervisor};

/// Starts the owner's thread and the tasks that report to it. Must be called before Raft starts. `whole` says whether every part of
/// the member gives signs of life.
///
/// # Errors
/// When the thread cannot be made.
pub(crate) fn start(
    succession: &Succession,
    plane: &Arc<DataPlane>,
    journal: &Journal,
    supervisor: &Supervisor,
    whole: &watchdog::Whole,
) -> std::io::Result<()> {
    let Succession { local, vips, .. } = succession;
    let (commands, queue, shared) = vips.ends();
    let Some(queue) = queue else { return Ok(()) };
    match local.id() {
        Some(_) if local.consensus.was_removed() => vips.tell(VipCommand::Withdraw),
        Some(me) => vips.tell(VipCommand::Begin(me)),
        None => {}
    }
    vips.tell(VipCommand::State(local.consensus.view().borrow().state.clone()));
    let host = LinuxHost {
        name: local.config.name.to_string(),
        real_time: local.config.vip.real_time,
        whole: whole.clone(),
        commands: commands.clone(),
    };
    let identity = Identity { name: local.config.name.clone(), own: OwnAddresses::of(&local.config) };
    let ledger = Box::new(local.consensus.clone());
    let mut owner = Owner {
        driver: Driver::new(shared.clone(), identity, Box::new(host), ledger, journal.clone()),
        shared: shared.clone(),
        supervisor: supervisor.clone(),
        idle_watchdog: watchdog::Systemd::from_environment(whole),
    };
    // A member that restarts must not vote before its machine exists.
    let (ready, begun) = std::sync::mpsc::sync_channel(1);
    let thread = supervisor.thread("vip owner", move |pulse| {
        owner.begin(&queue);
        let _ = ready.send(());
        owner.run(&queue, pulse);
    })?;
    let _ = begun.recv();
    vips.runs_in(thread);
    raft_events::follow(local, &shared, supervisor, &commands);
    let api = tokio::runtime::Handle::current();
    let checks = check::follow(local.config.clone(), plane.clone(), shared.clone());
    supervisor.spawn(&api, "operator's check", Lifetime::UntilDone, checks);
    let (journal, plane) = (journal.clone(), plane.clone());
    let around = Surroundings { plane, succession: succession.clone(), journal, commands };
    supervisor.spawn(&api, "fitness", Lifetime::UntilStop, fitness::watch(around));
    // On Raft's runtime: nothing of the API may delay these two.
    let (raft, consensus) = (local.consensus.runtime(), local.consensus.clone());
    let owner = owner_watch::watch(consensus.clone(), shared.clone(), succession.clone());
    supervisor.spawn(&raft, "owner watch", Lifetime::UntilStop, owner);
    let log = log_watch::watch(consensus, shared, supervisor.clone(), succession.clone());
    supervisor.spawn(&raft, "log watch", Lifetime::UntilStop, log);
    Ok(())
}
