//! What this member believes other members by, how it reaches them, and whether it still lets in whoever comes without TLS: as the cluster
//! has agreed, or, until this member knows of that, as it has joined.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use tokio::sync::watch;
use tonic::Status;
use tracing::error;
use trestle_api::status::{self, Failure};
use trestle_api::transport::{PeerDial, PeerWay};
use trestle_consensus::{ClusterView, Consensus, RaftRole, RaftState};
use trestle_identity::tls::{PeerTls, ServerLeaf};
use trestle_identity::{AuthenticatedMember, PeerTrust, SpiffeId, authorities_mark, from_pem, read_private};
use trestle_model::{Authority, ClusterState, MemberId, TransportSecurity};

use super::quorum_clock::QuorumClock;
use crate::config::Config;

/// How long a certificate that was let in outside of its time is told of. Members call one another more often.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// A member that was let in although its certificate alone would not have let it in.
#[derive(Debug)]
struct DoubtedMember {
    seen: Instant,
    member: AuthenticatedMember,
}

#[derive(Debug)]
struct Parts {
    insecure: bool,
    /// The authorities that this member has joined by, or last knew while TLS was required.
    authority_file: PathBuf,
    leaf: watch::Receiver<Option<ServerLeaf>>,
    known: OnceLock<Known>,
    /// Sent when callers may be judged otherwise than before.
    changed: watch::Sender<()>,
    /// It has a cluster and does not run.
    offline: bool,
    doubted: Mutex<BTreeMap<MemberId, DoubtedMember>>,
    /// What was told last of the authorities that are believed.
    told: Mutex<ToldAuthorities>,
    quorum_clock: QuorumClock,
}

/// The authorities, and the mark of those that are believed.
#[derive(Debug, Default)]
struct ToldAuthorities {
    of: BTreeMap<u32, Arc<Authority>>,
    mark: Option<HeaderValue>,
}

#[derive(Debug, Clone)]
struct Known {
    view: watch::Receiver<Arc<ClusterView>>,
    role: watch::Receiver<RaftRole>,
}

/// Tells when what is believed may have changed. Each connection waits for it, so that it does not tell of every entry of the log.
#[derive(Debug)]
pub(crate) struct TrustChanges {
    changed: watch::Receiver<()>,
    known: Option<Known>,
}

impl TrustChanges {
    /// What has changed until now counts no more.
    pub(crate) fn mark(&mut self) {
        self.changed.mark_unchanged();
        if let Some(known) = &mut self.known {
            known.view.mark_unchanged();
        }
    }

    /// Resolves at the next change; with `each_entry`, at the next entry of the log too.
    pub(crate) async fn next(&mut self, each_entry: bool) {
        let applied = async {
            match self.known.as_mut().filter(|_| each_entry) {
                Some(known) => known.view.changed().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            changed = self.changed.changed() => changed.is_err(),
            applied = applied => applied.is_err(),
        };
        if ended {
            std::future::pending().await
        }
    }
}

/// Whether anybody but a member that is not known yet may be judged otherwise by a newer state.
fn judges_otherwise(before: &ClusterState, now: &ClusterState) -> bool {
    before.transport != now.transport
        || before.cluster_id != now.cluster_id
        || before.authorities != now.authorities
        || before.member_keys != now.member_keys
        || before.users != now.users
        || before.members.keys().ne(now.members.keys())
}

/// Tells of changes by which callers are judged, for as long as there is a log.
async fn tell_changes(mut known: Known, changed: watch::Sender<()>) {
    let mut before = known.view.borrow_and_update().state.clone();
    loop {
        let ended = tokio::select! {
            applied = known.view.changed() => applied.is_err(),
            role = known.role.changed() => {
                changed.send_replace(());
                role.is_err()
            }
        };
        if ended {
            return;
        }
        let now = known.view.borrow_and_update().state.clone();
        if judges_otherwise(&before, &now) {
            changed.send_replace(());
        }
        before = now;
    }
}

/// What this member believes others by. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ClusterTrust(Arc<Parts>);

impl ClusterTrust {
    pub(crate) fn new(config: &Config, leaf: watch::Receiver<Option<ServerLeaf>>) -> Self {
        Self::made(config, leaf, false)
    }

    /// Of a member that has a cluster and does not run.
    pub(crate) fn offline(config: &Config, leaf: watch::Receiver<Option<ServerLeaf>>) -> Self {
        Self::made(config, leaf, true)
    }

    fn made(config: &Config, leaf: watch::Receiver<Option<ServerLeaf>>, offline: bool) -> Self {
        Self(Arc::new(Parts {
            offline,
            insecure: config.insecure,
            authority_file: authority_file(config),
            leaf,
            known: OnceLock::new(),
            changed: watch::Sender::new(()),
            doubted: Mutex::default(),
            told: Mutex::default(),
            quorum_clock: QuorumClock::default(),
        }))
    }

    /// Gives it what the cluster has agreed on. Before, no member is called. On the current runtime it looks for changes.
    pub(crate) fn follow(&self, consensus: &Consensus) {
        let known = Known { view: consensus.view(), role: consensus.role() };
        if self.0.known.set(known.clone()).is_ok() {
            tokio::spawn(tell_changes(known, self.0.changed.clone()));
        }
    }

    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.0.known.get().map(|known| known.view.borrow().state.clone()).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        let no_cluster = |known: &Known| known.role.borrow().state == RaftState::Empty;
        !self.0.offline && self.0.known.get().is_none_or(no_cluster)
    }

