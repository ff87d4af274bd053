//! Clients that write and read registers through any member, and repeat what they get no answer to under the same request id.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trestle_api::status::{Failure, Reason};
use trestle_consensus::{Consensus, Error};
use trestle_model::{
    Command, Document, Expected, Operation, PoolSpec, Proposal, Request, RequestId, ResourceName,
};

use crate::draws::Draws;
use crate::history::{Asked, ClientAnswer, History, mark, pools};
use crate::network::MS;

pub(crate) const REGISTERS: usize = 3;

/// How long a member may take for one attempt.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Attempts at a request that has an id.
const ATTEMPTS: u32 = 6;

/// What a client asks a member.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Read,
    Write(Box<Proposal>),
}

/// What an attempt came to.
pub(crate) struct Attempted {
    client: usize,
    attempt: u64,
    heard: ClientAnswer,
}

/// Answers on their way to clients.
pub(crate) type Answers = Arc<Mutex<Vec<Attempted>>>;

/// An attempt to be made at a member.
pub(crate) struct ClientAttempt {
    pub(crate) member: usize,
    client: usize,
    attempt: u64,
    ask: Ask,
}

#[derive(Default)]
struct Client {
    /// The operation that is under way, with what is asked, and attempts so far.
    current: Option<(u64, Ask, u32)>,
    /// The attempt that is waited for, until then.
    waits: Option<(u64, u64)>,
    /// When it does something next.
    next: u64,
    /// Whether an attempt before may have been carried out.
    doubt: bool,
    member: usize,
}

pub(crate) struct Clients {
    clients: Vec<Client>,
    draws: Draws,
    numbers: u64,
    pub(crate) answers: Answers,
    /// The last revision that was seen, for updates that name one.
    seen: u64,
    pub(crate) operations: u64,
}

fn operations(number: u64, register: usize, expected: Option<u64>) -> Vec<Operation> {
    let document = |name| {
        let mut spec = PoolSpec::default();
        spec.metadata.owner = mark(number);
        Document::Pool(name, Box::new(spec))
    };
    let expected = expected.map_or(Expected::Any, Expected::Revision);
    pools(register).map(|name| Operation::Put { document: document(name), expected }).into()
}

impl Clients {
    pub(crate) fn new(count: usize, draws: Draws) -> Self {
        let clients = (0..count).map(|_| Client::default()).collect();
        Self { clients, draws, numbers: 0, answers: Answers::default(), seen: 0, operations: 0 }
    }

    /// Whether all have heard of everything.
    pub(crate) fn rest(&self) -> bool {
        self.clients.iter().all(|client| client.current.is_none())
    }

    fn draw(&mut self) -> (Ask, bool) {
        let (number, register) = (self.numbers, self.draws.below(REGISTERS));
        let chosen = self.draws.below(100);
        if chosen < 35 {
            return (Ask::Read, true);
        }
        let batch = match chosen {
            35..45 => {
                let gone = pools(register)
                    .map(|name| Operation::Delete { resource: ResourceName::Pool(name), expected: None });
                gone.into()
            }
            45..60 => operations(number, register, Some(self.seen)),
            _ => operations(number, register, None),
        };
        let repeats = chosen < 45 || self.draws.chance(700);
        let id = RequestId::parse(&mark(number)).expect("an id");
        let request = repeats.then_some(Request { id, fingerprint: number });
        let command = Command::Batch(batch.into());
        (Ask::Write(Box::new(Proposal { request, origin: None, command })), repeats)
    }

