//! Waiting until a drain has ended: no connection is left, or its deadline has come and closed them.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;
use trestle_api::v1;

use super::{LOOK, connections_left, unless_interrupted};
use crate::duration::duration_text;
use crate::error::Error;
use crate::pages;
use crate::session::{Repeat, Session, cluster, connections};
use crate::view::short_name;
use crate::write::in_force;

/// How often is told how far a drain is while nothing changes.
const TELL: Duration = Duration::from_secs(10);
/// Least time between two lines, however fast connections end.
const PAUSE: Duration = Duration::from_secs(1);

/// What is drained.
#[derive(Debug, Clone)]
pub(crate) enum Drain {
    /// A backend, as users name it.
    Backend {
        /// Its pool.
        pool: String,
        /// Its own name.
        backend: String,
    },
    /// A member.
    Member(String),
}

/// What is told anew when it changes: connections, what is to come before, and who does not answer.
type Said = (u64, Option<&'static str>, Vec<String>);

/// How far it is.
#[derive(Debug, Default)]
struct Left {
    /// Connections on the members that answer.
    connections: u64,
    /// Time until they are closed.
    time: Option<Duration>,
    /// Members that do not answer, and may have more.
    silent: Vec<String>,
    /// What is to come before connections can end, in words.
    before: Option<&'static str>,
    /// It is not drained any more.
    ended: bool,
    /// The deadline of a member that still takes connections, and what keeps others from taking over from it.
    waits_for: Option<(Duration, String)>,
}

impl Drain {
    /// Its name.
    fn name(&self) -> String {
        match self {
            Self::Backend { pool, backend } => format!("{pool}/{backend}"),
            Self::Member(name) => name.clone(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Backend { .. } => "backend",
            Self::Member(_) => "member",
        }
    }

    /// What is said when nobody waits for it any more.
    fn goes_on(&self) -> String {
        let (kind, name) = (self.kind(), self.name());
        format!("{kind} {name} goes on draining; \"trestle {kind} enable {name}\" ends that")
    }

    async fn look(&self, session: &mut Session<'_>) -> Result<Left, Error> {
        match self {
            Self::Backend { pool, backend } => look_at_backend(session, pool, backend).await,
            Self::Member(name) => look_at_member(session, name).await,
        }
    }
}

/// Says how many connections a drain that nobody waits for has before it, and what comes next.
pub(crate) async fn tell_what_is_left(session: &mut Session<'_>, drain: &Drain) {
    let (kind, name) = (drain.kind(), drain.name());
    let mut filter = v1::ConnectionFilter::default();
    match drain {
        Drain::Backend { pool, backend } => filter.backend = format!("pools/{pool}/backends/{backend}"),
        Drain::Member(name) => filter.member = format!("members/{name}"),
    }
    let request =
        v1::ListConnectionsRequest { filter: Some(filter), page_size: 1, page_token: String::new() };
    let make = async |channel| connections(channel).list_connections(request.clone()).await;
    let Some(answer) = session.call_for_extra("what is left there", make).await else { return };
    let silent: Vec<String> = answer.unreachable_members.iter().map(|member| short_name(member)).collect();
    let count = connections_left(answer.total_size);
    let is_known = match drain {
        Drain::Member(name) => !silent.contains(name),
        Drain::Backend { .. } => silent.is_empty(),
    };
    if answer.total_size == 0 && is_known {
        let end = format!("end the drain with \"trestle {kind} enable {name}\"");
        session.terminal.note(format_args!("{count} there; {end}"));
        return;
    }
    let left = match drain {
        Drain::Member(name) if silent.contains(name) => {
            "it does not answer, so what is left there is not known".to_owned()
        }
        Drain::Backend { .. } if !silent.is_empty() => {
            format!("{count} there, and what {} has is not known", silent.join(", "))
        }
        Drain::Backend { .. } | Drain::Member(_) => format!("{count} there"),
    };
    session.terminal.note(format_args!(
        "{left}: see \"trestle connection list --{kind} {name}\"; end the drain with \"trestle {kind} enable {name}\""
    ));
}

/// Waits until a drain that is in force with `revision` has ended, and counts down. It takes as long as the drain does; a member
/// that does not answer is waited for as long as `--timeout` says, and one that cannot hand leadership over as long as the drain's
/// deadline, if it has one: the deadline itself counts from when the member takes no new connections.
///
/// # Errors
/// When it is interrupted, somebody else ended the drain, a member may have connections left, or the deadline is over and the
/// drain has not begun.
pub(crate) async fn drained(session: &mut Session<'_>, drain: &Drain, revision: u64) -> Result<(), Error> {
    let left = drain.goes_on();
    let work = async {
        in_force(session, revision).await?;
        follow(session, drain).await
    };
    unless_interrupted(work, &left).await
}

async fn follow(session: &mut Session<'_>, drain: &Drain) -> Result<(), Error> {
    let name = drain.name();
    let mut told: Option<(Said, Instant)> = None;
    let (began, mut silent_since) = (Instant::now(), None);
    loop {
        let mut left = drain.look(session).await?;
        if left.ended {
            return Err(Error::DrainEnded(format!("{} {name}", drain.kind())));
        }
        let empty = left.connections == 0 && left.before.is_none();
        if empty && left.silent.is_empty() {
            session.terminal.note(format_args!("{name}: {}", connections_left(0)));
            return Ok(());
        }
        let now = Instant::now();
        if let Some((deadline, why)) = left.waits_for.take_if(|(time, _)| now >= began + *time) {
            return Err(Error::NotHandedOver { member: name, deadline, why });
        }
        let said: Said = (left.connections, left.before, left.silent.clone());
        let due = told.as_ref().is_none_or(|(before, at)| {
            let since = now.saturating_duration_since(*at);
            since >= TELL || (since >= PAUSE && *before != said)
        });
        if due {
            session.terminal.note(line(&name, &left));
            told = Some((said, now));
        }
        if !empty {
            silent_since = None;
        } else if now.saturating_duration_since(*silent_since.get_or_insert(now)) >= session.timeout() {
            return Err(Error::SilentInDrain { name, members: left.silent });
        }
        sleep(LOOK).await;
    }
}

fn line(name: &str, left: &Left) -> String {
    let mut line = match left.before {
        Some(before) => {
            let open = match left.connections {
                1 => "1 connection".to_owned(),
                count => format!("{count} connections"),
            };
            format!("{name}: {before}; {open} open")
        }
        None => format!("{name}: {}", connections_left(left.connections)),
    };
    if let Some(time) = left.time {
        let time = duration_text(Duration::from_secs(time.as_secs()));
        line.push_str(&format!(", closed in {time}"));
    }
    if !left.silent.is_empty() {
        let silent = left.silent.join(", ");
        line.push_str(&format!("; {silent}: no answer, so what is left there is not known"));
    }
    line
}

fn time_of(wire: Option<&prost_types::Duration>) -> Option<Duration> {
    Duration::try_from(*wire?).ok()
}

fn short(names: &[String]) -> Vec<String> {
    names.iter().map(|name| short_name(name)).collect()
}

async fn look_at_backend(session: &mut Session<'_>, pool: &str, backend: &str) -> Result<Left, Error> {
    let (pool, name) = (format!("pools/{pool}"), format!("pools/{pool}/backends/{backend}"));
    let make = async |channel| pages::pool_health(channel, &pool).await;
    let health = match session.call(Repeat::Watch, make).await {
        // With the pool its backends are gone, and their connections are closed.
        Err(Error::Refused(status)) if status.code() == Code::NotFound => {
            return Ok(Left { ended: true, ..Left::default() });
        }
        other => other?,
    };
    let silent = short(&health.unreachable_members);
    let found = health.backends.iter().find(|found| found.name == name);
    let Some(found) = found.filter(|found| found.admin_state() == v1::AdminState::Draining) else {
        return Ok(Left { ended: true, ..Left::default() });
    };
    Ok(Left {
        connections: found.views.iter().map(|view| view.active_connections).sum(),
        time: found.views.iter().filter_map(|view| time_of(view.drain_left.as_ref())).max(),
        silent,
        ..Left::default()
    })
}

async fn look_at_member(session: &mut Session<'_>, name: &str) -> Result<Left, Error> {
    let resource = format!("members/{name}");
    let request = v1::GetClusterStatusRequest { local_only: false };
    let make = async |channel| cluster(channel).get_cluster_status(request).await;
    let status = session.call(Repeat::Watch, make).await?;
    let is_it = |member: &&v1::MemberStatus| member.member.as_ref().is_some_and(|m| m.name == resource);
    let record = |own: &&v1::MemberStatus| own.member.clone().filter(|record| record.draining);
    let Some((own, record)) = status.members.iter().find(is_it).and_then(|own| Some((own, record(&own)?)))
    else {
        return Ok(Left { ended: true, ..Left::default() });
    };
    let filter = Some(v1::ConnectionFilter { member: resource.clone(), ..v1::ConnectionFilter::default() });
    let request = v1::ListConnectionsRequest { filter, page_size: 1, page_token: String::new() };
    let make = async |channel| connections(channel).list_connections(request.clone()).await;
    let open = session.call(Repeat::Watch, make).await?;
    let answers = own.reachable && open.unreachable_members.is_empty();
    let before = match status.leader == resource {
        true => "takes connections until it has handed leadership over",
        false => "still takes connections",
    };
    let before = (answers && !own.drained).then_some(before);
    let deadline = time_of(record.drain_timeout.as_ref()).filter(|_| before.is_some());
    Ok(Left {
        connections: open.total_size,
        time: time_of(own.drain_left.as_ref()),
        silent: if answers { Vec::new() } else { vec![name.to_owned()] },
        before,
        ended: false,
        waits_for: deadline.map(|deadline| (deadline, no_successor(&status, &resource))),
    })
}

/// Why no other member takes over from this one, by what they say of themselves.
fn no_successor(status: &v1::ClusterStatus, resource: &str) -> String {
    let name = |m: &v1::MemberStatus| m.member.as_ref().map(|record| record.name.clone()).unwrap_or_default();
    let votes = |m: &v1::MemberStatus| m.member.as_ref().is_some_and(|r| r.role() == v1::MemberRole::Voter);
    let why = |m: &v1::MemberStatus| match m.unfit.as_slice() {
        _ if !m.reachable => "does not answer".to_owned(),
        [] => "says nothing that keeps it from that".to_owned(),
        reasons => reasons.join("; "),
    };
    let others = status.members.iter().filter(|m| votes(m) && name(m) != resource);
    let each: Vec<String> = others.map(|m| format!("{}: {}", short_name(&name(m)), why(m))).collect();
    if each.is_empty() { "there is no other voter".to_owned() } else { each.join("; ") }
}
