//! What Raft says, told to the owner as it comes.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use trestle_consensus::{LeaderTerm, Leadership};
use trestle_engine::ownership::{Elected, OwnershipEvent};
use trestle_model::MemberId;

use super::command::VipCommand;
use super::shared::Shared;
use crate::member::Member;
use crate::supervise::Lifetime;

/// Starts the tasks, on Raft's runtime: nothing of the API may delay them.
pub(super) fn follow(member: &Arc<Member>, commands: &Sender<VipCommand>) {
    let runtime = member.consensus.runtime();
    let parts = &member.supervisor;
    parts.spawn(
        &runtime,
        "leadership news",
        Lifetime::UntilStop,
        leadership(member.clone(), commands.clone()),
    );
    parts.spawn(&runtime, "state news", Lifetime::UntilStop, state(member.clone(), commands.clone()));
    parts.spawn(&runtime, "identity news", Lifetime::UntilStop, identity(member.clone(), commands.clone()));
}

/// Raft's term in which whoever founds a cluster leads.
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

async fn leadership(member: Arc<Member>, commands: Sender<VipCommand>) {
    let mut leadership = member.consensus.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if events(&member.vips.shared, now)
            .into_iter()
            .any(|event| commands.send(VipCommand::Event(event)).is_err())
            || leadership.changed().await.is_err()
        {
            return;
        }
    }
}

async fn state(member: Arc<Member>, commands: Sender<VipCommand>) {
    let mut view = member.consensus.view();
    let mut revision = None;
    loop {
        let now = view.borrow_and_update().clone();
        // What is configured comes before who may serve it.
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

/// Tells that this member has an identity now, and what was told before to nobody.
fn begin(member: &Member, me: MemberId, commands: &Sender<VipCommand>) {
    let view = member.consensus.view().borrow().clone();
    let applied = OwnershipEvent::Applied { term: view.applied_term, tenure: view.state.tenure };
    let leadership = events(&member.vips.shared, *member.consensus.leadership().borrow());
    let news = [VipCommand::Begin(me), VipCommand::State(view.state.clone()), VipCommand::Event(applied)];
    for command in news.into_iter().chain(leadership.into_iter().map(VipCommand::Event)) {
        let _ = commands.send(command);
    }
}

/// Tells when this member comes to belong to a cluster, and when it does no more.
async fn identity(member: Arc<Member>, commands: Sender<VipCommand>) {
    let mut role = member.consensus.role();
    let now = |member: &Member| member.id().map(|me| (me, member.consensus.was_removed()));
    // The owner was told this before it began.
    let mut told = now(&member);
    loop {
        role.borrow_and_update();
        let known = now(&member);
        if let Some((me, removed)) = known.filter(|known| told != Some(*known)) {
            told = known;
            match removed {
                true => drop(commands.send(VipCommand::Withdraw)),
                false => begin(&member, me, &commands),
            }
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}
