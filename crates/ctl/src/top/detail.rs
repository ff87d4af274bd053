//! All that is known of a listener, a pool or a backend, as text.

use trestle_api::v1;

use super::overview::{BackendRow, Overview, Traffic};
use super::panel::Item;
use super::snapshot::Snapshot;
use crate::table::{self, escaped};
use crate::view::{ListenerView, PoolView, age_text, short_name, verdict_word};

/// The text; one sentence when it is not there any more.
pub(crate) fn text(item: &Item, now: &Snapshot, overview: &Overview) -> String {
    let found = match item {
        Item::Listener(name) => listener(name, now, overview),
        Item::Pool(name) => pool(name, now, overview),
        Item::Backend(name) => backend(name, now, overview),
    };
    found.unwrap_or_else(|| "It is not there any more.\n".to_owned())
}

/// "9 connections   30 new/s   3.0 kB/s in   3.0 MB/s out   0 failed/s".
fn traffic_line(traffic: &Traffic) -> String {
    let [connections, new, bytes_in, bytes_out, failed] = traffic.cells();
    format!(
        "{connections} connections   {new} new/s   {bytes_in}/s in   {bytes_out}/s out   {failed} failed/s\n"
    )
}

fn listener(name: &str, now: &Snapshot, overview: &Overview) -> Option<String> {
    let row = overview.listeners.iter().find(|row| row.name == name)?;
    let config = now.listener_configs.iter().find(|config| short_name(&config.name) == name)?;
    let views = ListenerView::join(vec![config.clone()], Some(now.listeners.clone()));
    let view = views.first()?;
    Some(format!("{}\n{}\n{}", traffic_line(&row.traffic), view.places(), view.settings()))
}

fn pool(name: &str, now: &Snapshot, overview: &Overview) -> Option<String> {
    let row = overview.pools.iter().find(|row| row.name == name)?;
    let config = now.pools.iter().find(|config| short_name(&config.name) == name)?;
    let backends = row.backends.iter().map(|b| {
        let up = b.verdicts.iter().filter(|word| **word == "healthy").count();
        let health = if b.checked { format!("{up}/{}", b.verdicts.len()) } else { "no check".to_owned() };
        let short = b.name.split_once('/').map_or(b.name.as_str(), |(_, short)| short);
        [short.to_owned(), b.address.clone(), b.state.to_owned(), health]
    });
    let backends = table::table(["BACKEND", "ADDRESS", "STATE", "HEALTHY ON"], backends);
    let reasons = row.backends.iter().filter(|b| b.checked && !b.reason.is_empty());
    let reasons: String =
        reasons.map(|b| format!("{}: {}\n", escaped(&b.name), escaped(&b.reason))).collect();
    let mut settings = PoolView::from(config.clone());
    settings.join(Some(&now.health));
    settings.note_down(Some(&overview.pools_down()));
    let reasons = if reasons.is_empty() { reasons } else { format!("\n{reasons}") };
    let traffic = traffic_line(&row.traffic);
    Some(format!("{}\n{traffic}\n{backends}{reasons}\n{}", row.state(), settings.description()))
}

fn backend(name: &str, now: &Snapshot, overview: &Overview) -> Option<String> {
    let row = overview.pools.iter().flat_map(|pool| &pool.backends).find(|row| row.name == name)?;
    let health = now.health.backends.iter().find(|backend| short_name(&backend.name) == name)?;
    let seen = health.views.iter().map(|view| member_row(row, view));
    let headings = ["MEMBER", "VERDICT", "SINCE", "CONNS", "NEW/S", "IN/S", "OUT/S", "FAIL/S"];
    let views = table::table(headings, seen);
    let mut text =
        format!("{}   {}\n{}\n{views}\n", escaped(&row.address), row.state, traffic_line(&row.traffic));
    for view in &health.views {
        let at = Some(&view.address).filter(|at| !at.is_empty() && !row.address.contains(at.as_str()));
        let at = at.map(|at| format!(" (dialled at {})", escaped(at))).unwrap_or_default();
        text.push_str(&format!("{}{at}: {}\n", short_name(&view.member), table::plain(&view.reason)));
    }
    for member in &now.health.unreachable_members {
        text.push_str(&format!("{}: unreachable\n", short_name(member)));
    }
    text.push_str(&format!("\n\"trestle backend get {name}\" also shows how verdicts changed.\n"));
    Some(text)
}

fn member_row(row: &BackendRow, view: &v1::MemberView) -> [String; 8] {
    let member = short_name(&view.member);
    let verdict = if row.checked { verdict_word(view.verdict()) } else { "no check" };
    let rates = row.by_member.get(&member).copied().unwrap_or_default();
    let [connections, new, bytes_in, bytes_out, failed] = rates.cells();
    let since = age_text(view.since.as_ref());
    [member, verdict.to_owned(), since, connections, new, bytes_in, bytes_out, failed]
}
