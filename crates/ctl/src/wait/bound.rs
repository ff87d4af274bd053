//! Waiting until a listener accepts connections on every member.

use std::collections::BTreeMap;

use tokio::time::{Instant, sleep};
use trestle_api::v1;

use super::LOOK;
use crate::error::Error;
use crate::pages;
use crate::session::{Repeat, Session, cluster};
use crate::view::short_name;

/// How a listener is on one member.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Bound(String),
    NotBound(String),
}

/// Waits, at most for the time of `--timeout`, until every member that can be reached has all addresses of a listener bound, also
/// those of virtual IPs, which wait there for the address to come. One that is drained need not; it is told.
///
/// # Errors
/// When a member has not, with the reason.
pub(crate) async fn bound(session: &mut Session<'_>, name: &str) -> Result<(), Error> {
    let deadline = Instant::now() + session.timeout();
    let resource = format!("listeners/{name}");
    let mut told = BTreeMap::new();
    loop {
        let make = async |channel| pages::listener_health(channel, &resource).await;
        let health = session.call(Repeat::Watch, make).await?;
        let states = states(&health);
        let failed = states.iter().any(|(_, state)| matches!(state, State::NotBound(_)));
        let drained = if failed { drained(session).await? } else { Vec::new() };
        for (member, state) in &states {
            if told.get(member) != Some(state) {
                told.insert(member.clone(), state.clone());
                session.terminal.note(line(member, state, drained.contains(member)));
            }
        }
        let missing = |(member, state): &&(String, State)| {
            matches!(state, State::NotBound(_)) && !drained.contains(member)
        };
        let missing: Vec<String> = states.iter().filter(missing).map(|(member, _)| member.clone()).collect();
        if missing.is_empty() && !states.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::NotBound { listener: name.to_owned(), members: missing });
        }
        sleep(LOOK).await;
    }
}

fn states(health: &v1::ListenerHealth) -> Vec<(String, State)> {
    let state = |view: &v1::ListenerView| match (view.errors.as_slice(), view.bound.as_slice()) {
        ([], []) => State::NotBound("not yet".to_owned()),
        ([], bound) => State::Bound(bound.join(", ")),
        (errors, _) => State::NotBound(errors.join("; ")),
    };
    health.views.iter().map(|view| (short_name(&view.member), state(view))).collect()
}

fn line(member: &str, state: &State, drained: bool) -> String {
    match state {
        State::Bound(addresses) => format!("{member}: bound at {addresses}"),
        State::NotBound(_) if drained => format!("{member}: not bound while the member is drained"),
        State::NotBound(why) => format!("{member}: not bound: {why}"),
    }
}

/// The members that are drained.
async fn drained(session: &mut Session<'_>) -> Result<Vec<String>, Error> {
    let request = v1::GetClusterStatusRequest { local_only: false };
    let make = async |channel| cluster(channel).get_cluster_status(request).await;
    let status = session.call(Repeat::Watch, make).await?;
    let records = status.members.into_iter().filter_map(|member| member.member);
    Ok(records.filter(|record| record.draining).map(|record| short_name(&record.name)).collect())
}
