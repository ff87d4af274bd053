//! gRPC at an own port: HTTP/2 with bounds, and a budget for calls around the services.

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};
use tower::ServiceExt;

use super::calls::{CallClass, CallPermit, too_many};
use super::connection::PortConnection;
use super::session::{CallerSession, Proof};
use super::{ClientSource, ConnectionOrigin, EstablishedIo, Serve, ServicePort};

/// Streams of one connection at a time. Clients that have more to do wait, or open another connection.
const STREAMS_MAX: u32 = 128;
/// Most bytes of a request's headers, names and values, with 32 for each field (RFC 9113 §6.5.2).
const HEADERS_MAX: u32 = 16 * 1024;
/// Most bytes of answers that wait for one stream's window.
const SEND_BUFFER: usize = 64 * 1024;
/// What a connection may have on which nobody has shown a certificate where members do: a process that joins makes one call at a time, of a
/// token, a request for a certificate and a few names.
const ANONYMOUS_STREAMS_MAX: u32 = 1;
const ANONYMOUS_REQUEST_MAX: u32 = 16 * 1024;
/// How long it may stay; a call that is under way is answered.
const ANONYMOUS_LIFE: Duration = Duration::from_secs(10);
/// How long a request may take from its head to its end.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long a call with one answer may be worked on.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// As long for calls that wait: what they wait for has bounds of its own, 300 s at most.
const WAITING_DEADLINE: Duration = Duration::from_secs(330);

/// Whose connection a call comes over.
pub(crate) struct Client<'a> {
    /// Where the connection comes from.
    pub(crate) origin: &'a ConnectionOrigin,
    /// Who that has proved to be, as it is now.
    pub(crate) proof: Proof,
}

/// What stands before the services of a port.
pub(crate) trait Guard: Send + Sync + 'static {
    /// Makes the caller of a call and leaves it with the request, or refuses the call.
    fn admit(&self, client: &Client<'_>, request: &mut Request<Incoming>) -> Result<(), Status>;

    /// Notes how a call of this method failed, if that was because of who makes it.
    fn note_refusal(&self, client: &Client<'_>, source: ClientSource, path: &str, status: &Status);
}

/// What ports differ in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Http2 {
    /// Bytes of requests that a connection may have on its way, for one stream and altogether.
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    /// Silence after which a client is probed, and how long the probe may take.
    pub(crate) keep_alive: (Duration, Duration),
}

/// Serves gRPC services.
pub(crate) struct Grpc {
    pub(crate) services: Router,
    pub(crate) http2: Http2,
    /// Asked before each call's service.
    pub(crate) guard: Arc<dyn Guard>,
}

/// The budget of a call, by its path.
pub(super) fn class(path: &str) -> CallClass {
    let Some((service, method)) = path.trim_start_matches('/').split_once('/') else {
        return CallClass::Unary;
    };
    match (service, method) {
        ("grpc.health.v1.Health", "Check") => CallClass::Health,
        ("trestle.peer.v1.RaftService", _) => CallClass::Raft,
        ("grpc.health.v1.Health", _)
        | ("grpc.reflection.v1.ServerReflection", _)
        | (
            _,
            "WatchCluster"
            | "ListEvents"
            | "WatchEvents"
            | "WaitForRevision"
            | "AddMember"
            | "PromoteMember"
            | "RotateAuthority"
            | "BackupConfiguration"
            | "CloseConnectionsGradually"
            | "Forward",
        ) => CallClass::Streaming,
        (
            _,
            "AwaitRevision"
            | "AwaitEvents"
            | "RequestJoin"
            | "Adopt"
            | "NotifyRemoved"
            | "RemoveMember"
            | "MoveVips"
            | "TransferLeadership"
            | "BootstrapCluster"
            | "AddAuthority"
            | "RestoreConfiguration",
        ) => CallClass::Waiting,
        _ => CallClass::Unary,
    }
}

/// Whether a request is a stream that has begun once its first message is there.
fn is_client_stream(path: &str) -> bool {
    path.ends_with("/AppendStream")
        || path.ends_with("/InstallSnapshot")
        || path.ends_with("/RestoreConfiguration")
        || path.contains("ServerReflection/")
}

/// The client's own deadline (`grpc-timeout`: up to 8 digits and a unit), if it set one.
fn client_deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits.parse::<u32>().ok().filter(|number| *number < 100_000_000)?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    unit.checked_mul(number)
}

/// A request as it comes.
struct RequestBody {
    body: Incoming,
    permit: Arc<CallPermit>,
    port: Arc<ServicePort>,
    deadline: Pin<Box<Sleep>>,
    /// It has begun with its first message, and what comes then is read as it comes.
    streams: bool,
    begun: bool,
    /// Bytes that may still come.
    left: usize,
}

impl RequestBody {
    fn started(&mut self) -> Result<(), Status> {
        self.begun = true;
        self.permit.start(Instant::now()).inspect_err(|_| self.port.call_refused())
    }

