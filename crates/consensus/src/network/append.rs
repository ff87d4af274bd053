//! Replication as one stream in each direction: the next entries leave before the last ones are acknowledged, so a
//! follower's disk and the network are busy at the same time, and a commit is announced without a call of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::{Stream, StreamExt, stream};
use openraft::base::BoxStream;
use openraft::network::RPCTypes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult};
use tonic::Streaming;
use trestle_api::peer as proto;

use super::Peer;
use super::peer::{CallError, call_error};
use crate::raft_types::{LogId, TypeConfig, Vote};
use crate::wire;

type Appended = Result<StreamAppendResult<TypeConfig>, CallError>;

/// What was asked and not answered yet.
#[derive(Clone, Copy)]
struct InFlightAppend {
    vote: Vote,
    /// The last log id before the entries, and the last one of them.
    prev: Option<LogId>,
    last: Option<LogId>,
    /// Not after it left.
    sent: Instant,
}

/// Requests in the order in which they left; answers come in the same order.
#[derive(Clone, Default)]
struct AppendsInFlight(Arc<Mutex<VecDeque<InFlightAppend>>>);

impl AppendsInFlight {
    fn push(&self, request: &AppendEntriesRequest<TypeConfig>) {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let asked =
            InFlightAppend { vote: request.vote, prev: request.prev_log_id, last, sent: Instant::now() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(asked);
    }

    fn pop(&self) -> Option<InFlightAppend> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// One answer as openraft wants it.
fn stream_result(
    answer: AppendEntriesResponse<TypeConfig>,
    InFlightAppend { prev, last, .. }: InFlightAppend,
) -> Result<StreamAppendResult<TypeConfig>, CallError> {
    Ok(match answer {
        AppendEntriesResponse::Success => Ok(last),
        AppendEntriesResponse::PartialSuccess(matching) => Ok(matching),
        AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
        AppendEntriesResponse::Conflict => match prev {
            Some(prev) => Err(StreamAppendError::Conflict(prev)),
            // Nothing precedes the first entry, so nothing there can differ.
            None => return Err(call_error(&tonic::Status::internal("a conflict at the start of the log"))),
        },
    })
}

impl Peer {
    /// Sends `input` and answers what the member says to each request. Ends after an answer that is not full success.
    pub(super) async fn pipeline<'s, S>(
        &'s mut self,
        mut input: S,
    ) -> Result<BoxStream<'s, Appended>, CallError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        // openraft waits inside its input before it tries a failing member again, so ask it before connecting.
        let Some(first) = input.next().await else {
            return Ok(Box::pin(stream::empty()));
        };
        let in_flight = AppendsInFlight::default();
        let to = self.to.clone();
        let requests = stream::once(async move { first }).chain(input).map({
            let in_flight = in_flight.clone();
            move |request| {
                in_flight.push(&request);
                wire::append_request_message(to.now(), &request)
            }
        });
        let timeout = self.parts.timing.append_timeout();
        let address = self.current_address();
        let way = (self.parts.channels.is_secure(&address), address);
        let mut service = self.service(self.lane).map_err(|e| call_error(&e))?;
        let answers = match tokio::time::timeout(timeout, service.append_stream(requests)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(self.refused(&status)),
            Err(_) => return Err(self.timed_out(RPCTypes::AppendEntries, timeout)),
        };
        let reader = AppendReader { peer: self, way, answers, in_flight };
        Ok(Box::pin(stream::unfold(Some(reader), |reader| async move { reader?.next().await })))
    }
}

struct AppendReader<'s> {
    peer: &'s Peer,
    /// Whether the stream was to go by TLS, and to which address.
    way: (bool, String),
    answers: Streaming<proto::AppendEntriesResponse>,
    in_flight: AppendsInFlight,
}

impl<'s> AppendReader<'s> {
    /// The next item, with the reader if more may follow.
    async fn next(mut self) -> Option<(Appended, Option<AppendReader<'s>>)> {
        if self.is_outdated() {
            return None;
        }
        let message = match self.receive().await {
            Ok(Some(message)) => message,
            Ok(None) if self.in_flight.is_empty() => return None,
            Ok(None) => {
                return Some((
                    Err(call_error(&tonic::Status::cancelled("the member closed the stream"))),
                    None,
                ));
            }
            Err(error) => return Some((Err(error), None)),
        };
        let asked = self.in_flight.pop();
        let item = match asked {
            Some(asked) => self.peer.append_answer(message, &asked.vote).and_then(|answer| {
                self.peer.note_answer(&asked.vote, &answer, asked.sent);
                self.peer.note_stored(&answer, asked.prev, asked.last);
                stream_result(answer, asked)
            }),
            None => Err(call_error(&tonic::Status::internal("an answer to no request"))),
        };
        // A request that was stored in part ends the stream, as does any failure.
        let whole = matches!((&item, asked), (Ok(Ok(matching)), Some(asked)) if *matching == asked.last);
        Some((item, whole.then_some(self)))
    }

    /// Whether nothing is in flight and the member is to be reached in another way by now: a new stream is.
    fn is_outdated(&self) -> bool {
        let (secure, address) = &self.way;
        let channels = &self.peer.parts.channels;
        self.in_flight.is_empty() && !(self.peer.is_at(address) && channels.is_secure(address) == *secure)
    }

    /// Waits for a message; with requests in flight no longer than the append time-out at a time.
    async fn receive(&mut self) -> Result<Option<proto::AppendEntriesResponse>, CallError> {
        let timeout = self.peer.parts.timing.append_timeout();
        let mut idle = self.in_flight.is_empty();
        loop {
            match tokio::time::timeout(timeout, self.answers.message()).await {
                Ok(Ok(message)) => return Ok(message),
                Ok(Err(status)) => return Err(self.peer.refused(&status)),
                Err(_) if idle && self.is_outdated() => return Ok(None),
                // What left during this wait gets a whole time-out of its own.
                Err(_) if idle => idle = self.in_flight.is_empty(),
                Err(_) => return Err(self.peer.timed_out(RPCTypes::AppendEntries, timeout)),
            }
        }
    }
}
