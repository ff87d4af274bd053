//! What keeps a member from taking leadership and the virtual IPs over, in words for the operator who asked for it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use trestle_api::peer;
use trestle_consensus::CAUGHT_UP_WITHIN;
use trestle_engine::ownership::{Fault, OwnFaults};
use trestle_model::{Member as Record, MemberId};

use super::faults;
use super::succession::Succession;

/// Why a member cannot take over, and what to do about it. The text follows the member's name or "it", and names the first reason
/// that is found.
pub(super) async fn of(succession: &Succession, to: MemberId) -> String {
    let state = succession.local.consensus.view().borrow().state.clone();
    match state.members.get(&to) {
        Some(record) => of_record(succession, record).await,
        None => "is no member any more".to_owned(),
    }
}

/// The same for every other member, each with its name.
pub(super) async fn of_all(succession: &Succession) -> Vec<String> {
    let others = succession.local.others();
    let each = others
        .iter()
        .map(|other| async { format!("{} {}", other.spec.name, of_record(succession, other).await) });
    join_all(each).await
}

async fn of_record(succession: &Succession, other: &Record) -> String {
    let Succession { local, peers, .. } = succession;
    let name = &other.spec.name;
    if !local.consensus.view().borrow().voters.contains(&other.id) {
        return format!("does not vote: promote it with \"trestle member promote {name}\" first");
    }
    let ask = peer::ReportRequest { no_digest: true, ..Default::default() };
    let status = match peers.report(other, &ask).await.map(|report| report.status.unwrap_or_default()) {
        Ok(status) => status,
        Err(error) => return format!("does not answer ({}): see \"trestle status\"", error.message()),
    };
    if other.draining && !local.is_draining() {
        return format!("is drained: end that with \"trestle member enable {name}\"");
    }
    if status.abstains {
        let why = status.problems.join("; ");
        return format!("takes no part in elections ({why}): see \"trestle status\"");
    }
    let (last, applied) = (local.consensus.status().committed, status.applied_index);
    if last.saturating_sub(applied) > CAUGHT_UP_WITHIN {
        return format!("has not caught up ({applied} of {last} log entries): try again when it has");
    }
    match unfit(succession, &status) {
        Some(why) => format!("is unfit ({why}): see \"trestle status\""),
        None => "was not fit a moment ago, and nothing is wrong with it now: try again".to_owned(),
    }
}

/// The faults of another member that this one does not have.
fn unfit(succession: &Succession, status: &peer::MemberReport) -> Option<String> {
    let (revision, own) = succession.fitness.faults();
    let mut here = OwnFaults::default();
    here.observe(revision, &own.keys().cloned().collect::<BTreeSet<_>>());
    let report = faults::report(status);
    if here.matched_by(&report) {
        return None;
    }
    let shared: BTreeSet<&String> = own.values().collect();
    let words: Vec<&str> =
        status.unfit.iter().filter(|why| !shared.contains(why)).map(String::as_str).collect();
    if !words.is_empty() {
        return Some(words.join("; "));
    }
    let faults: Vec<String> = report
        .faults
        .iter()
        .filter(|key| !own.contains_key(key))
        .map(|key| Fault::to_string(&key.fault))
        .collect();
    Some(if faults.is_empty() {
        "for a reason that this version does not know".to_owned()
    } else {
        faults.join("; ")
    })
}