    /// The mark of the authorities that are believed, for users to compare with what they believe; `None` without an authority.
    pub(crate) fn authorities_mark(&self) -> Option<HeaderValue> {
        let state = self.state();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.of != state.authorities {
            let mark = authorities_mark(state.believed_authorities().map(|one| &*one.certificate));
            *told = ToldAuthorities { of: state.authorities.clone(), mark: HeaderValue::try_from(mark).ok() };
        }
        told.mark.clone()
    }

    /// This member's own certificate.
    pub(crate) fn leaf(&self) -> Option<ServerLeaf> {
        self.0.leaf.borrow().clone()
    }

    /// The voters' clocks.
    pub(super) fn quorum_clock(&self) -> &QuorumClock {
        &self.0.quorum_clock
    }

    /// The member that the others find at a peer address.
    fn member_at(&self, address: &str) -> Option<MemberId> {
        let state = self.state();
        let found = state.members.values().find(|member| member.spec.peer_address.as_str() == address);
        found.map(|member| member.id)
    }

    /// The authorities by the file, and the cluster that this member's certificate is of.
    fn joined_by(&self) -> Option<PeerTrust> {
        let text = read_private(&self.0.authority_file).ok().flatten()?;
        let authorities = from_pem(&text).ok()?;
        let leaf = self.leaf()?;
        let name = SpiffeId::parse(leaf.facts().uris.first()?).ok()?;
        Some(PeerTrust::by_authorities(name.cluster, &authorities))
    }

    /// What other members are believed by; `None` without an authority.
    pub(crate) fn trust(&self) -> Option<PeerTrust> {
        let state = self.state();
        if state.cluster_id.is_some() { PeerTrust::by_state(state) } else { self.joined_by() }
    }

    /// Who is let in here.
    pub(crate) fn lets_in(&self) -> TransportSecurity {
        let state = self.state();
        match () {
            () if state.cluster_id.is_some() => state.transport,
            () if self.is_empty() && self.0.insecure => TransportSecurity::Off,
            () if self.is_empty() => TransportSecurity::Require,
            // Its log has not told it yet.
            () if self.0.authority_file.exists() => TransportSecurity::Require,
            () => TransportSecurity::Off,
        }
    }

    /// Why whoever comes without TLS is not let in, if so.
    pub(crate) fn plain_refusal(&self, port: &str) -> Option<Status> {
        if self.lets_in() != TransportSecurity::Require {
            return None;
        }
        let why = match self.is_empty() {
            true => format!(
                "this member belongs to no cluster yet, and its {port} port lets nobody in without TLS: found or join a cluster on its \
                 machine, over the admin socket; or set insecure = true where everybody who reaches it may rule it"
            ),
            false => format!(
                "this cluster lets nobody in without TLS, and this call came to its {port} port without: use a context (\"trestle user \
                 create\" makes one), or the admin socket on a member's machine"
            ),
        };
        Some(status::failure(&Failure::Unauthenticated(why)))
    }

    /// What tells when this may have changed.
    pub(crate) fn changes(&self) -> TrustChanges {
        TrustChanges { changed: self.0.changed.subscribe(), known: self.0.known.get().cloned() }
    }

    /// Notes that a member was let in or reached, whose certificate may be outside of its time, or of an authority that is not believed.
    pub(crate) fn note_member(&self, member: &AuthenticatedMember) {
        let mut doubted = self.0.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(refusal) = member.doubt(self.now()) else {
            doubted.remove(&member.id);
            return;
        };
        let seen = DoubtedMember { seen: Instant::now(), member: member.clone() };
        let known = doubted.insert(member.id, seen);
        if known.is_none_or(|known| known.member.facts != member.facts) {
            error!(member = %member.id, "let a member in by its key alone: {refusal}");
        }
    }

    /// A sentence for each member whose certificate alone would not have let it in lately.
    pub(crate) fn problems(&self) -> Vec<String> {
        let state = self.state();
        let mut doubted = self.0.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.retain(|id, one| one.seen.elapsed() < TOLD_FOR && state.members.contains_key(id));
        let told = doubted.iter().filter_map(|(id, one)| {
            let refusal = one.member.doubt(self.now())?;
            let name = &state.members.get(id)?.spec.name;
            if one.member.unsigned.is_some() {
                let ago = one.seen.elapsed().as_secs();
                return Some(format!(
                    "of member {name}, {refusal}: it was let in by its key alone, {ago} s ago, as one that was off while the authority was \
                     replaced; see in its status whether it has a new certificate"
                ));
            }
            Some(format!(
                "of member {name}, {refusal}: it is let in by its key alone; compare the clocks, and see in its status why it has no \
                 new certificate"
            ))
        });
        told.collect()
    }
}

/// Where the authorities are that a member believes until it has the log.
pub(crate) fn authority_file(config: &Config) -> PathBuf {
    config.data_dir.join("tls").join("ca.crt")
}

impl PeerDial for ClusterTrust {
    fn way(&self, address: &str) -> PeerWay {
        if !self.is_secure(address) {
            return PeerWay::Plain;
        }
        let Some(trust) = self.trust() else {
            let why =
                "this member has no certificate yet, or knows no authority of its cluster; its log says why";
            return PeerWay::Closed(why.to_owned());
        };
        PeerWay::Tls(Box::new(PeerTls::new(self.leaf(), trust, self.member_at(address), self.now())))
    }

    fn is_secure(&self, address: &str) -> bool {
        // What it asks to be taken in by is its configuration's.
        if self.is_empty() {
            return false;
        }
        match self.lets_in() {
            TransportSecurity::Off => false,
            TransportSecurity::Require => true,
            TransportSecurity::Accept => {
                self.member_at(address).is_some_and(|id| self.state().member_keys.contains_key(&id))
            }
        }
    }

    fn note_reached(&self, member: &AuthenticatedMember) {
        self.note_member(member);
    }
}
