//! Who is at the other end of a connection, and who that still is at each call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use trestle_api::peer_caller::PeerCaller;
use trestle_api::status::{self, Failure};
use trestle_identity::tls::{PeerIdentity, ServerLeaf};
use trestle_identity::{
    AUTHORITIES_HEADER, AuthenticatedUser, CertificateRefusal, PeerStanding, PeerTrust, VerificationTime,
    check_peer, check_user,
};
use trestle_model::{ClusterState, Role, TransportSecurity, UserName};

use super::ClientSource;
use super::calls::CallClass;
use super::plain_callers::PlainCallers;
use crate::identities::ClusterTrust;

/// What processes ask one another that have no cluster yet, and so no certificate: it is let in without TLS everywhere, as from anybody.
const FOUNDING: &str = "/trestle.peer.v1.PeerService/DescribeFounding";
/// How long whoever comes without TLS and is not let in has for its calls, to be told why. To ask it to leave before its first one would
/// end the connection without a word: HTTP/2 is closed when it is to be shut down before its preface has come.
const FIRST_CALL_MAX: Duration = Duration::from_secs(10);

/// For whom a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpensTo {
    Users,
    Members,
}

/// What a port needs to let callers in by TLS: the certificate of this member as it is now, and what the cluster has agreed on.
#[derive(Debug)]
pub(crate) struct Door {
    pub(super) opens_to: OpensTo,
    /// As refusals name the port.
    port: &'static str,
    leaf: watch::Receiver<Option<ServerLeaf>>,
    trust: ClusterTrust,
    plain: Arc<PlainCallers>,
}

impl Door {
    pub(crate) fn new(
        (opens_to, port): (OpensTo, &'static str),
        leaf: watch::Receiver<Option<ServerLeaf>>,
        trust: ClusterTrust,
        plain: Arc<PlainCallers>,
    ) -> Self {
        Self { opens_to, port, leaf, trust, plain }
    }

    pub(super) fn leaf(&self) -> Option<ServerLeaf> {
        self.leaf.borrow().clone()
    }

    pub(super) fn state(&self) -> Arc<ClusterState> {
        self.trust.state()
    }

    pub(super) fn now(&self) -> VerificationTime {
        self.trust.now()
    }

    pub(super) fn trust(&self) -> Option<PeerTrust> {
        self.trust.trust()
    }

    fn session(self: &Arc<Self>, shown: Shown) -> Arc<CallerSession> {
        Arc::new(CallerSession { shown, door: self.clone(), ended: CancellationToken::new() })
    }

    pub(super) fn plain_session(self: &Arc<Self>) -> Arc<CallerSession> {
        self.session(Shown::Nothing)
    }

    pub(super) fn user_session(self: &Arc<Self>, user: AuthenticatedUser) -> Arc<CallerSession> {
        self.session(Shown::User(user))
    }

    pub(super) fn peer_session(self: &Arc<Self>, identity: PeerIdentity) -> Arc<CallerSession> {
        if let PeerIdentity::Member(member) = &identity {
            self.trust.note_member(member);
        }
        self.session(Shown::Peer(identity))
    }
}

/// The user of a call, as it is at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallingUser {
    pub(crate) name: UserName,
    pub(crate) role: Role,
}

/// Who a connection is of, as it is at the moment of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It came without TLS, where such are let in.
    None,
    User(CallingUser),
    Peer(PeerCaller),
}

/// What becomes of a connection whose other end is let in no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterEnd {
    /// It ends at once.
    Closed,
    /// It ends when its calls have. New connections are told why as well.
    Left,
    /// It stays open, so that its user is told why.
    Open,
}

/// What the other end has shown.
#[derive(Debug)]
enum Shown {
    /// It speaks no TLS.
    Nothing,
    User(AuthenticatedUser),
    Peer(PeerIdentity),
}

/// The other end of one connection.
#[derive(Debug)]
pub(crate) struct CallerSession {
    shown: Shown,
    door: Arc<Door>,
    /// Cancelled when it is let in no more.
    ended: CancellationToken,
}

/// Whether a caller may less than before: what it has open was let in for more.
fn is_less(now: &Proof, before: &Proof) -> bool {
    match (now, before) {
        (Proof::Peer(now), Proof::Peer(before)) => {
            now != before && matches!(now, PeerCaller::Former(_) | PeerCaller::Anonymous)
        }
        _ => false,
    }
}

fn refused(refusal: &CertificateRefusal) -> Status {
    status::failure(&Failure::Unauthenticated(refusal.to_string()))
}

