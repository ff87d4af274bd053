//! Calls: which member is asked, what happens when it does not answer, and when a call is made again.

mod clients;
mod renewal;

pub(crate) use clients::{cluster, connections, events, listeners, members, pools, vips};

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use trestle_api::transport::{ChannelOptions, KeepAlive, Transport};
use trestle_api::v1;
use trestle_identity::AUTHORITIES_HEADER;

use crate::args::{Format, Global};
use crate::context::{UsedContext, Way};
use crate::duration::duration_text;
use crate::endpoint::{self, Outside};
use crate::error::{Error, Failure};
use crate::kept_context::KeptContext;
use crate::output::{Terminal, render};

/// A member that is up accepts at once; two seconds leave room for one lost SYN (sent again after 1 s, RFC 6298 §2.1).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A stopped process keeps its connections and answers nothing; pings find out, so that the next endpoint gets its turn.
const CHANNEL: ChannelOptions = ChannelOptions {
    // Bounded together with the time of the whole call.
    connect_timeout: None,
    keep_alive: Some(KeepAlive {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(3),
        while_idle: true,
    }),
    window: None,
};
/// First pause before all endpoints are tried again; an election takes a few hundred milliseconds. It doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Members of earlier versions answer what they see of all backends in one message, which stays below this; gRPC's own bound is
/// 4 MiB.
const ANSWER_MAX: usize = 256 * 1024 * 1024;

/// Whether a call may be made again when its answer is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Repeat<'a> {
    /// Changes nothing: each endpoint is asked once.
    Read,
    /// Changes nothing, and should outlive an election: it is made until it is answered or the time is up.
    Watch,
    /// Carries this request id, so it is made until it is answered or the time is up.
    Write(&'a str),
    /// Changes something and has no request id: the next endpoint is asked only if the one before changed nothing.
    NonIdempotent,
}

/// What came of one attempt that gave no answer to hand on.
enum Attempt {
    /// Nothing was done there; another endpoint may do it.
    NotDone(Failure),
    /// The member may or may not have done it.
    Lost(Failure),
    /// The answer is no.
    Refused(Box<Status>),
    /// The time is up, and the member may or may not have done it.
    TimedOut(Failure),
}

/// One run of the command: endpoints, time, and where output goes.
pub(crate) struct Session<'t> {
    endpoints: Vec<String>,
    transport: Transport,
    timeout: Duration,
    format: Format,
    /// Where output goes.
    pub(crate) terminal: &'t mut Terminal,
    connected: Option<(usize, Channel)>,
    /// The context whose endpoints are kept up to date, until that is done.
    pub(crate) kept: Option<KeptContext>,
    /// Endpoints that were passed over and told of.
    passed_over: BTreeSet<String>,
    context: Option<UsedContext>,
    /// Which authorities the member that answered believes.
    authorities_mark: Option<String>,
}

impl<'t> Session<'t> {
    /// Connects to nothing yet.
    pub(crate) fn new(global: &Global, way: Way, terminal: &'t mut Terminal) -> Self {
        Self {
            endpoints: way.endpoints,
            transport: way.transport,
            timeout: global.timeout,
            format: global.output,
            terminal,
            connected: None,
            kept: way.kept,
            passed_over: BTreeSet::new(),
            context: way.context,
            authorities_mark: None,
        }
    }

    /// How long one call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives a call that does a lot at least this long.
    pub(crate) fn allow(&mut self, time: Duration) {
        self.timeout = self.timeout.max(time);
    }

    /// The form of the output.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// The endpoint that answered last, or the first.
    pub(crate) fn endpoint(&self) -> &str {
        let index = self.connected.as_ref().map_or(0, |(index, _)| *index);
        self.endpoints.get(index).map_or("", String::as_str)
    }

    /// Forgets the connection and begins with the next endpoint.
    pub(crate) fn leave_endpoint(&mut self) {
        let passed = self.connected.take().map_or(0, |(index, _)| index) + 1;
        let count = self.endpoints.len().max(1);
        self.endpoints.rotate_left(passed % count);
    }

    /// Leaves only the first endpoint, for what must reach that very member.
    pub(crate) fn first_endpoint_only(&mut self) {
        self.endpoints.truncate(1);
    }

