//! `trestle events`.

use std::time::{Duration, SystemTime};

use clap::Args;
use tonic::{Code, Streaming};
use trestle_api::v1;

use crate::args::Format;
use crate::error::Error;
use crate::input;
use crate::session::{Repeat, Session, events};
use crate::view::{ClusterEventView, short_name};

/// The API sends something at least every 10 s; a member that is silent for much longer has lost the stream.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Pause before events are followed on another member, so that one that ends every stream at once is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(200);

/// Options of `events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  trestle events --since 1h
  trestle events -f -o json | jq -c 'select(.severity == \"error\")'

Each member keeps its last 4096 events, 1 MiB of them at most, while it runs; changes of the configuration and of the holder of
the virtual IPs come from the replicated log. Times are by the members' own clocks.")]
pub(crate) struct EventsArgs {
    /// Go on with what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Begin so long ago (1h), or at a time (2026-01-31T12:00:00Z) [default: all that is kept; with --follow from now on]
    #[arg(long, value_name = "DURATION|TIME", value_parser = input::since)]
    since: Option<SystemTime>,
}

fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

impl EventsArgs {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let since = self.since.map(timestamp);
        if self.follow { follow(session, since).await } else { list(session, since).await }
    }
}

/// Says which members' events are not there.
fn note_unreachable(session: &mut Session<'_>, members: &[String]) {
    for member in members {
        let member = member.strip_prefix("members/").unwrap_or(member);
        session
            .terminal
            .note(format_args!("warning: {member} does not answer: what happens on it is not shown"));
    }
}

async fn list(session: &mut Session<'_>, since: Option<prost_types::Timestamp>) -> Result<(), Error> {
    let request = v1::ListEventsRequest { since };
    let mut stream =
        session.call(Repeat::Read, async |channel| events(channel).list_events(request).await).await?;
    let mut views = Vec::new();
    while let Some(message) = session.next(&mut stream, session.timeout(), "").await? {
        note_unreachable(session, &message.unreachable_members);
        views.extend(message.events.into_iter().map(ClusterEventView::from));
    }
    session.print_list(&views, "no events", || {
        let lines: String = views.iter().map(ClusterEventView::line).collect();
        ClusterEventView::HEADINGS.to_owned() + &lines
    })
}

/// Where a stream goes on after its member is lost.
#[derive(Debug, Clone, Default)]
struct Position {
    since: Option<prost_types::Timestamp>,
    after: Vec<v1::EventId>,
    unreachable: Vec<String>,
}

async fn follow(session: &mut Session<'_>, since: Option<prost_types::Timestamp>) -> Result<(), Error> {
    let mut at = Position { since, ..Position::default() };
    if session.format() == Format::Table {
        session.terminal.data(ClusterEventView::HEADINGS)?;
    }
    loop {
        let request = v1::WatchEventsRequest { since: at.since, after: at.after.clone() };
        let make = async |channel| events(channel).watch_events(request.clone()).await;
        let mut stream = session.call(Repeat::Watch, make).await?;
        let why = match show_all(session, &mut stream, &mut at).await {
            Ok(()) => format!("{}: the stream ended", session.endpoint()),
            Err(Error::Unknown { endpoint, reason, .. }) => format!("{endpoint}: {reason}"),
            // The member stops; nothing is missed by asking another one.
            Err(Error::Refused(status)) if status.code() == Code::Unavailable => {
                format!("{}: {}", session.endpoint(), status.message())
            }
            Err(other) => return Err(other),
        };
        session.terminal.note(format_args!("{why}; following on"));
        session.leave_endpoint();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Shows events until the member is lost.
async fn show_all(
    session: &mut Session<'_>,
    stream: &mut Streaming<v1::WatchEventsResponse>,
    at: &mut Position,
) -> Result<(), Error> {
    while let Some(message) = session.next(stream, SILENCE_MAX, "").await? {
        let new = |member: &&String| !at.unreachable.contains(*member);
        let unreachable: Vec<String> = message.unreachable_members.iter().filter(new).cloned().collect();
        note_unreachable(session, &unreachable);
        for v1::MissedEvents { member, count } in &message.missed {
            let member = short_name(member);
            let events = if *count == 1 { "event was" } else { "events were" };
            session.terminal.note(format_args!(
                "warning: {count} {events} missed of {member}: more happened there than it keeps until it is asked"
            ));
        }
        for event in message.events {
            show(session, &event.into())?;
        }
        *at = Position {
            since: message.since,
            after: message.position,
            unreachable: message.unreachable_members,
        };
    }
    Ok(())
}

/// Shows one event: a line, a line of JSON, or a YAML document of its own.
fn show(session: &mut Session<'_>, view: &ClusterEventView) -> Result<(), Error> {
    let text = match session.format() {
        Format::Table => view.line(),
        Format::Json => serde_json::to_string(view).map_err(|e| Error::Encode(e.to_string()))? + "\n",
        Format::Yaml => {
            let document = serde_saphyr::to_string(view).map_err(|e| Error::Encode(e.to_string()))?;
            format!("---\n{document}")
        }
    };
    session.terminal.data(&text)
}
