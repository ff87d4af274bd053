//! Waiting for a revision to be in force, here or on another member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tonic::Status;
use trestle_api::{convert, peer};
use trestle_dataplane::DataPlane;
use trestle_model::{Member, MemberId, Revision};

use crate::peers::Peers;
use crate::this_member::ThisMember;

/// Longest wait that a caller may ask for.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// What the network may take on top of the wait itself.
const SLACK: Duration = Duration::from_secs(1);
/// Questions to one member at a time: few enough to leave room for others on the connection to it.
const QUESTIONS_MAX: usize = 64;

type PendingAnswer = BoxFuture<'static, Result<bool, Status>>;
type SharedAnswer = Shared<PendingAnswer>;

/// What other members are being asked: once for each member and revision, however many wait for the answer. When the last
/// of them has gone away, the question is taken back.
#[derive(Default)]
struct Questions(Mutex<BTreeMap<(MemberId, Revision), WeakShared<PendingAnswer>>>);

impl Questions {
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

/// Waiting for a revision to be in force. Clones share what is being asked.
#[derive(Clone)]
pub(crate) struct RevisionWaits {
    local: ThisMember,
    peers: Peers,
    plane: Arc<DataPlane>,
    questions: Arc<Questions>,
}

impl RevisionWaits {
    pub(crate) fn new(local: ThisMember, peers: Peers, plane: Arc<DataPlane>) -> Self {
        Self { local, peers, plane, questions: Arc::default() }
    }

    /// Waits until `revision` is in force on `member`; false when the time ran out.
    pub(crate) async fn await_on(
        &self,
        member: &Member,
        revision: Revision,
        timeout: Duration,
    ) -> Result<bool, Status> {
        if Some(member.id) == self.local.id() {
            return Ok(self.await_here(revision, timeout).await);
        }
        let (local, peers) = (self.local.clone(), self.peers.clone());
        let (id, address) = (member.id, member.spec.peer_address.clone());
        let asked = self.questions.join((id, revision), move || async move {
            let mut client = peers.client(&address)?;
            let to = local.destination(Some(id));
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
        let waits = Questions::default();
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
