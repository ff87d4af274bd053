//! Calls between members. Each is a stream of parcels in each direction, which keep their order as on a TCP connection; calls overtake
//! one another, some are made twice, and what is lost is sent again or breaks the call.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response, response};
use tonic::codegen::{Bytes, StdError};

use trestle_model::MemberId;

use crate::draws::Draws;
use crate::trace::Trace;

pub(crate) const MS: u64 = 1_000_000;

/// Silence after which a caller gives a connection up: its keep-alive.
const KEEP_ALIVE: u64 = 450 * MS;
/// The same at the other end, which looks less often.
const SERVER_KEEP_ALIVE: u64 = 2_000 * MS;

/// What is on its way.
pub(crate) enum Parcel {
    Open(Box<Request<()>>),
    Up(Part),
    Down(Part),
    Answer(Box<response::Parts>),
    /// The caller is gone.
    Cancel,
    /// Nothing listens there.
    Refused,
    /// The other end is gone.
    Broken,
}

#[derive(Clone)]
pub(crate) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

type Frames = UnboundedSender<Result<Frame<Bytes>, Status>>;

#[derive(Default)]
struct Direction {
    parcels: VecDeque<(u64, Parcel)>,
    last: u64,
}

/// A call that is open at one end at least.
struct Call {
    from: usize,
    to: usize,
    up: Direction,
    down: Direction,
    answered: Option<oneshot::Sender<Result<response::Parts, StdError>>>,
    /// Where the caller reads the answer.
    read: Option<Frames>,
    /// Ends the caller's sending when it is dropped.
    _sending: Option<oneshot::Sender<()>>,
    /// Where the other end reads.
    served: Option<Frames>,
    serving: Option<AbortHandle>,
    /// A second delivery of the same call, whose answer nobody gets.
    twin: Option<u64>,
}

/// How a link is now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) cut: bool,
    /// Of a thousand parcels.
    pub(crate) loss: u64,
    /// Microseconds from and to.
    pub(crate) delay: (u64, u64),
    bad_since: Option<u64>,
}

impl Link {
    /// A link that loses so many of a thousand parcels, and delays them by so many microseconds at the most.
    pub(crate) const fn new(loss: u64, delay: u64) -> Self {
        Self { cut: false, loss, delay: (100, delay), bad_since: None }
    }
}

pub(crate) struct NetworkState {
    pub(crate) now: u64,
    calls: BTreeMap<u64, Call>,
    numbers: u64,
    /// For each member, by when they are due: a call, and whether its way up.
    due: Vec<BTreeMap<(u64, u64), (u64, bool)>>,
    /// By the member that gives a connection up by itself.
    timers: BTreeMap<(u64, u64), u64>,
    pub(crate) links: Vec<Vec<Link>>,
    /// Of a thousand calls, those that are made twice.
    pub(crate) twice: u64,
    /// Which members' machines answer at all.
    pub(crate) answers: Vec<bool>,
    /// The id that each member has proved to have, by its certificate.
    pub(crate) ids: Vec<Option<MemberId>>,
    pub(crate) draws: Draws,
    pub(crate) trace: Trace,
    pub(crate) delivered: u64,
}

/// The network. Clones share it.
#[derive(Clone)]
pub(crate) struct SimulatedNetwork(Arc<Mutex<NetworkState>>);

/// What a member is handed.
pub(crate) struct Delivery {
    pub(crate) call: u64,
    pub(crate) from: usize,
    pub(crate) request: Request<Body>,
}

/// Ends a call when its caller is no longer interested.
struct Caller {
    network: SimulatedNetwork,
    call: u64,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.network.state().abandon(self.call);
    }
}

fn body(frames: UnboundedReceiver<Result<Frame<Bytes>, Status>>, caller: Option<Caller>) -> Body {
    let frames = stream::unfold((frames, caller), |(mut frames, caller)| async move {
        let frame = frames.recv().await?;
        Some((frame, (frames, caller)))
    });
    Body::new(StreamBody::new(sync(frames)))
}

