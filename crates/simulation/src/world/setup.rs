//! Founding the cluster, and finding whether it serves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use trestle_consensus::Consensus;
use trestle_model::{
    ClusterId, Command, MemberId, PoolName, PoolSpec, Proposal, VipAddress, VipName, VipSpec,
};

use super::Simulation;
use crate::kernel::VIP;
use crate::process::spec;

/// What a task has come to.
type Progress = Arc<Mutex<Option<Result<(), String>>>>;

fn set(progress: &Progress, done: Result<(), String>) {
    *progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
}

fn take(progress: &Progress) -> Option<Result<(), String>> {
    progress.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Founding.
#[derive(Default)]
pub(super) struct Setup {
    progress: Progress,
    begun: bool,
    last: String,
}

async fn found(consensus: Consensus, members: usize) -> Result<(), String> {
    let words = |error: trestle_consensus::Error| error.to_string();
    let cluster = ClusterId::parse("00000000000000000000000000000001")?;
    if consensus.view().borrow().state.cluster_id.is_none() {
        consensus.bootstrap(cluster, spec(0), Box::new(|_| Ok(None))).await.map_err(words)?;
    }
    let (progress, _seen) = mpsc::channel(10_000);
    for member in 1..members {
        let taken = consensus.add(spec(member), None, &progress).await.map_err(words)?;
        consensus.promote(taken.id, &progress).await.map_err(words)?;
    }
    let name = VipName::parse("front")?;
    let vip = VipSpec::new(VipAddress::parse(&format!("{VIP}/24"))?);
    let proposal = Proposal { request: None, origin: None, command: Command::put((name, vip)) };
    consensus.propose(proposal, Duration::from_secs(5)).await.map(drop).map_err(words)
}

impl Setup {
    /// True once all members vote.
    pub(super) fn step(&mut self, world: &Simulation) -> bool {
        match take(&self.progress) {
            Some(Ok(())) => return true,
            Some(Err(error)) => (self.begun, self.last) = (false, error),
            None => {}
        }
        let first = &world.members[0];
        let all = world.members.iter().all(|member| member.consensus().is_some());
        if !self.begun
            && all
            && let (Some(consensus), Some(process)) = (first.consensus().cloned(), &first.process)
        {
            self.begun = true;
            let (progress, members) = (self.progress.clone(), world.members.len());
            first.set_clock(world.now);
            process
                .step(|| drop(tokio::spawn(async move { set(&progress, found(consensus, members).await) })));
        }
        false
    }

    pub(super) fn standing(&self) -> &str {
        &self.last
    }
}

/// Whether everything serves: each member takes a write and reads it back, all have applied the same, and nobody waits.
#[derive(Default)]
pub(super) struct Probe {
    progress: Vec<Progress>,
    done: Vec<bool>,
}

async fn probe(consensus: Consensus, member: usize) -> Result<(), String> {
    let words = |error: trestle_consensus::Error| error.to_string();
    let name = PoolName::parse(&format!("probe{member}"))?;
    let command = Command::put((name.clone(), PoolSpec::default()));
    let proposal = Proposal { request: None, origin: None, command };
    let written = consensus.propose(proposal, Duration::from_secs(3)).await.map_err(words)?;
    let view = consensus.read(Duration::from_secs(3)).await.map_err(words)?;
    let found = view.state.pools.get(&name).is_some_and(|entry| entry.pool.revision <= written.revision);
    if found && view.state.revision >= written.revision {
        Ok(())
    } else {
        Err("the write is not read".to_owned())
    }
}

impl Probe {
    /// True once everything serves.
    pub(super) fn step(&mut self, world: &Simulation) -> bool {
        let count = world.members.len();
        self.done.resize(count, false);
        if self.progress.is_empty() {
            self.progress.resize_with(count, Progress::default);
            (0..count).for_each(|member| set(&self.progress[member], Err(String::new())));
        }
        for id in 0..count {
            match take(&self.progress[id]) {
                Some(Ok(())) => self.done[id] = true,
                Some(Err(why)) => {
                    let member = &world.members[id];
                    if !why.is_empty() {
                        world.say(|| format!("m{} does not serve: {why}", id + 1));
                    }
                    let (Some(consensus), Some(process)) = (member.consensus().cloned(), &member.process)
                    else {
                        set(&self.progress[id], Err(String::new()));
                        continue;
                    };
                    let progress = self.progress[id].clone();
                    member.set_clock(world.now);
                    process.step(|| {
                        drop(tokio::spawn(async move { set(&progress, probe(consensus, id).await) }))
                    });
                }
                None => {}
            }
        }
        self.done.iter().all(|done| *done)
            && world.clients.rest()
            && world.is_level()
            && world.unserved.is_none()
    }
}

impl Simulation {
    /// Whether all members vote and have applied the same.
    fn is_level(&self) -> bool {
        let views: Vec<_> =
            self.members.iter().map(|m| m.consensus().map(|c| c.view().borrow().clone())).collect();
        let Some(Some(first)) = views.first() else { return false };
        let all = self.members.len();
        let all_vote = first.voters.len() == all && first.voters.iter().all(|id| *id != MemberId(0));
        all_vote
            && views.iter().flatten().count() == all
            && views.iter().flatten().all(|view| view.applied == first.applied)
    }
}
