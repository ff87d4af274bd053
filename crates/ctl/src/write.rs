//! What all writes have in common: the line that tells the result, and waiting until it is in force everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};
use trestle_api::status::EXISTING_KEY;
use trestle_api::v1;

use crate::args::{CreateArgs, Format, WriteArgs};
use crate::error::Error;
use crate::input::Input;
use crate::session::{Repeat, Session, cluster};
use crate::view::short_name;

/// Longest wait that the API takes.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// What the answer may take beyond the wait itself.
const WAIT_GRACE: Duration = Duration::from_secs(5);
/// Answers of members that come without such a pause are told together.
const TOGETHER: Duration = Duration::from_millis(100);

/// How a write is made, taken from the arguments.
pub(crate) struct Write {
    /// Name of the request.
    pub(crate) request_id: String,
    /// Change nothing.
    pub(crate) dry_run: bool,
    /// Take what is there already, when it is as it should be.
    pub(crate) if_absent: bool,
    wait: bool,
}

/// A resource that a creation answered.
#[derive(Clone)]
pub(crate) struct Created<T> {
    /// The resource.
    pub(crate) resource: T,
    /// It was there before, and nothing was changed.
    pub(crate) existing: bool,
}

impl<T> Created<T> {
    /// Reads the answer to a creation, whose metadata tells whether anything was created.
    pub(crate) fn read(answer: Result<Response<T>, Status>) -> Result<Response<Self>, Status> {
        answer.map(|answer| {
            let existing = answer.metadata().contains_key(EXISTING_KEY);
            answer.map(|resource| Self { resource, existing })
        })
    }
}

impl Write {
    /// Draws a request id if none was given.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn new(args: &WriteArgs, input: &mut Input) -> Result<Self, Error> {
        let request_id = input.request_id(args.request_id.as_deref())?;
        Ok(Self { request_id, dry_run: args.dry_run, if_absent: false, wait: args.wait })
    }

    /// As [`Write::new`], of a creation.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub(crate) fn create(args: &CreateArgs, input: &mut Input) -> Result<Self, Error> {
        Ok(Self { if_absent: args.if_absent, ..Self::new(&args.write, input)? })
    }

    /// How the call may be repeated.
    pub(crate) fn repeat(&self) -> Repeat<'_> {
        Repeat::Write(&self.request_id)
    }

    /// As [`Write::finish`], of a creation, which may have found that the resource was there already.
    ///
    /// # Errors
    /// As [`Write::finish`].
    pub(crate) async fn finish_created<T: Serialize>(
        &self,
        session: &mut Session<'_>,
        what: &str,
        done: &str,
        existing: bool,
        (revision, view): (u64, &T),
    ) -> Result<(), Error> {
        if !existing {
            return self.finish(session, what, done, revision, view).await;
        }
        let told = format!("{what} exists already, unchanged (revision {revision})");
        session.print(view, || format!("{told}\n"))?;
        if !for_people(session) {
            session.terminal.note(told);
        }
        if self.wait { in_force(session, revision).await } else { Ok(()) }
    }

    /// Tells the result and, if asked to, waits until it is in force. `what` is for example "pool web", `done` is
    /// "created".
    ///
    /// # Errors
    /// When the output cannot be written or the change does not get into force.
    pub(crate) async fn finish<T: Serialize>(
        &self,
        session: &mut Session<'_>,
        what: &str,
        done: &str,
        revision: u64,
        view: &T,
    ) -> Result<(), Error> {
        self.tell(session, what, done, revision, view)?;
        self.wait(session, revision).await
    }

    /// Waits until what was changed is in force, if asked to.
    ///
    /// # Errors
    /// When it does not get into force.
    pub(crate) async fn wait(&self, session: &mut Session<'_>, revision: u64) -> Result<(), Error> {
        if self.waits() { in_force(session, revision).await } else { Ok(()) }
    }

    /// Tells the result alone.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(crate) fn tell<T: Serialize>(
        &self,
        session: &mut Session<'_>,
        what: &str,
        done: &str,
        revision: u64,
        view: &T,
    ) -> Result<(), Error> {
        if self.dry_run {
            return session.print(view, || format!("{what} would be {done} (dry run)\n"));
        }
        session.print(view, || format!("{what} {done} (revision {revision})\n"))
    }

    /// Whether something was changed that is to be waited for.
    pub(crate) fn waits(&self) -> bool {
        self.wait && !self.dry_run
    }
}