    /// What clients ask at this moment. `asks` says whether they begin anything new.
    pub(crate) fn step(
        &mut self,
        now: u64,
        members: usize,
        asks: bool,
        history: &mut History,
    ) -> Vec<ClientAttempt> {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for answer in answers {
            self.answered(now, answer, history);
        }
        let mut attempts = Vec::new();
        for client in 0..self.clients.len() {
            self.give_up(client, now, history);
            let waits = self.clients[client].waits.is_some() || self.clients[client].next > now;
            if waits || (self.clients[client].current.is_none() && !asks) {
                continue;
            }
            if self.clients[client].current.is_none() {
                self.numbers += 1;
                self.operations += 1;
                let (ask, _) = self.draw();
                history.asked.insert(self.numbers, Asked { invoked: now, ended: None });
                let at = &mut self.clients[client];
                (at.current, at.doubt) = (Some((self.numbers, ask, 0)), false);
            }
            self.numbers += 1;
            let attempt = self.numbers;
            let member =
                if self.draws.chance(400) { self.draws.below(members) } else { self.clients[client].member };
            let at = &mut self.clients[client];
            at.member = member;
            if let Some((_, ask, tries)) = &mut at.current {
                *tries += 1;
                attempts.push(ClientAttempt { member, client, attempt, ask: ask.clone() });
            }
            at.waits = Some((attempt, now + 2_500 * MS));
        }
        attempts
    }

    /// A member that does not answer at all.
    fn give_up(&mut self, client: usize, now: u64, history: &mut History) {
        if let Some((attempt, until)) = self.clients[client].waits
            && until <= now
        {
            self.answered(now, Attempted { client, attempt, heard: ClientAnswer::Unknown }, history);
        }
    }

    /// A member cannot be reached: nothing was asked.
    pub(crate) fn unreachable(&mut self, attempt: &ClientAttempt) {
        let heard = ClientAnswer::Refused("nobody is there".to_owned());
        let answer = Attempted { client: attempt.client, attempt: attempt.attempt, heard };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    fn answered(&mut self, now: u64, answer: Attempted, history: &mut History) {
        let (pause, other) = (MS * self.draws.within(1, 60), self.draws.next() as usize);
        let client = &mut self.clients[answer.client];
        if client.waits.is_none_or(|(attempt, _)| attempt != answer.attempt) {
            return;
        }
        (client.waits, client.next) = (None, now + pause);
        let Some((number, ask, tries)) = client.current.take() else { return };
        let heard = match answer.heard {
            ClientAnswer::Refused(_) if client.doubt => ClientAnswer::Unknown,
            heard => heard,
        };
        client.doubt |= heard == ClientAnswer::Unknown;
        let repeats = match &ask {
            Ask::Read => false,
            Ask::Write(proposal) => proposal.request.is_some() && heard == ClientAnswer::Unknown,
        };
        if repeats && tries < ATTEMPTS {
            client.member = other % 3;
            client.current = Some((number, ask, tries));
            return;
        }
        if let ClientAnswer::Read(revision) | ClientAnswer::Written(revision) = heard {
            self.seen = revision;
        }
        if let Some(asked) = history.asked.get_mut(&number) {
            asked.ended = Some((now, heard));
        }
    }
}

/// Carries out an attempt, on the runtime of its member.
pub(crate) fn carry_out(attempt: ClientAttempt, consensus: Consensus, answers: Answers) {
    tokio::spawn(async move {
        let heard = match attempt.ask {
            Ask::Read => match consensus.read(PATIENCE).await {
                Ok(view) => ClientAnswer::Read(view.state.revision),
                Err(_) => ClientAnswer::Unknown,
            },
            Ask::Write(proposal) => match consensus.propose(*proposal, PATIENCE).await {
                Ok(applied) => ClientAnswer::Written(applied.revision),
                Err(error) => refused(&error),
            },
        };
        let answer = Attempted { client: attempt.client, attempt: attempt.attempt, heard };
        answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    });
}

fn refused(error: &Error) -> ClientAnswer {
    match error {
        Error::Refused(why) => ClientAnswer::Refused(why.to_string()),
        Error::Failed(
            Failure::NoLeader(_) | Failure::ShuttingDown | Failure::NoCluster | Failure::Removed,
        ) => ClientAnswer::Refused(error.to_string()),
        Error::Relayed(status) => match Reason::of(status) {
            Some(reason) if reason.nothing_was_proposed() => ClientAnswer::Refused(error.to_string()),
            // Another member's refusal.
            Some(reason) if reason != Reason::OutcomeUnknown => ClientAnswer::Refused(error.to_string()),
            _ => ClientAnswer::Unknown,
        },
        Error::Failed(_) => ClientAnswer::Unknown,
    }
}
