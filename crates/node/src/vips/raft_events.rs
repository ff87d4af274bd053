//! Passes what Raft reports on to the owner.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use trestle_consensus::{Consensus, LeaderTerm, Leadership};
use trestle_engine::ownership::{Elected, OwnershipEvent};
use trestle_model::MemberId;

use super::command::VipCommand;
use super::shared::Shared;
use crate::supervise::{Lifetime, Supervisor};
use crate::this_member::ThisMember;

/// Starts the tasks, on Raft's runtime: nothing of the API may delay them.
pub(super) fn follow(
    local: &ThisMember,
    shared: &Arc<Shared>,
    supervisor: &Supervisor,
    commands: &Sender<VipCommand>,
) {
    let (runtime, consensus) = (local.consensus.runtime(), local.consensus.clone());
    let leadership = leadership(consensus.clone(), shared.clone(), commands.clone());
    supervisor.spawn(&runtime, "leadership news", Lifetime::UntilStop, leadership);
    supervisor.spawn(&runtime, "state news", Lifetime::UntilStop, state(consensus, commands.clone()));
    let identity = identity(local.consensus.clone(), shared.clone(), commands.clone());
    supervisor.spawn(&runtime, "identity news", Lifetime::UntilStop, identity);
}

/// The same without anybody who watches the tasks, on the runtime that this is called on.
pub(super) fn follow_simulated(consensus: &Consensus, shared: &Arc<Shared>, commands: &Sender<VipCommand>) {
    tokio::spawn(leadership(consensus.clone(), shared.clone(), commands.clone()));
    tokio::spawn(state(consensus.clone(), commands.clone()));
    tokio::spawn(identity(consensus.clone(), shared.clone(), commands.clone()));
}

/// Raft's term in which the founder of a cluster leads.
const FIRST_TERM: u64 = 1;

/// How a member came to lead.
pub(crate) fn elected(leads: &LeaderTerm) -> Elected {
    match leads {
        LeaderTerm { alone: true, .. } => Elected::Alone,
        LeaderTerm { by_transfer: true, .. } => Elected::ByTransfer,
        _ => Elected::ByTimeout,
    }
}

/// The same in words.
pub(crate) fn why_it_leads(elected: Elected, term: u64) -> &'static str {
    match elected {
        Elected::Alone if term == FIRST_TERM => "it founded the cluster",
        Elected::Alone => "it is the only voter",
        Elected::ByTransfer => "leadership was handed to it",
        Elected::ByTimeout => "it was elected leader",
    }
}

pub(super) fn events(shared: &Shared, leadership: Leadership) -> Vec<OwnershipEvent> {
    let Some(leads) = leadership.leads else { return vec![OwnershipEvent::Following] };
    let mut events = vec![OwnershipEvent::Leading { term: leads.term, elected: elected(&leads) }];
    if leads.transferring {
        events.push(OwnershipEvent::TransferBegan);
    }
    if let Some(at) = leads.quorum_acked {
        events.push(OwnershipEvent::QuorumAcked { term: leads.term, sent: shared.moment(at) });
    }
    events
}

async fn leadership(consensus: Consensus, shared: Arc<Shared>, commands: Sender<VipCommand>) {
    let mut leadership = consensus.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if events(&shared, now).into_iter().any(|event| commands.send(VipCommand::Event(event)).is_err())
            || leadership.changed().await.is_err()
        {
            return;
        }
    }
}

async fn state(consensus: Consensus, commands: Sender<VipCommand>) {
    let mut view = consensus.view();
    let mut revision = None;
    loop {
        let now = view.borrow_and_update().clone();
        // The configuration comes before the right to serve it.
        if revision.replace(now.state.revision) != Some(now.state.revision)
            && commands.send(VipCommand::State(now.state.clone())).is_err()
        {
            return;
        }
        let applied = OwnershipEvent::Applied { term: now.applied_term, tenure: now.state.tenure };
        if commands.send(VipCommand::Event(applied)).is_err() || view.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the owner this member's new identity, and what it missed before it had one.
fn begin(consensus: &Consensus, shared: &Shared, me: MemberId, commands: &Sender<VipCommand>) {
    let view = consensus.view().borrow().clone();
    let applied = OwnershipEvent::Applied { term: view.applied_term, tenure: view.state.tenure };
    let leadership = events(shared, *consensus.leadership().borrow());
    let news = [VipCommand::Begin(me), VipCommand::State(view.state.clone()), VipCommand::Event(applied)];
    for command in news.into_iter().chain(leadership.into_iter().map(VipCommand::Event)) {
        let _ = commands.send(command);
    }
}

/// Tells the owner when this member joins a cluster, and when it was removed from it.
async fn identity(consensus: Consensus, shared: Arc<Shared>, commands: Sender<VipCommand>) {
    let mut role = consensus.role();
    let now = || consensus.identity().map(|identity| (identity.member_id, consensus.was_removed()));
    // The owner was told this before it began.
    let mut told = now();
    loop {
        role.borrow_and_update();
        let known = now();
        if let Some((me, removed)) = known.filter(|known| told != Some(*known)) {
            told = known;
            match removed {
                true => drop(commands.send(VipCommand::Withdraw)),
                false => begin(&consensus, &shared, me, &commands),
            }
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}