    /// Prints data in the form that was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn print<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let text = render(self.format, value, text)?;
        self.terminal.data(&text)
    }

    /// Prints a list; in place of a table without rows it says on standard error that nothing is there, as kubectl does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn print_list<T: Serialize>(
        &mut self,
        list: &[T],
        none: &str,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        if list.is_empty() && self.format == Format::Table {
            self.terminal.note(none);
            return Ok(());
        }
        self.print(&list, text)
    }

    /// Makes a call on the first endpoint that can do it; see [`Repeat`] for when it is made again.
    ///
    /// # Errors
    /// When a member refuses, none answers, or the outcome is unknown.
    pub(crate) async fn call<T, F>(&mut self, repeat: Repeat<'_>, make: F) -> Result<T, Error>
    where
        F: AsyncFn(Channel) -> Result<Response<T>, Status>,
    {
        if let Repeat::Write(id) = repeat {
            self.terminal.request_id = Some(id.to_owned());
        }
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE_FIRST;
        let mut rounds = 0u32;
        loop {
            let failures = match self.round(repeat, &make, deadline).await {
                Ok(answer) => return answer,
                Err(failures) => failures,
            };
            rounds += 1;
            // A member that has no part in the cluster has none in a moment either.
            let hopeless = failures.iter().all(|failure| failure.outside.is_some());
            let again = matches!(repeat, Repeat::Write(_) | Repeat::Watch)
                && !hopeless
                && Instant::now() + pause < deadline;
            if !again {
                let request_id = match repeat {
                    Repeat::Write(id) if !hopeless => Some(id.to_owned()),
                    Repeat::Write(_) | Repeat::Read | Repeat::Watch | Repeat::NonIdempotent => None,
                };
                let tried_for = (rounds > 1).then_some(self.timeout);
                return Err(Error::NoAnswer { failures, tried_for, request_id });
            }
            if rounds == 1 {
                self.tell(&failures);
                let time = duration_text(self.timeout);
                self.terminal.note(format_args!("trying again, for at most {time} in all"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Makes a read whose answer only completes another one: a failure is told, and the answer is left out.
    pub(crate) async fn call_for_extra<T, F>(&mut self, what: &str, make: F) -> Option<T>
    where
        F: AsyncFn(Channel) -> Result<Response<T>, Status>,
    {
        match self.call(Repeat::Read, make).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.terminal.note(format_args!("warning: {what} is not shown: {error}"));
                None
            }
        }
    }

    fn tell(&mut self, failures: &[Failure]) {
        for failure in failures {
            self.terminal.note(failure.line());
        }
    }

    /// Tells of endpoints that answer and do not belong to the cluster, once each: whoever named them wants to know.
    fn tell_passed_over(&mut self, failures: &[Failure]) {
        for failure in failures.iter().filter(|failure| failure.outside.is_some()) {
            if self.passed_over.insert(failure.endpoint.clone()) {
                self.terminal.note(failure.line());
            }
        }
    }

    /// The cluster's status from the first endpoint that belongs to one and of which nothing is `lacking`, or else the first
    /// answer, and what went wrong at each endpoint. Every member answers it, also one that knows nothing of the cluster.
    ///
    /// # Errors
    /// When none answers.
    pub(crate) async fn cluster_status(
        &mut self,
        local_only: bool,
        lacking: impl Fn(&v1::ClusterStatus) -> Option<String>,
    ) -> Result<(v1::ClusterStatus, Vec<Failure>), Error> {
        let make = async |channel| {
            cluster(channel).get_cluster_status(v1::GetClusterStatusRequest { local_only }).await
        };
        let deadline = Instant::now() + self.timeout;
        let first = self.connected.as_ref().map_or(0, |(index, _)| *index);
        let (mut second_best, mut failures) = (None, Vec::new());
        for step in 0..self.endpoints.len() {
            let index = (first + step) % self.endpoints.len();
            let answer = match self.attempt(index, &make, deadline).await {
                Ok(answer) => answer,
                Err(Attempt::Refused(status)) => return Err(Error::Refused(status)),
                Err(Attempt::TimedOut(failure) | Attempt::NotDone(failure) | Attempt::Lost(failure)) => {
                    failures.push(failure);
                    continue;
                }
            };
            let outside = Outside::of_member(&answer);
            let Some(reason) = outside.map(|what| what.to_string()).or_else(|| lacking(&answer)) else {
                self.tell_passed_over(&failures);
                if !local_only {
                    self.keep_endpoints(answer.members.iter().filter_map(|status| status.member.as_ref()));
                }
                return Ok((answer, failures));
            };
            let endpoint = self.endpoint().to_owned();
            failures.push(Failure { endpoint, reason, answered: true, outside });
            // A member of the cluster knows more of it than one without.
            if second_best.as_ref().is_none_or(|(_, without)| *without && outside.is_none()) {
                second_best = Some((answer, outside.is_some()));
            }
        }
        match second_best {
            Some((answer, _)) => Ok((answer, failures)),
            None => Err(Error::NoAnswer { failures, tried_for: None, request_id: None }),
        }
    }

    /// Asks each endpoint once, the one that answered last first. `Err` when another round may help.
    async fn round<T, F>(
        &mut self,
        repeat: Repeat<'_>,
        make: &F,
        deadline: Instant,
    ) -> Result<Result<T, Error>, Vec<Failure>>
    where
        F: AsyncFn(Channel) -> Result<Response<T>, Status>,
    {
        let first = self.connected.as_ref().map_or(0, |(index, _)| *index);
        let mut failures = Vec::new();
        for step in 0..self.endpoints.len() {
            let index = (first + step) % self.endpoints.len();
            match self.attempt(index, make, deadline).await {
                Ok(answer) => {
                    self.tell_passed_over(&failures);
                    return Ok(Ok(answer));
                }
                Err(Attempt::Refused(status)) => return Ok(Err(Error::Refused(status))),
                // Reads change nothing, so all that is to be told is how each endpoint failed.
                Err(Attempt::TimedOut(failure)) if matches!(repeat, Repeat::Read | Repeat::Watch) => {
                    failures.push(failure);
                    break;
                }
                Err(Attempt::TimedOut(failure)) => {
                    self.tell(&failures);
                    return Ok(Err(unknown(failure, repeat)));
                }
                Err(Attempt::Lost(failure)) if matches!(repeat, Repeat::NonIdempotent) => {
                    return Ok(Err(unknown(failure, repeat)));
                }
                Err(Attempt::NotDone(failure) | Attempt::Lost(failure)) => failures.push(failure),
            }
        }
        Err(failures)
    }

    fn note_authorities(&mut self, metadata: &MetadataMap) {
        let mark = metadata.get(AUTHORITIES_HEADER).and_then(|mark| mark.to_str().ok());
        self.authorities_mark = mark.map(str::to_owned).or(self.authorities_mark.take());
    }

    /// Whether a member that was believed, and has answered, believes other authorities than the context.
    pub(crate) fn has_old_authorities(&self) -> bool {
        let own = self.context.as_ref().map(|used| used.identity.authorities_mark());
        self.authorities_mark.as_ref().is_some_and(|mark| own.is_some_and(|own| own != *mark))
    }

    async fn attempt<T, F>(&mut self, index: usize, make: &F, deadline: Instant) -> Result<T, Attempt>
    where
        F: AsyncFn(Channel) -> Result<Response<T>, Status>,
    {
        let endpoint = self.endpoints.get(index).cloned().unwrap_or_default();
        let failure = |reason: String, answered| Failure {
            endpoint: endpoint.clone(),
            reason,
            answered,
            outside: None,
        };
        let outside = |what: Outside| {
            Attempt::NotDone(Failure { outside: Some(what), ..failure(what.to_string(), true) })
        };
        let channel = match self.connected.take() {
            Some((connected, channel)) if connected == index => channel,
            _ => connect(&self.transport, &endpoint, deadline)
                .await
                .map_err(|reason| Attempt::NotDone(failure(reason, false)))?,
        };
        let Ok(answer) = timeout_at(deadline, make(channel.clone())).await else {
            let reason = format!("did not answer within {}", duration_text(self.timeout));
            return Err(Attempt::TimedOut(failure(reason, true)));
        };
        let status = match answer {
            Ok(response) => {
                self.note_authorities(response.metadata());
                self.connected = Some((index, channel));
                return Ok(response.into_inner());
            }
            Err(status) => status,
        };
        self.note_authorities(status.metadata());
        // Statuses that the transport makes up carry their cause; those that a member sent do not.
        if status.source().is_some() {
            if let Some(what) = endpoint::http_at(&endpoint, deadline).await {
                return Err(outside(what));
            }
            return Err(Attempt::Lost(failure(format!("connection lost: {}", root_cause(&status)), false)));
        }
        let reason = status.message().to_owned();
        if let Some(mut what) = Outside::of(&status) {
            if what == Outside::NoCluster && is_joining(channel, deadline).await {
                what = Outside::Joining;
            }
            // The words of the only endpoint say what to do.
            let only = self.endpoints.len() == 1 && what != Outside::Joining;
            return Err(if only { Attempt::Refused(Box::new(status)) } else { outside(what) });
        }
        if status.code() == Code::Unimplemented && endpoint::is_peer_port(channel.clone(), deadline).await {
            return Err(outside(Outside::PeerPort));
        }
        // What a web server answers over HTTP/2 is a page, which is no message, or a status of its own.
        if matches!(status.code(), Code::Unimplemented | Code::Internal)
            && let Some(what) = endpoint::http_at(&endpoint, deadline).await
        {
            return Err(outside(what));
        }
        self.connected = Some((index, channel));
        match status.code() {
            Code::Unavailable => Err(Attempt::NotDone(failure(reason, true))),
            Code::DeadlineExceeded => Err(Attempt::Lost(failure(reason, true))),
            _ => Err(Attempt::Refused(Box::new(status))),
        }
    }

    /// The next message of a stream, or `None` at its end.
    ///
    /// # Errors
    /// When the member refuses, the connection is lost, or nothing comes within `patience`.
    pub(crate) async fn next<T>(
        &mut self,
        stream: &mut Streaming<T>,
        patience: Duration,
        advice: &str,
    ) -> Result<Option<T>, Error> {
        let lost = |reason: String| Error::Unknown {
            endpoint: self.endpoint().to_owned(),
            reason,
            advice: advice.to_owned(),
        };
        match timeout(patience, stream.message()).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) if status.source().is_some() => {
                Err(lost(format!("connection lost: {}", root_cause(&status))))
            }
            Ok(Err(status)) => Err(Error::Refused(Box::new(status))),
            Err(_) => Err(lost(format!("sent nothing for {}", duration_text(patience)))),
        }
    }

    /// Says on standard error how fresh a local read is.
    pub(crate) fn note_freshness(&mut self, read: Option<&v1::ReadInfo>) {
        if let Some(read) = read.filter(|read| read.possibly_stale) {
            let member = read.member.strip_prefix("members/").unwrap_or(&read.member);
            self.terminal
                .note(format_args!("read from {member} alone, at revision {}: may be stale", read.revision));
        }
    }
}

fn unknown(failure: Failure, repeat: Repeat<'_>) -> Error {
    let advice = match repeat {
        Repeat::Write(id) => format!(
            "the outcome is unknown: repeat the command with --request-id {id}, which applies it at most once"
        ),
        Repeat::Read | Repeat::Watch | Repeat::NonIdempotent => {
            "the outcome is unknown: look at \"trestle status\" before you repeat the command".to_owned()
        }
    };
    Error::Unknown { endpoint: failure.endpoint, reason: failure.reason, advice }
}

/// Whether a member without a cluster asks to be taken into one.
async fn is_joining(channel: Channel, deadline: Instant) -> bool {
    let request = v1::GetClusterStatusRequest { local_only: true };
    let answer = timeout_at(deadline, cluster(channel).get_cluster_status(request)).await;
    let status = answer.ok().and_then(Result::ok).map(Response::into_inner);
    status.is_some_and(|status| Outside::of_member(&status) == Some(Outside::Joining))
}

async fn connect(transport: &Transport, address: &str, deadline: Instant) -> Result<Channel, String> {
    let dialer = transport.dialer(address, &CHANNEL).map_err(|e| root_cause(&e))?;
    let limit = deadline.min(Instant::now() + CONNECT_TIMEOUT);
    match timeout_at(limit, dialer.connect()).await {
        Ok(connected) => connected.map_err(|e| root_cause(&e)),
        Err(_) => Err(format!("no connection within {}", duration_text(CONNECT_TIMEOUT))),
    }
}

/// The innermost cause, which names what happened; those around it name layers.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = match cause.downcast_ref::<std::io::Error>() {
        // "Connection refused (os error 111)" has a plain name.
        Some(io) if io.raw_os_error().is_some() => io.kind().to_string(),
        _ => cause.to_string(),
    };
    if text.starts_with("uncategorized") { cause.to_string() } else { text }
}
