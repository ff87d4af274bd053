//! This member's own certificate: kept in files, renewed when two thirds of its life are over, and anew where its names or its authority
//! have changed. Connections that are open go on with the one that they began with.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trestle_consensus::ClusterView;
use trestle_identity::tls::ServerLeaf;
use trestle_identity::{
    CertificateRequest, CertificateSubject, LeafName, SpiffeId, VerificationTime, admin_host, from_pem,
    is_signed_by, member_of, read_private, time_text, to_pem, verify_member, write_private,
};
use trestle_model::{ClusterId, ClusterState, HostPort, KeyPin, MemberId, TransportSecurity};

use super::cluster_trust::authority_file;
use super::own_key;
use super::signer::{LeafSubject, Signer};
use crate::config::Config;

/// How often the certificate is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Pause before the first further attempt to have one signed; it doubles up to [`LOOK`].
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// This member's certificate, once it has one. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct OwnLeaf {
    current: watch::Sender<Option<ServerLeaf>>,
    /// Why it has none, or an old one.
    trouble: Arc<Mutex<Option<String>>>,
}

/// Whom the certificate must name.
struct Wanted {
    cluster: ClusterId,
    id: MemberId,
    names: Vec<LeafName>,
    /// The one that must have signed it.
    active: Vec<u8>,
    state: Arc<ClusterState>,
    /// The keys that the cluster has recorded for it.
    pins: Vec<KeyPin>,
}

/// The names by which clients look for this member's own admin API, beside the one that all members have.
pub(crate) fn own_names(config: &Config) -> Vec<LeafName> {
    let bound = config.admin_address.ip().to_canonical();
    let mut names = vec![host(&config.advertise_admin_address)];
    if !bound.is_unspecified() && !names.contains(&LeafName::Ip(bound)) {
        names.push(LeafName::Ip(bound));
    }
    names
}

/// The name under which a certificate has an address.
fn host(address: &HostPort) -> LeafName {
    match address.as_socket() {
        Some(socket) => LeafName::Ip(socket.ip().to_canonical()),
        None => {
            let text = address.as_str();
            LeafName::Dns(text.rsplit_once(':').map_or(text, |(host, _)| host).to_owned())
        }
    }
}

impl Wanted {
    fn of(signer: &Signer, view: &ClusterView) -> Option<Self> {
        let (config, state) = (&signer.local.config, &view.state);
        let (cluster, id) = (state.cluster_id.clone()?, signer.local.id()?);
        let mut names = vec![LeafName::Dns(admin_host(&cluster))];
        names.extend(own_names(config));
        let active = state.active_authority()?.certificate.to_vec();
        let pins = state.member_keys.get(&id).cloned().unwrap_or_default();
        Some(Self { cluster, id, names, active, state: state.clone(), pins })
    }

    /// Whether a certificate is of this member and the authority that signs, names all that it must, and has more than a third of its life
    /// left.
    fn is_met_by(&self, certificate: &[u8], leaf: &ServerLeaf, now: VerificationTime) -> bool {
        let facts = leaf.facts();
        let named = |name: &LeafName| match name {
            LeafName::Dns(name) => facts.dns_names.contains(name),
            LeafName::Ip(address) => facts.addresses.contains(address),
        };
        let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
        let left = facts.not_after.duration_since(now.time()).unwrap_or_default();
        self.names.iter().all(named)
            && (self.pins.is_empty() || self.pins.contains(&facts.pin))
            && left > life / 3
            && verify_member(&self.cluster, std::slice::from_ref(&self.active), certificate, now)
                == Ok(self.id)
    }
}

/// Where the certificate is kept.
pub(crate) fn certificate_file(config: &Config) -> PathBuf {
    config.data_dir.join("tls").join("member.crt")
}

/// The certificate and key that are kept, if they are of use; what is not is made anew.
fn kept(config: &Config) -> Option<(Vec<u8>, ServerLeaf)> {
    let text = read_private(&certificate_file(config)).ok().flatten()?;
    let certificate = from_pem(&text).ok()?.into_iter().next()?;
    let key = own_key::kept(&config.data_dir).ok().flatten()?;
    let leaf = ServerLeaf::new(&certificate, &key).ok()?;
    Some((certificate, leaf))
}

/// The generation of the authority that has signed a certificate; `None` if none that is known has.
pub(crate) fn generation_of(state: &ClusterState, certificate: &[u8]) -> Option<u32> {
    let mut newest_first = state.authorities.values().rev();
    newest_first
        .find(|authority| is_signed_by(certificate, &authority.certificate))
        .map(|authority| authority.generation)
}

/// A certificate of this member, whatever its times, with those that lead to the oldest authority. One of an authority that was retired
/// is shown, too: until there is another one, members know this one by its key.
fn shown((certificate, leaf): &(Vec<u8>, ServerLeaf), wanted: &Wanted) -> Option<ServerLeaf> {
    let generation = generation_of(&wanted.state, certificate)?;
    let chain = wanted.state.authority_chain(generation);
    is_of(leaf, wanted).then(|| leaf.with_authorities(chain.iter().map(AsRef::as_ref)))
}

/// Whether a certificate names this member.
fn is_of(leaf: &ServerLeaf, wanted: &Wanted) -> bool {
    let name = SpiffeId { cluster: wanted.cluster.clone(), subject: CertificateSubject::Member(wanted.id) };
    leaf.facts().uris == [name.to_string()]
}

