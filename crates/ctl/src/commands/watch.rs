//! `trestle watch`.

use std::time::Duration;

use clap::Args;
use tonic::{Code, Streaming};
use trestle_api::v1;

use crate::args::Format;
use crate::error::Error;
use crate::output::one_line;
use crate::session::{Repeat, Session, cluster};
use crate::view::EventView;

/// The API sends something at least every 10 s; a member that is silent for much longer has lost the watch.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// Pause before watching on, so that a member that ends every watch at once is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(200);

/// Options of `watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// First revision to show [default: changes from now on]
    #[arg(long, value_name = "REV", conflicts_with = "current")]
    from: Option<u64>,
    /// Show first what exists now, then changes
    #[arg(long)]
    current: bool,
}

/// Where a watch goes on after its member is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// First revision to ask for; 0 for now.
    next: u64,
    /// Show first what exists now.
    current: bool,
}

impl Position {
    /// Moves past a message. What exists now, and a large change, comes in several messages of one revision: a watch that is
    /// lost before the last of them begins with them anew.
    fn pass(&mut self, message: &v1::WatchClusterResponse) {
        let existing = message.events.iter().any(|event| event.r#type() == v1::EventType::Current);
        if !existing && message.more && self.next <= message.revision {
            *self = Self { next: message.revision, current: false };
        } else if !existing && !message.more {
            *self = Self { next: message.revision.saturating_add(1), current: false };
        }
    }
}

impl WatchArgs {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), Error> {
        let mut at = Position { next: self.from.unwrap_or(0), current: self.current };
        if session.format() == Format::Table {
            session.terminal.data(EventView::HEADINGS)?;
        }
        loop {
            let request = v1::WatchClusterRequest { start_revision: at.next, include_current: at.current };
            // Watching changes nothing and is repeated as a write is: a watch should outlive an election.
            let make = async |channel| cluster(channel).watch_cluster(request).await;
            let mut stream = session.call(Repeat::Watch, make).await?;
            let why = match follow(session, &mut stream, &mut at).await {
                Ok(()) => format!("{}: the watch ended", session.endpoint()),
                Err(Error::Unknown { endpoint, reason, .. }) => format!("{endpoint}: {reason}"),
                // The member stops, or dropped a watch that did not keep up; nothing is missed by asking again.
                Err(Error::Refused(status))
                    if matches!(status.code(), Code::Unavailable | Code::DataLoss) =>
                {
                    format!("{}: {}", session.endpoint(), status.message())
                }
                Err(other) => return Err(other),
            };
            session.terminal.note(format_args!("{why}; watching on"));
            session.leave_endpoint();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Shows changes until the member is lost.
async fn follow(
    session: &mut Session<'_>,
    stream: &mut Streaming<v1::WatchClusterResponse>,
    at: &mut Position,
) -> Result<(), Error> {
    while let Some(message) = session.next(stream, SILENCE_MAX, "").await? {
        at.pass(&message);
        for event in message.events {
            if let Some(view) = EventView::new(message.revision, event) {
                show(session, &view)?;
            }
        }
    }
    Ok(())
}

/// Shows one change: a line, a line of JSON, or a YAML document of its own.
fn show(session: &mut Session<'_>, view: &EventView) -> Result<(), Error> {
    let text = match session.format() {
        Format::Table => view.line(),
        Format::Json => one_line(view)? + "\n",
        Format::Yaml => {
            let document = serde_saphyr::to_string(view).map_err(|e| Error::Encode(e.to_string()))?;
            format!("---\n{document}")
        }
    };
    session.terminal.data(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(revision: u64, types: &[v1::EventType]) -> v1::WatchClusterResponse {
        let event = |&t: &v1::EventType| v1::Event { r#type: t.into(), resource: None };
        v1::WatchClusterResponse {
            revision,
            events: types.iter().map(event).collect(),
            more: false,
            facts: None,
        }
    }

    #[test]
    fn a_watch_goes_on_where_it_was_lost() {
        let start = Position { next: 0, current: true };
        let mut at = start;
        at.pass(&message(7, &[v1::EventType::Current, v1::EventType::Current]));
        assert_eq!(at, start, "all that exists may not be there yet");
        at.pass(&message(7, &[]));
        assert_eq!(at, Position { next: 8, current: false });
        at.pass(&message(9, &[v1::EventType::Created]));
        assert_eq!(at, Position { next: 10, current: false });
    }
}
