//! Whether this member should hold virtual IPs, and which others could.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tracing::{info, warn};
use trestle_api::{peer, v1};
use trestle_engine::ownership::{Event, Fault};
use trestle_model::MemberId;

use super::check::{self, Failure};
use super::{Order, locked};
use crate::member::Member;

/// Time between two looks: short against what a fault costs, long against what a look does.
const LOOK: Duration = Duration::from_millis(250);

/// How long this member must have been alone in seeing every backend of a pool dead. When they do die, members find out one
/// after another, up to some check intervals apart, and the virtual IPs need not move for that.
const BLIND_FOR: Duration = Duration::from_secs(10);

/// Every how many of them is made while there are no virtual IPs.
const IDLE_ROUNDS: u32 = 4;

pub(super) fn follow(member: &Arc<Member>, orders: &Sender<Order>) {
    let failure = Failure::default();
    tokio::spawn(check::follow(member.config.vip.clone(), failure.clone()));
    tokio::spawn(watch(member.clone(), orders.clone(), failure));
}

async fn watch(member: Arc<Member>, orders: Sender<Order>, check: Failure) {
    let mut known = BTreeMap::new();
    let mut round = IDLE_ROUNDS - 1;
    let (mut drained, mut blind_since) = (false, None);
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        round = (round + 1) % IDLE_ROUNDS;
        if round != 0 && member.consensus.view().borrow().state.vips.is_empty() {
            continue;
        }
        let others = if member.leads() { ask(&member).await } else { Vec::new() };
        let mut faults = own_faults(&member, &check);
        let alone = blind(&member, &others);
        blind_since = blind_since.filter(|_| alone.is_some());
        if let Some(pools) = alone
            && blind_since.get_or_insert_with(Instant::now).elapsed() >= BLIND_FOR
        {
            faults.insert(Fault::Blind, format!("it alone sees every backend of {pools} dead"));
        }
        let targets = if member.leads() { successors(&member, &others) } else { Vec::new() };
        let (gone, come) = changes(&mut known, faults, &member);
        // What has gone comes first and what has come last: nobody is to leave for a reason of before, nor for the sake of
        // somebody who cannot take over.
        let first = gone.into_iter().map(|fault| Event::Fault { fault, present: false });
        let last = come.into_iter().map(|fault| Event::Fault { fault, present: true });
        if !tell(&orders, first.chain([Event::Targets(targets)]).chain(last)) {
            return;
        }
        // What serves virtual IPs goes on to accept, drained or not.
        let drain = member.is_draining() && !member.vips.holds_any();
        if std::mem::replace(&mut drained, drain) != drain {
            member.plane.drain(drain);
        }
    }
}

/// Tells the owner; false when it has ended.
fn tell(orders: &Sender<Order>, events: impl IntoIterator<Item = Event>) -> bool {
    events.into_iter().all(|event| orders.send(Order::Event(event)).is_ok())
}

/// Shows the faults that there are now; answers those that have gone, and those that have come.
fn changes(
    known: &mut BTreeMap<Fault, String>,
    new: BTreeMap<Fault, String>,
    member: &Member,
) -> (Vec<Fault>, Vec<Fault>) {
    let gone: Vec<Fault> = known.keys().filter(|fault| !new.contains_key(fault)).copied().collect();
    let come: Vec<Fault> = new.keys().filter(|fault| !known.contains_key(fault)).copied().collect();
    for fault in &come {
        warn!(why = new.get(fault).map_or("", String::as_str), "this member should not hold virtual IPs");
    }
    if !gone.is_empty() && new.is_empty() {
        info!("nothing keeps this member from holding virtual IPs any more");
    }
    known.clone_from(&new);
    // The words are there before the machine acts on them.
    member.vips.shared.shown().faults = new;
    (gone, come)
}