/// A stream as a body wants it.
fn sync<S: Stream + Send + 'static>(stream: S) -> futures_util::stream::BoxStream<'static, S::Item> {
    stream.boxed()
}

impl SimulatedNetwork {
    pub(crate) fn new(members: usize, draws: Draws) -> Self {
        Self(Arc::new(Mutex::new(NetworkState {
            now: 0,
            calls: BTreeMap::new(),
            numbers: 0,
            due: vec![BTreeMap::new(); members],
            timers: BTreeMap::new(),
            links: vec![vec![Link::new(0, 3_000); members]; members],
            twice: 0,
            answers: vec![true; members],
            ids: vec![None; members],
            draws,
            trace: Trace::default(),
            delivered: 0,
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, NetworkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a call of the member `from`, which is the one whose runtime this is called on.
    pub(crate) fn call(
        &self,
        from: usize,
        to: usize,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, StdError>> {
        let (head, sent) = request.into_parts();
        let (answered, answer) = oneshot::channel();
        let (read, reading) = unbounded_channel();
        let (sending, mut stop) = oneshot::channel::<()>();
        let mut open = Request::new(());
        (*open.method_mut(), *open.uri_mut(), *open.headers_mut()) = (head.method, head.uri, head.headers);
        let call = self.state().open(from, to, open, (answered, read, sending));
        let network = self.clone();
        tokio::spawn(async move {
            let mut sent = Box::pin(sent);
            loop {
                let frame = tokio::select! {
                    biased;
                    _ = &mut stop => return,
                    frame = sent.frame() => frame,
                };
                match frame {
                    Some(Ok(frame)) => network.state().push_frame(call, true, frame),
                    Some(Err(_)) => return network.state().abandon(call),
                    None => return network.state().push(call, true, Parcel::Up(Part::End)),
                }
            }
        });
        let caller = Caller { network: self.clone(), call };
        Box::pin(async move {
            let head = answer.await.map_err(|_| broken())??;
            Ok(Response::from_parts(head, body(reading, Some(caller))))
        })
    }

    /// Takes what the other end of a call answers.
    pub(crate) fn answer(&self, call: u64, serving: &tokio::task::JoinHandle<()>) {
        if let Some(call) = self.state().calls.get_mut(&call) {
            call.serving = Some(serving.abort_handle());
        }
    }

    /// Sends an answer, to its end.
    pub(crate) async fn send_answer(self, call: u64, response: Response<Body>) {
        let (head, mut sent) = response.into_parts();
        self.state().push(call, false, Parcel::Answer(Box::new(head)));
        while let Some(Ok(frame)) = sent.frame().await {
            self.state().push_frame(call, false, frame);
        }
        self.state().push(call, false, Parcel::Down(Part::End));
    }
}

fn broken() -> StdError {
    "the connection broke".into()
}

type CallerEnds = (oneshot::Sender<Result<response::Parts, StdError>>, Frames, oneshot::Sender<()>);

impl NetworkState {
    fn open(&mut self, from: usize, to: usize, request: Request<()>, ends: CallerEnds) -> u64 {
        let repeatable = request.uri().path().starts_with("/trestle.peer.v1.RaftService/")
            && !request.uri().path().ends_with("InstallSnapshot");
        let twin = (repeatable && self.draws.chance(self.twice)).then(|| self.insert(from, to, None));
        let copy = twin.map(|twin| (twin, request.clone()));
        let call = self.insert(from, to, Some(ends));
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.twin = twin;
        }
        self.push(call, true, Parcel::Open(Box::new(request)));
        if let Some((twin, request)) = copy {
            self.push(twin, true, Parcel::Open(Box::new(request)));
        }
        call
    }

    fn insert(&mut self, from: usize, to: usize, ends: Option<CallerEnds>) -> u64 {
        self.numbers += 1;
        let (answered, read, sending) = match ends {
            Some((answered, read, sending)) => (Some(answered), Some(read), Some(sending)),
            None => (None, None, None),
        };
        let (up, down) = (Direction::default(), Direction::default());
        let call = Call {
            from,
            to,
            up,
            down,
            answered,
            read,
            _sending: sending,
            served: None,
            serving: None,
            twin: None,
        };
        self.calls.insert(self.numbers, call);
        self.numbers
    }

    fn push_frame(&mut self, call: u64, up: bool, frame: Frame<Bytes>) {
        let part = match frame.into_data() {
            Ok(data) => Part::Data(data),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Part::Trailers(trailers),
                Err(_) => return,
            },
        };
        let parcel = if up { Parcel::Up(part) } else { Parcel::Down(part) };
        self.push(call, up, parcel);
    }

    fn push(&mut self, number: u64, up: bool, parcel: Parcel) {
        let Some(call) = self.calls.get(&number) else { return };
        if let (Parcel::Up(part), Some(twin)) = (&parcel, call.twin) {
            self.push(twin, true, Parcel::Up(part.clone()));
        }
        let Some(call) = self.calls.get_mut(&number) else { return };
        let link = if up { self.links[call.from][call.to] } else { self.links[call.to][call.from] };
        let direction = if up { &mut call.up } else { &mut call.down };
        let ready = (self.now + 1000 * self.draws.within(link.delay.0, link.delay.1)).max(direction.last);
        direction.last = ready;
        direction.parcels.push_back((ready, parcel));
        if direction.parcels.len() == 1 {
            self.schedule(number, up, ready);
        }
    }

    fn schedule(&mut self, call: u64, up: bool, at: u64) {
        let Some(to) = self.calls.get(&call).map(|call| if up { call.to } else { call.from }) else { return };
        self.numbers += 1;
        self.due[to].insert((at, self.numbers), (call, up));
    }

    /// The caller is gone: whatever it sends no more.
    fn abandon(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        (call.answered, call.read, call._sending) = (None, None, None);
        self.push(number, true, Parcel::Cancel);
    }

    /// Whether something is due for a member.
    pub(crate) fn is_due(&self, member: usize) -> bool {
        self.due[member].first_key_value().is_some_and(|((at, _), _)| *at <= self.now)
    }

    /// Takes the next parcel that is due for a member; `None` when it has not arrived. `listens` says whether it has a process that
    /// takes calls.
    pub(crate) fn take(&mut self, member: usize, listens: bool) -> Option<Delivery> {
        let (_, (number, up)) = self.due[member].pop_first()?;
        let call = self.calls.get_mut(&number)?;
        let (from, to) = if up { (call.from, call.to) } else { (call.to, call.from) };
        let link = self.links[from][to];
        if link.cut || !self.answers[to] || self.draws.chance(link.loss) {
            let again = self.now + MS * self.draws.within(100, 250);
            self.schedule(number, up, again);
            return None;
        }
        let direction = if up { &mut call.up } else { &mut call.down };
        let (_, parcel) = direction.parcels.pop_front()?;
        let next = direction.parcels.front().map(|(ready, _)| *ready);
        if let Some(next) = next {
            self.schedule(number, up, next.max(self.now));
        }
        self.deliver(number, parcel, listens)
    }

    fn deliver(&mut self, number: u64, parcel: Parcel, listens: bool) -> Option<Delivery> {
        self.delivered += 1;
        self.note(number, &parcel);
        let call = self.calls.get_mut(&number)?;
        match parcel {
            Parcel::Open(_) if !listens => self.push(number, false, Parcel::Refused),
            Parcel::Open(request) => {
                let (served, serving) = unbounded_channel();
                call.served = Some(served);
                let from = call.from;
                let request = request.map(|()| body(serving, None));
                return Some(Delivery { call: number, from, request });
            }
            Parcel::Up(part) => pass(&mut call.served, part),
            Parcel::Down(part) => {
                let ended = matches!(part, Part::End);
                pass(&mut call.read, part);
                if ended {
                    self.end(number);
                }
            }
            Parcel::Answer(head) => {
                if let Some(answered) = call.answered.take() {
                    let _ = answered.send(Ok(*head));
                }
            }
            Parcel::Cancel => self.end(number),
            Parcel::Refused => {
                if let Some(answered) = call.answered.take() {
                    let _ = answered.send(Err(Box::new(tonic::ConnectError("refused".into()))));
                }
                self.end(number);
            }
            Parcel::Broken => self.fail(number),
        }
        None
    }

    fn end(&mut self, number: u64) {
        if let Some(call) = self.calls.remove(&number)
            && let Some(serving) = call.serving
        {
            serving.abort();
        }
    }

    /// The caller's end breaks; the other one notices in its time.
    fn fail(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if let Some(answered) = call.answered.take() {
            let _ = answered.send(Err(broken()));
        }
        if let Some(read) = call.read.take() {
            let _ = read.send(Err(Status::unavailable("the connection broke")));
        }
        call._sending = None;
        self.numbers += 1;
        self.timers.insert((self.now + SERVER_KEEP_ALIVE, self.numbers), number);
    }

    /// A process has ended: its own calls, and those that it served.
    pub(crate) fn process_ended(&mut self, member: usize) {
        let all: Vec<u64> = self.calls.keys().copied().collect();
        for number in all {
            let Some(call) = self.calls.get_mut(&number) else { continue };
            if call.from == member {
                call.down.parcels.clear();
                self.abandon(number);
            } else if call.to == member {
                (call.served, call.serving) = (None, None);
                call.down.parcels.clear();
                self.due[call.from].retain(|_, (of, up)| *of != number || *up);
                self.push(number, false, Parcel::Broken);
            }
        }
    }

    /// Has callers give up what has been silent for too long; `silent` are members whose processes do not run.
    pub(crate) fn keep_alive(&mut self, silent: &[bool]) {
        let (now, members) = (self.now, silent.len());
        for from in 0..members {
            for (to, is_silent) in silent.iter().enumerate() {
                let bad = self.links[from][to].cut
                    || self.links[to][from].cut
                    || *is_silent
                    || !self.answers[to]
                    || !self.answers[from];
                let link = &mut self.links[from][to];
                link.bad_since = if bad { link.bad_since.or(Some(now)) } else { None };
            }
        }
        let links = &self.links;
        let dead = |call: &Call| links[call.from][call.to].bad_since.is_some_and(|at| now - at >= KEEP_ALIVE);
        let dead: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, c)| c._sending.is_some() && dead(c))
            .map(|(number, _)| *number)
            .collect();
        dead.into_iter().for_each(|number| self.fail(number));
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let number = entry.remove();
            self.end(number);
        }
    }

    fn note(&mut self, number: u64, parcel: &Parcel) {
        let what: (u64, &[u8]) = match parcel {
            Parcel::Open(request) => (1, request.uri().path().as_bytes()),
            Parcel::Up(Part::Data(data)) => (2, data),
            Parcel::Down(Part::Data(data)) => (3, data),
            Parcel::Up(_) => (4, &[]),
            Parcel::Down(_) => (5, &[]),
            Parcel::Answer(_) => (6, &[]),
            Parcel::Cancel => (7, &[]),
            Parcel::Refused => (8, &[]),
            Parcel::Broken => (9, &[]),
        };
        self.trace.add(self.now);
        self.trace.add(number);
        self.trace.add(what.0);
        self.trace.add_bytes(what.1);
    }
}

fn pass(frames: &mut Option<Frames>, part: Part) {
    let frame = match part {
        Part::Data(data) => Frame::data(data),
        Part::Trailers(trailers) => Frame::trailers(trailers),
        Part::End => {
            *frames = None;
            return;
        }
    };
    if let Some(frames) = frames {
        let _ = frames.send(Ok(frame));
    }
}
