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
    CertificateFacts, CertificateRequest, CertificateSubject, LeafName, ShownChain, SpiffeId,
    VerificationTime, admin_host, from_pem, is_signed_by, member_of, read_private, time_text, to_pem,
    verify_own, write_private,
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
    /// The authorities that may have signed it: the one that signs, and the one that is to.
    authorities: Vec<Vec<u8>>,
    /// The generation of the one that signs, where that is external.
    external: Option<u32>,
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
        let state = &view.state;
        let (cluster, id) = (state.cluster_id.clone()?, signer.local.id()?);
        let names = member_names(&cluster, &signer.local.config);
        let active = state.active_authority()?;
        let accepted = std::iter::once(active).chain(state.coming_authority());
        let authorities = accepted.map(|authority| authority.certificate.to_vec()).collect();
        let external = active.external.then_some(active.generation);
        let pins = state.member_keys.get(&id).cloned().unwrap_or_default();
        Some(Self { cluster, id, names, authorities, external, state: state.clone(), pins })
    }

    /// What a certificate lacks, in words: it must be of this member and the authority that signs, name all that it should, and have more
    /// than a third of its life left.
    fn lacking(&self, kept: &KeptLeaf, now: VerificationTime) -> Option<String> {
        let facts = kept.leaf.facts();
        match member_of(&self.cluster, &self.authorities, kept.chain().shown()) {
            Ok((id, _)) if id != self.id => {
                return Some(format!("is for member {id}, and this is {}", self.id));
            }
            Ok(_) => {}
            Err(refusal) => return Some(format!("is not believed by others: {refusal}")),
        }
        if !self.pins.is_empty() && !self.pins.contains(&facts.pin) {
            return Some("is of a key that the cluster has not recorded for this member".to_owned());
        }
        let missing = unnamed(&self.names, facts);
        if !missing.is_empty() {
            return Some(format!("does not name {}", missing.join(", ")));
        }
        if let Err(refusal) = verify_own(kept.leaf.certificate(), now) {
            return Some(format!("is out of its time: {refusal}"));
        }
        let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
        let left = facts.not_after.duration_since(now.time()).unwrap_or_default();
        (left <= life / 3).then(|| format!("ends at {}", time_text(facts.not_after)))
    }
}

/// The names that a member's certificate should have.
pub(super) fn member_names(cluster: &ClusterId, config: &Config) -> Vec<LeafName> {
    let mut names = vec![LeafName::Dns(admin_host(cluster))];
    names.extend(own_names(config));
    names
}

/// The names among these that a certificate lacks.
pub(super) fn unnamed(names: &[LeafName], facts: &CertificateFacts) -> Vec<String> {
    let is_missing = |name: &&LeafName| match name {
        LeafName::Dns(name) => !facts.dns_names.contains(name),
        LeafName::Ip(address) => !facts.addresses.contains(address),
    };
    names.iter().filter(is_missing).map(ToString::to_string).collect()
}

/// Where the certificate is kept.
pub(crate) fn certificate_file(config: &Config) -> PathBuf {
    config.data_dir.join("tls").join("member.crt")
}

/// A certificate of this member with its key, as they are in files.
pub(super) struct KeptLeaf {
    /// Shown alone.
    leaf: ServerLeaf,
    /// The certificates between it and its authority: none of what members have signed.
    intermediates: Vec<Vec<u8>>,
}

/// A certificate and those between it and its authority.
pub(super) struct Chain<'a> {
    leaf: &'a [u8],
    others: Vec<&'a [u8]>,
}

impl<'a> Chain<'a> {
    /// Of what a member shows.
    pub(super) fn of(leaf: &'a ServerLeaf) -> Self {
        Self { leaf: leaf.certificate(), others: leaf.others() }
    }

    pub(super) fn shown(&self) -> ShownChain<'_> {
        ShownChain { leaf: self.leaf, others: &self.others }
    }
}

impl KeptLeaf {
    pub(super) fn new(leaf: ServerLeaf, intermediates: Vec<Vec<u8>>) -> Self {
        Self { leaf, intermediates }
    }

    pub(super) fn chain(&self) -> Chain<'_> {
        let others = self.intermediates.iter().map(Vec::as_slice).collect();
        Chain { leaf: self.leaf.certificate(), others }
    }

    /// With these authorities' certificates behind those between it and them.
    pub(super) fn with_authorities<'a>(
        &'a self,
        authorities: impl IntoIterator<Item = &'a [u8]>,
    ) -> ServerLeaf {
        let between = self.intermediates.iter().map(Vec::as_slice);
        self.leaf.with_authorities(between.chain(authorities))
    }
}

