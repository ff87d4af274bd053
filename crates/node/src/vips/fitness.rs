//! Whether this member should hold virtual IPs, and which others could.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use trestle_api::{convert, peer};
use trestle_consensus::CAUGHT_UP_WITHIN;
use trestle_engine::ownership::{Fault, FaultKey, FitnessReport, OwnFaults, OwnershipEvent};
use trestle_model::MemberId;

use super::command::VipCommand;
use super::shared::Faults;
use super::{check, faults};
use crate::events::Event as Happened;
use crate::member::Member;
use crate::supervise::Lifetime;

/// Time between two looks: short against what a fault costs, long against what a look does.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How long this member must have been alone in seeing every backend of a pool dead. When they do die, members find out one
/// after another, up to some check intervals apart, and the virtual IPs need not move for that.
const ISOLATED_FOR: Duration = Duration::from_secs(10);

/// Every how many of them is made while there are no virtual IPs.
const IDLE_ROUNDS: u32 = 4;

pub(super) fn follow(member: &Arc<Member>, commands: &Sender<VipCommand>) {
    let api = tokio::runtime::Handle::current();
    let parts = &member.supervisor;
    parts.spawn(&api, "operator's check", Lifetime::UntilDone, check::follow(member.clone()));
    parts.spawn(&api, "fitness", Lifetime::UntilStop, watch(member.clone(), commands.clone()));
}

/// What is known from one look to the next.
#[derive(Default)]
struct Watch {
    own: OwnFaults,
    /// The reasons to leave that the machine was told.
    told: BTreeSet<Fault>,
    isolated_since: Option<Instant>,
    /// What the data plane was told: whether this member is drained, and by when connections end.
    drained: (bool, Option<Duration>),
}

async fn watch(member: Arc<Member>, commands: Sender<VipCommand>) {
    let mut watch = Watch::default();
    let mut round = IDLE_ROUNDS - 1;
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        round = (round + 1) % IDLE_ROUNDS;
        if round != 0 && member.consensus.view().borrow().state.vips.is_empty() {
            continue;
        }
        if !watch.look(&member, &commands).await {
            return;
        }
    }
}

impl Watch {
    /// Looks once; false when the owner has ended.
    async fn look(&mut self, member: &Member, commands: &Sender<VipCommand>) -> bool {
        // The others are asked before this member looks at itself: what they had in force then is in force here by now, or
        // their answers are not compared. Not so a check of its own: what many machines share fails on all at about the same time,
        // and an answer from before says nothing of a failure that came while it was awaited.
        let failing = !member.vips.shared.status().checks.is_empty();
        let others = if member.leads() { ask(member).await } else { Vec::new() };
        let (revision, mut faults) = member.own_faults();
        self.add_isolation(member, &others, &mut faults);
        let known = |key: &&FaultKey| failing || key.fault != Fault::Check;
        self.own.observe(revision, &faults.keys().filter(known).cloned().collect());
        show(member, faults);
        let (targets, reasons) = self.decide(member, &others);
        let gone: Vec<Fault> = self.told.difference(&reasons).copied().collect();
        let come: Vec<Fault> = reasons.difference(&self.told).copied().collect();
        self.told = reasons;
        // What has gone comes first and what has come last: nobody is to leave for a reason of before, nor for the sake of
        // somebody who cannot take over.
        let first = gone.into_iter().map(|fault| OwnershipEvent::Fault { fault, present: false });
        let last = come.into_iter().map(|fault| OwnershipEvent::Fault { fault, present: true });
        let goes_on = tell(commands, first.chain([OwnershipEvent::Targets(targets)]).chain(last));
        // What serves virtual IPs goes on to accept, drained or not.
        let drain = match member.drain() {
            Some(timeout) if !member.vips.holds_any() => (true, timeout),
            _ => (false, None),
        };
        if std::mem::replace(&mut self.drained, drain) != drain {
            member.plane.drain(drain.0, drain.1);
        }
        goes_on
    }

    fn add_isolation(&mut self, member: &Member, others: &[Other], faults: &mut Faults) {
        let alone = isolated(member, others);
        self.isolated_since = self.isolated_since.filter(|_| !alone.is_empty());
        if alone.is_empty() || self.isolated_since.get_or_insert_with(Instant::now).elapsed() < ISOLATED_FOR {
            return;
        }
        for key in faults::dead(&alone) {
            let pool = key.subject.strip_prefix("pools/").unwrap_or(&key.subject);
            let words = format!("it alone sees every backend of pool \"{pool}\" dead");
            faults.insert(key, words);
        }
    }

    /// To whom the virtual IPs can go, and for which reasons they should.
    fn decide(&self, member: &Member, others: &[Other]) -> (Vec<MemberId>, BTreeSet<Fault>) {
        if !member.leads() {
            return (Vec::new(), BTreeSet::new());
        }
        let voters = member.consensus.targets();
        let mut fitter = Vec::new();
        let mut reasons = BTreeSet::new();
        for id in &voters {
            let Some(other) = others.iter().find(|other| other.id == *id) else { continue };
            // A leader whose log is not written cannot put a release on record, which the machine waits for: see log_watch.
            let mut found = self.own.in_favour_of(&other.report);
            found.remove(&Fault::Log);
            if !found.is_empty() {
                fitter.push(*id);
                reasons.extend(found);
            }
        }
        // Who leaves for a reason goes to somebody who does not have it.
        if fitter.is_empty() { (successors(member, others, &self.own), reasons) } else { (fitter, reasons) }
    }
}