impl CallerSession {
    /// Who it is now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it is let in no more: a user that was deleted, whose key was rotated, or whose certificate has expired; a
    /// member whose key is another one by now; whoever came without TLS where that is needed by now.
    pub(crate) fn current(&self) -> Result<Proof, Status> {
        let (state, now) = (self.door.state(), self.door.trust.now());
        match &self.shown {
            Shown::Nothing => self.door.trust.plain_refusal(self.door.port).map_or(Ok(Proof::None), Err),
            Shown::User(user) => {
                let role = check_user(&state, user, now).map_err(|refusal| refused(&refusal))?;
                Ok(Proof::User(CallingUser { name: user.name.clone(), role }))
            }
            Shown::Peer(PeerIdentity::Member(member)) => {
                let standing = check_peer(&state, member, now).map_err(|refusal| refused(&refusal))?;
                Ok(Proof::Peer(match standing {
                    PeerStanding::Known => PeerCaller::Member(member.id),
                    PeerStanding::Newer => PeerCaller::Newer(member.id),
                    PeerStanding::Former => PeerCaller::Former(member.id),
                }))
            }
            // It could come without TLS as well.
            Shown::Peer(PeerIdentity::Anonymous) => {
                let required = self.door.trust.lets_in() == TransportSecurity::Require;
                Ok(Proof::Peer(if required { PeerCaller::Anonymous } else { PeerCaller::Unproven }))
            }
        }
    }

    /// Whether it has shown no certificate where members do.
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.shown, Shown::Peer(PeerIdentity::Anonymous))
    }

    /// Whether a call is let in though it comes without TLS.
    fn is_founding(&self, path: &str) -> bool {
        matches!(self.shown, Shown::Nothing) && self.door.opens_to == OpensTo::Members && path == FOUNDING
    }

    /// Who calls this method now.
    ///
    /// # Errors
    /// As [`current`](Self::current).
    pub(super) fn calling(&self, path: &str) -> Result<Proof, Status> {
        if self.is_founding(path) { Ok(Proof::Peer(PeerCaller::Anonymous)) } else { self.current() }
    }

    /// Tells a user, with each answer, which authorities are believed.
    pub(super) fn tell_authorities(&self, answer: &mut HeaderMap) {
        let mark = match self.shown {
            Shown::User(_) => self.door.trust.authorities_mark(),
            Shown::Nothing | Shown::Peer(_) => None,
        };
        mark.into_iter().for_each(|mark| drop(answer.insert(AUTHORITIES_HEADER, mark)));
    }

    /// Notes a call of this method that was let in.
    pub(super) fn note_call(&self, source: ClientSource, path: &str) {
        if matches!(self.shown, Shown::Nothing) && !self.is_founding(path) {
            self.door.plain.note(self.door.port, source, Instant::now());
        }
    }

    /// Whether a call of this class ends with words once the other end is let in no more. What stays open does. Other calls are answered: a
    /// user that rotates its own key needs the answer, and so does a member that is removed at its own wish, which it has passed on.
    pub(super) fn ends(&self, class: CallClass) -> bool {
        match class {
            CallClass::Waiting => true,
            CallClass::Streaming => !matches!(self.shown, Shown::Peer(_)),
            CallClass::Raft => !matches!(self.shown, Shown::User(_)),
            CallClass::Unary | CallClass::Health => false,
        }
    }

    /// How long what was shown is valid yet, with the second in which it ends; `None` where no time ends it.
    fn left(&self) -> Option<Duration> {
        let not_after = match &self.shown {
            Shown::User(user) => user.not_after,
            Shown::Peer(PeerIdentity::Member(member)) => member.facts.not_after,
            Shown::Nothing | Shown::Peer(PeerIdentity::Anonymous) => return None,
        };
        (not_after + Duration::from_secs(1)).duration_since(self.door.trust.now().time()).ok()
    }

    /// Ends what the other end has open once it is let in no more, and answers what is to become of the connection then.
    pub(super) async fn follow(&self) -> AfterEnd {
        let mut changes = self.door.trust.changes();
        let mut before = None;
        let last = loop {
            changes.mark();
            match self.current() {
                Ok(now) if before.as_ref().is_none_or(|before| !is_less(&now, before)) => before = Some(now),
                last => break last,
            }
            // It is one that is not known yet until an entry says otherwise, or none can any more.
            let is_newer = matches!(before, Some(Proof::Peer(PeerCaller::Newer(_))));
            let left = self.left();
            let over = async {
                match left {
                    // A clock that was set back: it is looked at again.
                    Some(left) => sleep(left.max(Duration::from_millis(100))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changes.next(is_newer) => {}
                () = over => {}
            }
        };
        self.ended.cancel();
        if matches!(self.shown, Shown::Nothing) && before.is_none() {
            sleep(FIRST_CALL_MAX).await;
        }
        match (&self.shown, last) {
            // It may be waiting for the answer to its own removal.
            (_, Ok(Proof::Peer(PeerCaller::Former(_)))) | (Shown::Nothing, _) => AfterEnd::Left,
            (Shown::Peer(_), _) => AfterEnd::Closed,
            (Shown::User(_), _) => AfterEnd::Open,
        }
    }

    /// What the other end is told when it is let in no more.
    pub(super) fn refusal(&self) -> Status {
        match self.current() {
            Err(refusal) => refusal,
            Ok(Proof::Peer(PeerCaller::Former(id))) => {
                status::failure(&Failure::Denied(format!("member {id} was removed from this cluster")))
            }
            Ok(_) => Status::unauthenticated("this caller was not let in for a moment; try again"),
        }
    }

    /// Resolves once the other end is let in no more.
    pub(crate) fn ended(&self) -> WaitForCancellationFutureOwned {
        self.ended.clone().cancelled_owned()
    }
}
