//! Waiting until a revision is in force on every member that can be reached.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::{convert, peer, status, v1};
use trestle_model::{Invalid, Revision, Violation};

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
        let (sender, receiver) = mpsc::channel(members.len() + 1);
        for member in members {
            let (this, sender) = (self.member.clone(), sender.clone());
            tokio::spawn(async move {
                let answer = this.await_on(&member, revision, timeout).await;
                let error = match &answer {
                    Ok(true) => String::new(),
                    Ok(false) => format!("not in force within {timeout:?}"),
                    Err(status) => status.message().to_owned(),
                };
                let message = v1::WaitForRevisionResponse {
                    member: convert::member_name(&member.spec.name),
                    in_force: matches!(answer, Ok(true)),
                    error,
                    done: false,
                };
                // The caller may have gone away, which ends the wait as well.
                let _ = sender.send(Ok(message)).await;
            });
        }
        let done = v1::WaitForRevisionResponse { done: true, ..Default::default() };
        let last = tokio_stream::once(Ok(done));
        drop(sender);
        Ok(Box::pin(tokio_stream::StreamExt::chain(ReceiverStream::new(receiver), last)))
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
        let mut client = self.clients.peer(&member.spec.peer_address)?;
        let to = self.destination(Some(member.id));
        let ask = peer::AwaitRevisionRequest { revision, timeout: Some(convert::duration(timeout)), to };
        let answer = tokio::time::timeout(timeout + SLACK, client.await_revision(ask)).await;
        match answer {
            Ok(answer) => Ok(answer?.into_inner().in_force),
            Err(_) => Ok(false),
        }
    }

    /// Waits until `revision` is in force here; false when the time ran out.
    pub(crate) async fn await_here(&self, revision: Revision, timeout: Duration) -> bool {
        let mut in_force = self.plane.in_force();
        let reached = in_force.wait_for(|now| *now >= revision);
        matches!(tokio::time::timeout(timeout, reached).await, Ok(Ok(_)))
    }
}