/// The certificate and key that are kept, if they are of use; what is not is made anew.
fn kept(config: &Config) -> Option<KeptLeaf> {
    let text = read_private(&certificate_file(config)).ok().flatten()?;
    let mut certificates = from_pem(&text).ok()?.into_iter();
    let key = own_key::kept(&config.data_dir).ok().flatten()?;
    let leaf = ServerLeaf::new(&certificates.next()?, &key).ok()?;
    Some(KeptLeaf::new(leaf, certificates.collect()))
}

/// The generation of the newest authority that has signed a certificate, or one of those that are shown with it; `None` if none that is
/// known has.
pub(crate) fn generation_of(state: &ClusterState, shown: ShownChain<'_>) -> Option<u32> {
    let mut newest_first = state.authorities.values().rev();
    newest_first
        .find(|authority| is_signed_by(shown, &authority.certificate))
        .map(|authority| authority.generation)
}

/// The generation of the authority that has signed what a member shows.
pub(crate) fn generation_of_leaf(state: &ClusterState, leaf: &ServerLeaf) -> Option<u32> {
    generation_of(state, Chain::of(leaf).shown())
}

/// A certificate of this member, whatever its times, with those that lead to the oldest authority. One of an authority that was retired
/// is shown, too: until there is another one, members know this one by its key.
fn shown(kept: &KeptLeaf, wanted: &Wanted) -> Option<ServerLeaf> {
    let generation = generation_of(&wanted.state, kept.chain().shown())?;
    let chain = wanted.state.authority_chain(generation);
    is_of(&kept.leaf, wanted).then(|| kept.with_authorities(chain.iter().map(AsRef::as_ref)))
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
    let new = KeptLeaf::new(leaf, Vec::new());
    if let Some(why) = wanted.lacking(&new, signer.local.trust.now()) {
        return Err(format!(
            "what was signed is not what was asked for, or the members' clocks differ by days: it {why}"
        ));
    }
    let path = certificate_file(&signer.local.config);
    let written = write_private(&path, to_pem(&certificate).as_bytes());
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(shown(&new, wanted).unwrap_or(new.leaf))
}

/// What is wrong with a certificate that an external authority is to sign, and what to do. `None` is one that is not there.
fn awaited(lacking: Option<String>, authority: &str) -> String {
    let what = match lacking {
        Some(why) => format!("its certificate for TLS {why}"),
        None => "its certificate for TLS is not there yet".to_owned(),
    };
    format!(
        "{what}; {authority} is external: have what \"trestle certificate request\" prints on its machine signed, and put that \
         in place with \"trestle certificate install FILE\""
    )
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

    /// What is wrong with it, in words that begin with what it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, why: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = why.as_ref().filter(|why| trouble.as_ref() != Some(why)) {
            warn!("of this member, {why}");
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
                None => {
                    self.await_first(&signer, &now.state);
                    LOOK
                }
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

    /// Says what is waited for by a member that has joined without a certificate: until it has one, nobody can give it the log.
    fn await_first(&self, signer: &Signer, state: &ClusterState) {
        let joined = signer.local.id().is_some() && authority_file(&signer.local.config).exists();
        if joined && state.cluster_id.is_none() && self.current.borrow().is_none() {
            self.set_trouble(Some(awaited(None, "the cluster's authority")));
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
        let lacking = kept.as_ref().map(|kept| wanted.lacking(kept, now));
        if let Some(None) = lacking {
            self.set_trouble(None);
            return true;
        }
        if let Some(generation) = wanted.external {
            self.set_trouble(Some(awaited(lacking.flatten(), &format!("authority {generation}"))));
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
                self.set_trouble(Some(format!("its certificate for TLS cannot be signed: {why}")));
                false
            }
        }
    }

    /// Takes the certificate that is kept, with the authorities that this member has joined by: what the log says is not known yet.
    pub(crate) fn take_kept(&self, config: &Config) {
        let Some(kept) = kept(config) else { return };
        let authorities = read_private(&authority_file(config)).ok().flatten();
        let authorities = authorities.and_then(|text| from_pem(&text).ok()).unwrap_or_default();
        let name = kept.leaf.facts().uris.first().and_then(|uri| SpiffeId::parse(uri).ok());
        let Some(SpiffeId { cluster, .. }) = name else { return };
        // Without one of them it is still the certificate by whose key the others know this member.
        let signed_by = member_of(&cluster, &authorities, kept.chain().shown()).ok();
        self.publish(kept.with_authorities(signed_by.map(|(_, authority)| authority)));
    }

    pub(super) fn publish(&self, leaf: ServerLeaf) {
        self.current.send_if_modified(|current| {
            let known = current.as_ref().is_some_and(|known| known.facts() == leaf.facts());
            *current = Some(leaf);
            !known
        });
    }
}
