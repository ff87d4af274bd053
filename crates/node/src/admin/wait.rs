//! Waiting until a revision is in force on every member that can be reached.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::v1::wait_for_revision_response::Result as WaitResult;
use trestle_api::{convert, peer, status, unanswered, v1};
use trestle_model::{Invalid, MemberId, Revision, Violation};

use super::Admin;
use crate::member::Member;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// What the network may take on top of the wait itself.
const SLACK: Duration = Duration::from_secs(1);

pub(super) type Stream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::WaitForRevisionResponse, Status>> + Send>>;

impl Admin {
    pub(super) fn wait(&self, request: &v1::WaitForRevisionRequest) -> Result<Stream, Status> {
        let timeout = parse(request).map_err(|found| status::invalid(&Invalid(vec![found])))?;
        let revision = request.revision;
        let members = self.member.known();
        if members.is_empty() {
            return Err(status::failure(&status::Failure::NoCluster));
        }
        let (sender, receiver) = mpsc::channel(members.len());
        for member in members {
            let (this, sender) = (self.member.clone(), sender.clone());
            tokio::spawn(async move {
                let answer = tokio::select! {
                    answer = this.await_on(&member, revision, timeout) => answer,
                    // The caller has gone away.
                    () = sender.closed() => return,
                };
                let (result, error) = match &answer {
                    Ok(true) => (WaitResult::InForce, String::new()),
                    Ok(false) => (WaitResult::Late, format!("not in force within {timeout:?}")),
                    Err(status) => (WaitResult::Unreachable, unanswered::why(status)),
                };
                let message = v1::WaitForRevisionResponse {
                    member: convert::member_name(&member.spec.name),
                    result: result.into(),
                    error,
                };
                // The caller may go away even now.
                let _ = sender.send(Ok(message)).await;
            });
        }
        drop(sender);
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

fn parse(request: &v1::WaitForRevisionRequest) -> Result<Duration, Violation> {
    if request.revision == 0 {
        return Err(Violation::new("revision", 0, "must be a revision that a write answered"));
    }
    let Some(given) = request.timeout else {
        return Ok(TIMEOUT_DEFAULT);
    };
    match Duration::try_from(given) {
        Ok(timeout) if timeout <= TIMEOUT_MAX => Ok(timeout),
        _ => Err(Violation::new(
            "timeout",
            format!("{}s", given.seconds),
            format!("must be 0s to {TIMEOUT_MAX:?}"),
        )),
    }
}

/// Questions to one member at a time: few enough to leave room for others on the connection to it.
const QUESTIONS_MAX: usize = 64;

type PendingAnswer = BoxFuture<'static, Result<bool, Status>>;
type SharedAnswer = Shared<PendingAnswer>;

/// What other members are being asked: once for each member and revision, however many wait for the answer. When the last
/// of them has gone away, the question is taken back.
#[derive(Default)]
pub(crate) struct RevisionWaits(Mutex<BTreeMap<(MemberId, Revision), WeakShared<PendingAnswer>>>);

impl RevisionWaits {
    /// The answer to a question that is being asked, or else to the one that `ask` asks.
    fn join<F>(&self, question: (MemberId, Revision), ask: impl FnOnce() -> F) -> SharedAnswer
    where
        F: Future<Output = Result<bool, Status>> + Send + 'static,
    {
        // Whole between any two statements that can panic.
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = waits.get(&question).and_then(WeakShared::upgrade).filter(|asked| asked.peek().is_none());
        if let Some(asked) = asked {
            return asked;
        }
        waits.retain(|_, asked| asked.upgrade().is_some());
        if waits.keys().filter(|(member, _)| *member == question.0).count() >= QUESTIONS_MAX {
            let why = format!("{QUESTIONS_MAX} revisions are waited for on this member already");
            return std::future::ready(Err(Status::resource_exhausted(why))).boxed().shared();
        }
        let asked = ask().boxed().shared();
        if let Some(weak) = asked.downgrade() {
            waits.insert(question, weak);
        }
        asked
    }
}

impl Member {
    /// Waits until `revision` is in force on `member`; false when the time ran out.
    async fn await_on(
        self: &Arc<Self>,
        member: &trestle_model::Member,
        revision: Revision,
        timeout: Duration,
    ) -> Result<bool, Status> {
        if Some(member.id) == self.id() {
            return Ok(self.await_here(revision, timeout).await);
        }
        let this = self.clone();
        let (id, address) = (member.id, member.spec.peer_address.clone());
        let asked = self.waits.join((id, revision), move || async move {
            let mut client = this.clients.peer(&address)?;
            let to = this.destination(Some(id));
            let ask =
                peer::AwaitRevisionRequest { revision, timeout: Some(convert::duration(TIMEOUT_MAX)), to };
            let answer = tokio::time::timeout(TIMEOUT_MAX + SLACK, client.await_revision(ask)).await;
            match answer {
                Ok(answer) => Ok(answer?.into_inner().in_force),
                Err(_) => Ok(false),
            }
        });
        tokio::time::timeout(timeout, asked).await.unwrap_or(Ok(false))
    }

    /// Waits until `revision` is in force here; false when the time ran out.
    pub(crate) async fn await_here(&self, revision: Revision, timeout: Duration) -> bool {
        let mut in_force = self.plane.in_force();
        let reached = in_force.wait_for(|now| *now >= revision);
        matches!(tokio::time::timeout(timeout, reached).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_question_answers_all_and_is_taken_back_with_the_last() {
        let waits = RevisionWaits::default();
        let mut asked = 0;
        let mut ask = |answer: Option<bool>| {
            waits.join((MemberId(1), 7), || {
                asked += 1;
                async move {
                    match answer {
                        Some(answer) => Ok(answer),
                        None => std::future::pending().await,
                    }
                }
            })
        };
        let (one, two) = (ask(None), ask(Some(true)));
        drop((one, two));
        let (one, two) = (ask(Some(true)), ask(None));
        assert!(matches!((one.await, two.await), (Ok(true), Ok(true))));
        // An answer that was given is no answer to a later question.
        assert!(matches!(ask(Some(false)).await, Ok(false)));
        assert_eq!(asked, 3);
        assert_eq!(waits.0.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
    }
}