/// What is wrong here.
fn own_faults(member: &Member, check: &Failure) -> BTreeMap<Fault, String> {
    let mut faults = BTreeMap::new();
    if member.is_draining() {
        faults.insert(Fault::Draining, "it is drained".to_owned());
    }
    if let Some(why) = locked(check).clone() {
        faults.insert(Fault::Check, why);
    }
    let view = member.consensus.view().borrow().state.clone();
    if view.vips.is_empty() {
        return faults;
    }
    if let Err(why) = member.plane.accepting() {
        let why = why.join("; ");
        faults.insert(Fault::DataPlane, format!("its data plane does not accept connections: {why}"));
    }
    let shown = member.vips.shared.shown();
    if let Some(why) = &shown.unable {
        faults.insert(Fault::Unable, why.clone());
    }
    let Some(kernel) = shown.kernel.clone() else { return faults };
    let interfaces = shown.interfaces.clone();
    drop(shown);
    let mut links: BTreeMap<String, Result<(), String>> = BTreeMap::new();
    for address in view.vips.values().map(|vip| vip.spec.address.ip) {
        let Some(name) = interfaces.get(&address) else {
            faults.insert(Fault::Interface(address), format!("no interface here suits {address}"));
            continue;
        };
        let link = links.entry(name.clone()).or_insert_with(|| match kernel.link_up(name) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(format!("interface {name} is down")),
            Ok(None) => Err(format!("there is no interface {name}")),
            // That it cannot be asked about says nothing about it.
            Err(_) => Ok(()),
        });
        if let Err(why) = link {
            faults.insert(Fault::Interface(address), why.clone());
        }
    }
    faults
}

/// Another voter's answer.
struct Other {
    id: MemberId,
    status: v1::MemberStatus,
}

/// Asks the other voters how they are.
async fn ask(member: &Member) -> Vec<Other> {
    let view = member.consensus.view().borrow().clone();
    let others: Vec<_> = view.state.members.values().cloned().collect();
    let others =
        others.into_iter().filter(|other| Some(other.id) != member.id() && view.voters.contains(&other.id));
    let patience = member.consensus.timing().election_max.max(LOOK);
    let answers = others.map(|other| async move {
        let ask = peer::ReportRequest { no_digest: true, ..Default::default() };
        // One that does not answer in time is no successor, and what is wrong here is not to wait for it.
        let status = tokio::time::timeout(patience, member.ask(&other, &ask)).await.ok()?.ok()?.status?;
        Some(Other { id: other.id, status })
    });
    join_all(answers).await.into_iter().flatten().collect()
}

/// To whom leadership can go, best first, by what they say now.
pub(super) async fn targets(member: &Member) -> Vec<MemberId> {
    successors(member, &ask(member).await)
}

fn successors(member: &Member, others: &[Other]) -> Vec<MemberId> {
    let voters = member.consensus.targets();
    let those = |suits: fn(&v1::MemberStatus) -> bool| -> Vec<MemberId> {
        let suits = |id: &&MemberId| others.iter().any(|other| other.id == **id && suits(&other.status));
        voters.iter().filter(suits).copied().collect()
    };
    let fit = those(|status| status.unfit.is_empty());
    // What has been let go of cannot be taken back in this term, so an unfit member that can serve is better than none.
    // All may have become unfit at once, by a check of what they share.
    if fit.is_empty() && member.vips.is_leaving() {
        those(|status| status.vip_standing != "unable")
    } else {
        fit
    }
}

/// Pools of which this member sees every backend dead while another one does not.
fn blind(member: &Member, others: &[Other]) -> Option<String> {
    let here = member.plane.dead_pools();
    let sees = |name: &String| others.iter().any(|other| !other.status.dead_pools.contains(name));
    let alone: Vec<String> = here
        .iter()
        .filter(|pool| sees(&trestle_api::convert::pool_name(pool)))
        .map(|pool| format!("pool \"{pool}\""))
        .collect();
    (!alone.is_empty()).then(|| alone.join(", "))
}

impl Member {
    /// Whether this member leads, as far as it knows.
    fn leads(&self) -> bool {
        self.consensus.office().borrow().leads.is_some()
    }

    /// Whether its own record says that it is drained.
    pub(crate) fn is_draining(&self) -> bool {
        let state = self.consensus.view().borrow().state.clone();
        self.id().and_then(|id| state.members.get(&id).map(|member| member.draining)).unwrap_or(false)
    }
}