    /// Whether bytes that come now are held until the call ends.
    fn holds(&self) -> bool {
        let is_raft = self.permit.class() == CallClass::Raft;
        !(self.begun || is_raft && self.port.is_trusted(self.permit.connection()))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() && !self.begun {
            ready!(self.deadline.as_mut().poll(cx));
            let late = format!("the request did not come whole within {REQUEST_DEADLINE:?}");
            return Poll::Ready(Some(Err(Status::deadline_exceeded(late))));
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let why = format!("the request broke off: {error}");
                return Poll::Ready(Some(Err(Status::new(Code::Cancelled, why))));
            }
            None if self.begun => return Poll::Ready(None),
            None => return Poll::Ready(self.started().err().map(Err)),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(left) = self.left.checked_sub(bytes) else {
            self.port.call_refused();
            let what = format!("a request without a certificate has at most {ANONYMOUS_REQUEST_MAX} bytes");
            return Poll::Ready(Some(Err(Status::resource_exhausted(what))));
        };
        self.left = left;
        if let Some(data) = frame.data_ref()
            && self.holds()
            && let Err(status) = self.permit.add_request_bytes(data.len())
        {
            self.port.call_refused();
            return Poll::Ready(Some(Err(status)));
        }
        if !self.begun && (self.body.is_end_stream() || self.streams) {
            self.started()?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.begun && self.body.is_end_stream()
    }
}

/// An answer as it is fetched.
struct ResponseBody {
    body: Body,
    /// What ends it when whoever called is let in no more; `None` where it is short.
    revocation: Option<Revocation>,
    /// Holds the call's place until the last of it was fetched.
    _permit: Option<Arc<CallPermit>>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(revocation) = &mut self.revocation {
            if revocation.told {
                return Poll::Ready(None);
            }
            if let Poll::Ready(end) = revocation.poll_end(cx) {
                return Poll::Ready(Some(Ok(end)));
            }
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() || self.revocation.as_ref().is_some_and(|revocation| revocation.told)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn refused(status: Status) -> Response<ResponseBody> {
    status.into_http::<Body>().map(|body| ResponseBody { body, revocation: None, _permit: None })
}

impl ServicePort {
    fn call_refused(&self) {
        self.counters.calls_refused.fetch_add(1, Relaxed);
    }

    /// Whether a connection carries Raft, or comes from where another one does.
    fn is_trusted(&self, connection: &PortConnection) -> bool {
        connection.is_lane() || self.admission().has_lanes(connection.source)
    }

    /// Answers one call.
    async fn call(
        self: Arc<Self>,
        services: Router,
        guard: Arc<dyn Guard>,
        connection: Arc<PortConnection>,
        mut request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        let path = request.uri().path().to_owned();
        let (class, streams) = (class(&path), is_client_stream(&path));
        let limit = match class {
            CallClass::Raft => None,
            CallClass::Waiting => Some(REQUEST_DEADLINE + WAITING_DEADLINE),
            _ => Some(REQUEST_DEADLINE + CALL_DEADLINE),
        };
        let limit = limit.into_iter().chain(client_deadline(request.headers())).min();
        if !self.calls.may_begin(&connection, class) {
            self.call_refused();
            if class != CallClass::Raft {
                connection.count_eviction();
                return refused(too_many("as many requests as it can that have not come whole"));
            }
            // No member does that, and each call takes time from the threads that answer heartbeats.
            connection.abort();
            return refused(too_many("as many of Raft's calls as it can for one stranger"));
        }
        let permit = Arc::new(self.calls.begin(&connection, class, Instant::now()));
        let deadline = Box::pin(sleep(REQUEST_DEADLINE));
        let asked = |body| {
            let (permit, port) = (permit.clone(), self.clone());
            let left = if connection.is_anonymous() { ANONYMOUS_REQUEST_MAX as usize } else { usize::MAX };
            Body::new(RequestBody { body, permit, port, deadline, streams, begun: false, left })
        };
        let session = connection.session();
        let current = session.map(|session| session.calling(&path)).transpose();
        let proof = current.as_ref().ok().and_then(Option::as_ref).cloned().unwrap_or(Proof::None);
        let client = Client { origin: &connection.origin, proof };
        let note = |refusal: &Status| guard.note_refusal(&client, connection.source, &path, refusal);
        let admitted = current.and_then(|_| guard.admit(&client, &mut request));
        if let Err(refusal) = admitted {
            note(&refusal);
            return refused(refusal);
        }
        session.iter().for_each(|session| session.note_call(connection.source, &path));
        let revocable = session.filter(|session| session.ends(class));
        let answering = async {
            let answering = services.oneshot(request.map(asked));
            match limit {
                None => Some(answering.await),
                Some(limit) => timeout(limit, answering).await.ok(),
            }
        };
        let answered = tokio::select! {
            answered = answering => answered,
            refusal = revoked(revocable) => return refused(refusal),
            () = permit.evicted() => {
                self.call_refused();
                connection.count_eviction();
                return refused(too_many("too many requests that do not come whole"));
            }
        };
        let mut response = match answered {
            Some(Ok(response)) => response,
            Some(Err(never)) => match never {},
            None => return refused(Status::deadline_exceeded("the call took longer than it may")),
        };
        let failed = response.headers().get("grpc-status").is_some_and(|status| status != "0");
        if failed {
            Status::from_header_map(response.headers()).iter().for_each(note);
        }
        if class == CallClass::Raft && !failed && !connection.is_lane() {
            self.admission().make_lane(connection.number);
        }
        session.iter().for_each(|session| session.tell_authorities(response.headers_mut()));
        permit.answer(Instant::now());
        let revocation = revocable.map(|session| Revocation::new(session.clone()));
        response.map(|body| ResponseBody { body, revocation, _permit: Some(permit) })
    }
}

/// Resolves when the caller is let in no more, with what it is told; never for a call that is not revocable.
async fn revoked(session: Option<&Arc<CallerSession>>) -> Status {
    let Some(session) = session else { return std::future::pending().await };
    session.ended().await;
    session.refusal()
}

/// The end of an answer when its caller is let in no more.
struct Revocation {
    session: Arc<CallerSession>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    told: bool,
}

impl Revocation {
    fn new(session: Arc<CallerSession>) -> Self {
        let ended = Box::pin(session.ended());
        Self { session, ended, told: false }
    }

    /// The last frame, once that has happened.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Frame<Bytes>> {
        ready!(self.ended.as_mut().poll(cx));
        self.told = true;
        let mut trailers = HeaderMap::new();
        // A message that is no header is left out; the code is there all the same.
        let _ = self.session.refusal().add_header(&mut trailers);
        Poll::Ready(Frame::trailers(trailers))
    }
}

/// In words, what the peer of a connection did that HTTP/2 does not allow, if that ended it.
fn protocol_error(error: &hyper::Error) -> Option<&'static str> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    (error.is_library() && !error.is_io())
        .then_some("it broke the rules of HTTP/2, or began and reset too many calls")
}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static> Serve<Io> for Grpc {
    async fn serve(
        &self,
        port: Arc<ServicePort>,
        connection: Arc<PortConnection>,
        io: EstablishedIo<Io>,
        stop: CancellationToken,
    ) -> Result<(), &'static str> {
        let (services, shared, guard) = (self.services.clone(), connection.clone(), self.guard.clone());
        let service = hyper::service::service_fn(move |request| {
            let call = port.clone().call(services.clone(), guard.clone(), shared.clone(), request);
            async move { Ok::<_, Infallible>(call.await) }
        });
        let anonymous = connection.is_anonymous();
        let (streams, window) = match anonymous {
            true => (ANONYMOUS_STREAMS_MAX, ANONYMOUS_REQUEST_MAX),
            false => (STREAMS_MAX, self.http2.stream_window),
        };
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_header_list_size(HEADERS_MAX)
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(window)
            .initial_connection_window_size(self.http2.connection_window)
            .keep_alive_interval(self.http2.keep_alive.0)
            .keep_alive_timeout(self.http2.keep_alive.1);
        let mut serving = pin!(http2.serve_connection(TokioIo::new(io), service));
        let mut life = pin!(sleep(ANONYMOUS_LIFE));
        let mut leaving = false;
        loop {
            tokio::select! {
                ended = serving.as_mut() => {
                    return ended.map_err(|error| protocol_error(&error)).or_else(|what| what.map_or(Ok(()), Err));
                }
                () = connection.close_requested(), if !leaving => {}
                () = stop.cancelled(), if !leaving => {}
                () = life.as_mut(), if anonymous && !leaving => {}
            }
            leaving = true;
            serving.as_mut().graceful_shutdown();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message;

    use super::*;

    #[test]
    fn a_clients_deadline_is_read_as_grpc_writes_it() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            client_deadline(&headers)
        };
        assert_eq!(of("5S"), Some(Duration::from_secs(5)));
        assert_eq!(of("99999999H"), Duration::from_secs(3600).checked_mul(99_999_999));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        for wrong in ["", "S", "5", "5s", "100000000S", "-5S", "5 S", "\u{b5}"] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn every_stream_of_answers_has_the_budget_of_streams() {
        let files = prost_types::FileDescriptorSet::decode(trestle_api::DESCRIPTORS).unwrap();
        let mut streams = 0;
        for file in files.file {
            for service in file.service {
                for method in &service.method {
                    let path =
                        format!("/{}.{}/{}", file.package.as_deref().unwrap(), service.name(), method.name());
                    let class = class(&path);
                    if class == CallClass::Raft {
                        continue;
                    }
                    assert_eq!(class == CallClass::Streaming, method.server_streaming(), "{path}");
                    assert_eq!(is_client_stream(&path), method.client_streaming(), "{path}");
                    streams += usize::from(method.server_streaming());
                }
            }
        }
        assert_eq!(streams, 9);
        assert_eq!(class("/grpc.health.v1.Health/Check"), CallClass::Health);
        assert_eq!(class("/x"), CallClass::Unary);
    }
}
