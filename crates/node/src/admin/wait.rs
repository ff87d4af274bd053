//! Waiting until a revision is in force on every member that can be reached.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trestle_api::v1::wait_for_revision_response::Result as WaitResult;
use trestle_api::{convert, status, unanswered, v1};
use trestle_model::{Invalid, Violation};

use super::Admin;
use crate::revision_waits::TIMEOUT_MAX;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

pub(super) type Stream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::WaitForRevisionResponse, Status>> + Send>>;

impl Admin {
    pub(super) fn wait(&self, request: &v1::WaitForRevisionRequest) -> Result<Stream, Status> {
        let timeout = parse(request).map_err(|found| status::invalid(&Invalid(vec![found])))?;
        let revision = request.revision;
        let members = self.local.known();
        if members.is_empty() {
            return Err(status::failure(&status::Failure::NoCluster));
        }
        let (sender, receiver) = mpsc::channel(members.len());
        for member in members {
            let (waits, sender) = (self.waits.clone(), sender.clone());
            tokio::spawn(async move {
                let answer = tokio::select! {
                    answer = waits.await_on(&member, revision, timeout) => answer,
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