/// Has this member's key certified, and keeps the certificate.
async fn made(signer: &Signer, wanted: &Wanted) -> Result<ServerLeaf, String> {
    let key = own_key::kept_or_new(&signer.local.config.data_dir)?;
    if !wanted.pins.is_empty() && !wanted.pins.contains(&key.pin()) {
        return Err(format!(
            "the key in {} is not one that the cluster has recorded for this member: put the recorded one there, or add this \
             machine as a new member",
            own_key::path(&signer.local.config.data_dir).display()
        ));
    }
    let request = CertificateRequest::make(&key).map_err(|error| error.to_string())?;
    let subject = LeafSubject::Member(wanted.id, wanted.names.clone());
    let certificate = signer.sign(&request, &subject).await.map_err(|status| status.message().to_owned())?;
    let leaf = ServerLeaf::new(&certificate, &key).map_err(|error| error.to_string())?;
    if !wanted.is_met_by(&certificate, &leaf, signer.local.trust.now()) {
        return Err(
            "what was signed is not what was asked for, or the members' clocks differ by days".to_owned()
        );
    }
    let path = certificate_file(&signer.local.config);
    let written = write_private(&path, to_pem(&certificate).as_bytes());
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(shown(&(certificate, leaf.clone()), wanted).unwrap_or(leaf))
}

/// Keeps the authorities that are believed where TLS is required: after a restart, this member calls others before it knows its log.
fn keep_authorities(signer: &Signer, state: &ClusterState) -> Result<(), String> {
    if state.transport != TransportSecurity::Require {
        return Ok(());
    }
    let path = authority_file(&signer.local.config);
    let text: String = state.believed_authorities().map(|authority| to_pem(&authority.certificate)).collect();
    if read_private(&path).ok().flatten().as_ref() == Some(&text) {
        return Ok(());
    }
    write_private(&path, text.as_bytes()).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

impl Default for OwnLeaf {
    fn default() -> Self {
        Self { current: watch::Sender::new(None), trouble: Arc::default() }
    }
}

impl OwnLeaf {
    /// The certificate as it is now.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<ServerLeaf>> {
        self.current.subscribe()
    }

    /// Why there is none, or an old one, in words.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, why: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = why.as_ref().filter(|why| trouble.as_ref() != Some(why)) {
            warn!("this member's certificate cannot be signed: {why}");
        }
        *trouble = why;
    }

    /// Keeps the certificate as it should be, until the stop.
    pub(crate) async fn follow(self, signer: Signer, stop: CancellationToken) {
        let mut view = signer.local.consensus.view();
        let mut pause = RETRY_FIRST;
        loop {
            let now = view.borrow_and_update().clone();
            if let Err(why) = keep_authorities(&signer, &now.state) {
                warn!("{why}; this member may find no other one after a restart");
            }
            let wait = match Wanted::of(&signer, &now) {
                Some(wanted) => match self.look(&signer, &wanted).await {
                    true => {
                        pause = RETRY_FIRST;
                        LOOK
                    }
                    false => {
                        pause = (pause * 2).min(LOOK);
                        pause
                    }
                },
                None => LOOK,
            };
            let known = now.state.clone();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                changed = view.wait_for(|view| {
                    let now = &view.state;
                    now.transport != known.transport
                        || now.authorities != known.authorities
                        || now.member_keys != known.member_keys
                }) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes the certificate that is kept, or has one signed; whether all is as it should be.
    async fn look(&self, signer: &Signer, wanted: &Wanted) -> bool {
        let now = signer.local.trust.now();
        let kept = kept(&signer.local.config);
        // One whose time is over serves among members, who know its key, and says so to users.
        if let Some(leaf) = kept.as_ref().and_then(|kept| shown(kept, wanted)) {
            self.publish(leaf);
        }
        if let Some((certificate, leaf)) = &kept
            && wanted.is_met_by(certificate, leaf, now)
        {
            self.set_trouble(None);
            return true;
        }
        match made(signer, wanted).await {
            Ok(leaf) => {
                let end = time_text(leaf.facts().not_after);
                info!(valid_until = %end, "this member has a new certificate");
                self.set_trouble(None);
                self.publish(leaf);
                true
            }
            Err(why) => {
                self.set_trouble(Some(why));
                false
            }
        }
    }

    /// Takes the certificate that is kept, with the authorities that this member has joined by: what the log says is not known yet.
    pub(crate) fn take_kept(&self, config: &Config) {
        let Some((certificate, leaf)) = kept(config) else { return };
        let authorities = read_private(&authority_file(config)).ok().flatten();
        let authorities = authorities.and_then(|text| from_pem(&text).ok()).unwrap_or_default();
        let name = leaf.facts().uris.first().and_then(|uri| SpiffeId::parse(uri).ok());
        let Some(SpiffeId { cluster, .. }) = name else { return };
        // Without one of them it is still the certificate by whose key the others know this member.
        let authority = member_of(&cluster, &authorities, &certificate).ok().map(|(_, authority)| authority);
        self.publish(leaf.with_authorities(authority));
    }

    fn publish(&self, leaf: ServerLeaf) {
        self.current.send_if_modified(|current| {
            let known = current.as_ref().is_some_and(|known| known.facts() == leaf.facts());
            *current = Some(leaf);
            !known
        });
    }
}