/// Tells what may be meant otherwise, of what was done all the same.
pub(crate) fn warn(session: &mut Session<'_>, warnings: &[String]) {
    for warning in warnings {
        session.terminal.note(format_args!("warning: {warning}"));
    }
}

/// What is left to tell of a resource that was deleted.
#[derive(Debug, Serialize)]
pub(crate) struct Deleted<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Revision of the deletion.
    pub(crate) revision: u64,
}

/// Waits until every member that can be reached has a revision in force, and tells progress.
///
/// # Errors
/// When a member that can be reached did not get there in time, or nothing can be learned.
pub(crate) async fn in_force(session: &mut Session<'_>, revision: u64) -> Result<(), Error> {
    let wait = session.timeout().min(WAIT_MAX);
    let request = v1::WaitForRevisionRequest { revision, timeout: wait.try_into().ok() };
    let make = async |channel| cluster(channel).wait_for_revision(request).await;
    let mut stream = session.call(Repeat::Read, make).await?;
    let missing = progress(session, &mut stream, revision, wait + WAIT_GRACE).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let late = reachable_and_late(session, &missing, revision).await?;
    if late.is_empty() { Ok(()) } else { Err(Error::NotInForce { revision, members: late }) }
}

/// Follows the stream to its end; returns the members that did not get there.
async fn progress(
    session: &mut Session<'_>,
    stream: &mut Streaming<v1::WaitForRevisionResponse>,
    revision: u64,
    patience: Duration,
) -> Result<BTreeSet<String>, Error> {
    let advice = format!("revision {revision} is accepted; see \"trestle status\" for where it is in force");
    let mut missing = BTreeSet::new();
    // Members that answer together are told in the order of their names, whoever was faster.
    let mut untold = BTreeMap::new();
    loop {
        let next = match timeout(TOGETHER, session.next(stream, patience, &advice)).await {
            Ok(next) => next,
            Err(_) => {
                tell(session, &mut untold);
                session.next(stream, patience, &advice).await
            }
        };
        match next.inspect_err(|_| tell(session, &mut untold))? {
            None => {
                tell(session, &mut untold);
                return Ok(missing);
            }
            Some(step) => {
                let is_in_force = step.result() == v1::wait_for_revision_response::Result::InForce;
                let how = match is_in_force {
                    true => format!("revision {revision} in force"),
                    false => format!("not in force: {}", step.error),
                };
                untold.insert(short_name(&step.member), how);
                if !is_in_force {
                    missing.insert(step.member);
                }
            }
        }
    }
}

/// Tells what is known of members by now.
fn tell(session: &mut Session<'_>, untold: &mut BTreeMap<String, String>) {
    for (member, how) in std::mem::take(untold) {
        session.terminal.note(format_args!("{member}: {how}"));
    }
}

/// Members among `missing` that answer and are still behind. Those that do not answer will catch up when they are back.
async fn reachable_and_late(
    session: &mut Session<'_>,
    missing: &BTreeSet<String>,
    revision: u64,
) -> Result<Vec<String>, Error> {
    let make = async |channel| {
        cluster(channel).get_cluster_status(v1::GetClusterStatusRequest { local_only: false }).await
    };
    let status = session.call(Repeat::Read, make).await?;
    let late = |m: &&v1::MemberStatus| m.reachable && m.in_force_revision < revision;
    let name = |m: &v1::MemberStatus| m.member.as_ref().map(|m| m.name.clone()).unwrap_or_default();
    let short = |name: String| name.strip_prefix("members/").map(str::to_owned).unwrap_or(name);
    let members = status.members.iter().filter(late).map(name);
    Ok(members.filter(|name| missing.contains(name)).map(short).collect())
}

/// True when a hint for a person is in place: programs read JSON and YAML and know what they do next.
pub(crate) fn for_people(session: &Session<'_>) -> bool {
    session.format() == Format::Table
}
