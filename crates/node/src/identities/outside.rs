//! This member's certificate where an authority outside of the cluster signs: what is given to it, and what comes back.

use std::time::SystemTime;

use trestle_identity::tls::ServerLeaf;
use trestle_identity::{
    CertificateRequest, CertificateSubject, SpiffeId, from_pem, read_private, time_text, to_pem,
    verify_issued, write_private,
};
use trestle_model::defaults::CERTIFICATE_MAX;
use trestle_model::{Authority, ClusterState};

use super::cluster_trust::authority_file;
use super::leaf::{KeptLeaf, OwnLeaf, certificate_file, generation_of, member_names, unnamed};
use super::own_key;
use crate::this_member::ThisMember;

/// Most certificates that are put in place: one, and those between it and its authority.
const CERTIFICATES_MAX: usize = 8;

/// Why there is no request, or a certificate is not put in place.
#[derive(Debug)]
pub(crate) enum NotOutside {
    /// This member belongs to no cluster.
    NoCluster,
    /// The cluster's own authority signs.
    OwnAuthority,
    /// The rule that the certificate breaks.
    Refused(String),
    /// Its files.
    Files(String),
}

/// What was put in place.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) generation: u32,
    pub(crate) not_after: SystemTime,
    pub(crate) warnings: Vec<String>,
}

/// Whom this member's certificate is for. A member that has joined knows that before it has the log.
fn name(local: &ThisMember) -> Result<SpiffeId, NotOutside> {
    let identity = local.consensus.identity().ok_or(NotOutside::NoCluster)?;
    Ok(SpiffeId { cluster: identity.cluster_id, subject: CertificateSubject::Member(identity.member_id) })
}

/// The external authorities by which a certificate can be believed, in DER; `None` until this member has the log.
fn external(state: &ClusterState) -> Option<Vec<Vec<u8>>> {
    state.cluster_id.as_ref()?;
    let external = state.believed_authorities().filter(|authority| authority.external);
    Some(external.map(|authority| authority.certificate.to_vec()).collect())
}

/// The authorities that this member has joined by.
fn joined_by(local: &ThisMember) -> Vec<Vec<u8>> {
    let text = read_private(&authority_file(&local.config)).ok().flatten();
    text.and_then(|text| from_pem(&text).ok()).unwrap_or_default()
}

fn authorities(local: &ThisMember) -> Result<Vec<Vec<u8>>, NotOutside> {
    let known = external(&local.trust.state()).unwrap_or_else(|| joined_by(local));
    if known.is_empty() { Err(NotOutside::OwnAuthority) } else { Ok(known) }
}

/// What is to be signed for this member, in PEM.
///
/// # Errors
/// [`NotOutside`].
pub(crate) fn certificate_request(local: &ThisMember) -> Result<String, NotOutside> {
    let name = name(local)?;
    authorities(local)?;
    let key = own_key::kept_or_new(&local.config.data_dir).map_err(NotOutside::Files)?;
    let names = member_names(&name.cluster, &local.config);
    CertificateRequest::named(&key, &name, &names).map_err(|error| NotOutside::Files(error.to_string()))
}

/// Puts a certificate in place, in PEM, with those between it and its authority. It is on disk, and shown to whoever connects, when this
/// returns.
///
/// # Errors
/// [`NotOutside`]; then nothing was changed.
pub(crate) fn install(local: &ThisMember, leaf: &OwnLeaf, text: &str) -> Result<Installed, NotOutside> {
    let refused = NotOutside::Refused;
    let name = name(local)?;
    let known = authorities(local)?;
    let mut certificates = from_pem(text).map_err(refused)?;
    if certificates.len() > CERTIFICATES_MAX {
        let found = certificates.len();
        return Err(refused(format!("has {found} certificates; at most {CERTIFICATES_MAX} are taken")));
    }
    if let Some(large) = certificates.iter().find(|one| one.len() > CERTIFICATE_MAX) {
        let found = large.len();
        return Err(refused(format!("has one of {found} bytes; each may have {CERTIFICATE_MAX}")));
    }
    let certificate = certificates.remove(0);
    let key = own_key::kept_or_new(&local.config.data_dir).map_err(NotOutside::Files)?;
    let own = ServerLeaf::new(&certificate, &key).map_err(|error| {
        refused(format!("must be of the key that \"trestle certificate request\" has a request of: {error}"))
    })?;
    let new = KeptLeaf::new(own, certificates);
    let now = local.trust.now();
    let facts = verify_issued(&name, &known, new.chain().shown(), now)
        .map_err(|refusal| refused(format!("would not be believed by others: {refusal}")))?;
    let path = certificate_file(&local.config);
    write_private(&path, new.to_pem().as_bytes())
        .map_err(|error| NotOutside::Files(format!("cannot write {}: {error}", path.display())))?;
    let state = local.trust.state();
    let generation = generation_of(&state, new.chain().shown());
    let chain = match generation {
        Some(generation) => state.authority_chain(generation).iter().map(|one| one.to_vec()).collect(),
        None => known,
    };
    leaf.publish(new.with_authorities(chain.iter().map(Vec::as_slice)));
    let missing = unnamed(&member_names(&name.cluster, &local.config), &facts);
    let warning = format!(
        "it does not name {}: trestle and members believe it all the same, and clients that look for names, as grpcio and openssl do, may not",
        missing.join(", ")
    );
    tracing::info!(valid_until = %time_text(facts.not_after), "this member has a new certificate");
    Ok(Installed {
        generation: generation.unwrap_or(Authority::FIRST),
        not_after: facts.not_after,
        warnings: if missing.is_empty() { Vec::new() } else { vec![warning] },
    })
}

impl KeptLeaf {
    /// As it is in its file.
    fn to_pem(&self) -> String {
        let chain = self.chain();
        let shown = chain.shown();
        std::iter::once(shown.leaf).chain(shown.others.iter().copied()).map(to_pem).collect()
    }
}