/// Tells the owner; false when it has ended.
fn tell(commands: &Sender<VipCommand>, events: impl IntoIterator<Item = OwnershipEvent>) -> bool {
    events.into_iter().all(|event| commands.send(VipCommand::Event(event)).is_ok())
}

/// Shows the faults that there are now, before the machine acts on them.
fn show(member: &Member, new: Faults) {
    let mut status = member.vips.shared.status();
    let known = std::mem::replace(&mut status.faults, new);
    let (come, none): (Vec<String>, bool) = (
        status
            .faults
            .iter()
            .filter(|(key, _)| !known.contains_key(*key))
            .map(|(_, words)| words.clone())
            .collect(),
        status.faults.is_empty(),
    );
    drop(status);
    for why in come {
        member.journal.emit(&Happened::Unfit { why });
    }
    if none && !known.is_empty() {
        member.journal.emit(&Happened::Fit);
    }
}

/// Another voter's answer.
struct Other {
    id: MemberId,
    status: peer::MemberReport,
    report: FitnessReport,
}

/// Asks the other voters how they are.
async fn ask(member: &Member) -> Vec<Other> {
    let view = member.consensus.view().borrow().clone();
    let others: Vec<_> = view.state.members.values().cloned().collect();
    let others =
        others.into_iter().filter(|other| Some(other.id) != member.id() && view.voters.contains(&other.id));
    let patience = member.consensus.timing().election_max.max(POLL_INTERVAL);
    let here: BTreeSet<FaultKey> = faults::dead(&dead_here(member));
    let answers = others.map(|other| {
        let here = &here;
        async move {
            let ask = peer::ReportRequest { no_digest: true, ..Default::default() };
            // One that does not answer in time is no successor, and what is wrong here is not to wait for it.
            let status = tokio::time::timeout(patience, member.ask(&other, &ask)).await.ok()?.ok()?.status?;
            let mut report = faults::report(&status);
            // Where both see nothing of a pool, it is not this member alone.
            report.faults.extend(faults::dead(&status.dead_pools).intersection(here).cloned());
            Some(Other { id: other.id, status, report })
        }
    });
    join_all(answers).await.into_iter().flatten().collect()
}

/// To whom leadership can go, best first, by what they say now.
pub(super) async fn targets(member: &Member) -> Vec<MemberId> {
    let others = ask(member).await;
    let (revision, faults) = member.own_faults();
    let mut own = OwnFaults::default();
    own.observe(revision, &faults.into_keys().collect());
    successors(member, &others, &own)
}

/// To whom leadership can go from a leader whose log is not written, best first. It cannot vote for anybody either: there is none
/// unless the others whose logs are written are a quorum.
pub(super) async fn targets_without_own_vote(member: &Member) -> Vec<MemberId> {
    let mut others = ask(member).await;
    others.retain(|other| !other.status.abstains && !other.report.unknown && !other.report.writes_no_log());
    let voters = member.consensus.view().borrow().voters.len();
    if others.len() <= voters / 2 {
        return Vec::new();
    }
    let (revision, faults) = member.own_faults();
    let mut own = OwnFaults::default();
    own.observe(revision, &faults.into_keys().collect());
    successors(member, &others, &own)
}

/// The voters that are no worse than this member: a fault that all have stops no move. Those that have given the virtual IPs
/// up not long ago are left alone, unless somebody asks for a hand-over.
fn successors(member: &Member, others: &[Other], own: &OwnFaults) -> Vec<MemberId> {
    let raft = member.consensus.status();
    // What another one has of the log is what it says itself: what this member remembers of it may have been lost since.
    let able = |id: &MemberId| {
        others.iter().any(|other| {
            let lag = raft.committed.saturating_sub(other.status.applied_index);
            other.id == *id && !other.status.abstains && lag <= CAUGHT_UP_WITHIN
        })
    };
    let voters: Vec<MemberId> = member.consensus.targets().into_iter().filter(able).collect();
    let those = |suits: &dyn Fn(&FitnessReport) -> bool| -> Vec<MemberId> {
        let suits = |id: &&MemberId| others.iter().any(|other| other.id == **id && suits(&other.report));
        voters.iter().filter(suits).copied().collect()
    };
    let asked = member.vips.moves.load(Ordering::Relaxed) > 0 || member.vips.is_leaving();
    let fit = those(&|report| own.matched_by(report) && (asked || report.recovering.is_empty()));
    // What has been let go of cannot be taken back in this term, so an unfit member that can serve is better than none.
    // All may have become unfit at once, by a check of what they share.
    if fit.is_empty() && member.vips.is_leaving() { those(&|report| !report.is_unable()) } else { fit }
}

/// The pools of which this member sees every backend dead, "pools/{pool}".
fn dead_here(member: &Member) -> Vec<String> {
    member.plane.dead_pools().iter().map(convert::pool_name).collect()
}

/// Those that another member does not see so.
fn isolated(member: &Member, others: &[Other]) -> Vec<String> {
    let sees = |pool: &String| others.iter().any(|other| !other.status.dead_pools.contains(pool));
    dead_here(member).into_iter().filter(sees).collect()
}

impl Member {
    /// Whether this member leads, as far as it knows.
    fn leads(&self) -> bool {
        self.consensus.leadership().borrow().leads.is_some()
    }

    /// Whether its own record says that it is drained.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain().is_some()
    }

    /// The time of its drain, if it is drained.
    fn drain(&self) -> Option<Option<Duration>> {
        let state = self.consensus.view().borrow().state.clone();
        let own = state.members.get(&self.id()?).filter(|own| own.draining)?;
        Some(own.drain_timeout)
    }
}
