//! Keys of the cluster's authorities, as files of this member: `ca/1.key` for generation 1. They are in no log, snapshot, answer or
//! backup.

use std::path::PathBuf;
use std::time::SystemTime;

use trestle_consensus::MakeIdentities;
use trestle_identity::{CertificateAuthority, PrivateKey, VerificationTime, read_private, write_private};
use trestle_model::{
    Authority, ClusterId, ClusterState, FoundingIdentities, JoinTokenSpec, Secret, TransportSecurity,
};

use super::own_key;

/// Where the keys are.
#[derive(Debug, Clone)]
pub(crate) struct AuthorityKeys {
    data_dir: PathBuf,
}

impl AuthorityKeys {
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    /// Where the key of an authority is.
    pub(crate) fn path(&self, generation: u32) -> PathBuf {
        self.data_dir.join("ca").join(format!("{generation}.key"))
    }

    fn read(&self, generation: u32) -> Result<Option<PrivateKey>, String> {
        let path = self.path(generation);
        let text = read_private(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let key = text.map(|text| PrivateKey::from_pem(&text)).transpose();
        key.map_err(|error| format!("{} is no key: {error}", path.display()))
    }

    /// What makes the identities of a cluster that is founded here. Its keys are on disk before anybody hears of its certificate. Keys
    /// that are there already are taken: what comes of an earlier attempt to found may still be applied. Others may join by the token.
    pub(crate) fn founding(
        self,
        transport: TransportSecurity,
        token: Option<JoinTokenSpec>,
    ) -> MakeIdentities {
        Box::new(move |cluster| {
            let authority = self.found(cluster)?.certificate().into();
            let founder_key = Some(own_key::kept_or_new(&self.data_dir)?.pin());
            Ok(Some(FoundingIdentities { authority, external: false, founder_key, transport, token }))
        })
    }

    /// What makes the identities of a cluster that is founded here, for which an authority outside of it signs.
    pub(crate) fn founding_with(self, authority: Vec<u8>, transport: TransportSecurity) -> MakeIdentities {
        Box::new(move |_| {
            let founder_key = Some(own_key::kept_or_new(&self.data_dir)?.pin());
            let authority = authority.into();
            Ok(Some(FoundingIdentities { authority, external: true, founder_key, transport, token: None }))
        })
    }

    fn found(&self, cluster: &ClusterId) -> Result<CertificateAuthority, String> {
        self.make(cluster, Authority::FIRST)
    }

    /// Makes an authority of a generation that there is none of yet. Its key is on disk when this returns. A key that is there already is
    /// taken: what comes of an earlier attempt may still be applied.
    ///
    /// # Errors
    /// In words, when the file cannot be used or written.
    pub(crate) fn make(&self, cluster: &ClusterId, generation: u32) -> Result<CertificateAuthority, String> {
        let key = match self.read(generation)? {
            Some(key) => key,
            None => {
                let key = PrivateKey::generate().map_err(|error| error.to_string())?;
                self.write(generation, &key)?;
                key
            }
        };
        let now = VerificationTime::by_clock(SystemTime::now()).time();
        let made = CertificateAuthority::make(key, cluster, generation, now);
        made.map_err(|error| error.to_string())
    }

    fn write(&self, generation: u32, key: &PrivateKey) -> Result<(), String> {
        let path = self.path(generation);
        let written = write_private(&path, key.to_pem().expose().as_bytes());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Whether there is a file for the key of an authority.
    pub(crate) fn is_there(&self, generation: u32) -> bool {
        self.path(generation).exists()
    }

    /// Whether this member has the key of an authority, and can use it.
    pub(crate) fn has(&self, state: &ClusterState, generation: u32) -> bool {
        matches!(self.authority(state, generation), Ok(Some(_)))
    }

    /// An authority with its key; `None` if this member does not have it.
    ///
    /// # Errors
    /// In words, when the file is there and cannot be used.
    pub(crate) fn authority(
        &self,
        state: &ClusterState,
        generation: u32,
    ) -> Result<Option<CertificateAuthority>, String> {
        let Some(key) = self.read(generation)? else { return Ok(None) };
        let path = self.path(generation);
        belongs(key, state, generation).map(Some).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The key of an authority as it is in its file; `None` if this member does not have it.
    ///
    /// # Errors
    /// In words, when the file is there and cannot be used.
    pub(crate) fn text(
        &self,
        state: &ClusterState,
        generation: u32,
    ) -> Result<Option<Secret<String>>, String> {
        let Some(key) = self.read(generation)? else { return Ok(None) };
        let text = key.to_pem();
        let path = self.path(generation);
        let own = belongs(key, state, generation);
        own.map(|_| Some(text)).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Keeps the key of an authority that another member has given. It is on disk when this returns.
    ///
    /// # Errors
    /// In words, when it is not the key of that authority, or the disk refuses.
    pub(crate) fn keep(
        &self,
        state: &ClusterState,
        generation: u32,
        key: &Secret<String>,
    ) -> Result<(), String> {
        let read = PrivateKey::from_pem(key.expose()).map_err(|error| error.to_string())?;
        let again = PrivateKey::from_pem(key.expose()).map_err(|error| error.to_string())?;
        belongs(read, state, generation)?;
        self.write(generation, &again)
    }

    /// The authority that signs, with its key; `None` if this member does not have it.
    ///
    /// # Errors
    /// In words, when the file is there and cannot be used.
    pub(super) fn load(&self, state: &ClusterState) -> Result<Option<CertificateAuthority>, String> {
        state.active_authority().map_or(Ok(None), |active| self.authority(state, active.generation))
    }
}

/// The authority that a key is of.
fn belongs(key: PrivateKey, state: &ClusterState, generation: u32) -> Result<CertificateAuthority, String> {
    let authority = state.authorities.get(&generation);
    let (Some(cluster), Some(authority)) = (&state.cluster_id, authority) else {
        return Err(format!("this member knows of no authority of generation {generation} yet"));
    };
    CertificateAuthority::load(key, cluster, &authority.certificate).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use trestle_model::{Authority, AuthorityState, MemberId};

    use super::*;

    #[test]
    fn a_founder_keeps_its_key_and_makes_the_certificate_of_the_log_work() {
        let dir = tempfile::tempdir().unwrap();
        let keys = AuthorityKeys::new(dir.path().to_owned());
        let cluster = ClusterId::parse(&"0a".repeat(16)).unwrap();
        let mut state = ClusterState { cluster_id: Some(cluster.clone()), ..ClusterState::default() };
        assert!(keys.load(&state).unwrap().is_none());
        // Two attempts, of which either may come into the log.
        let off = TransportSecurity::Off;
        let made: Vec<_> =
            (0..2).map(|_| keys.clone().founding(off, None)(&cluster).unwrap().unwrap()).collect();
        assert_eq!(made[0].founder_key, made[1].founder_key);
        for founding in made {
            let authority = Authority {
                generation: 1,
                certificate: founding.authority,
                state: AuthorityState::Active,
                external: false,
                key_holders: vec![MemberId(1)],
                cross: None,
            };
            state.authorities.insert(1, Arc::new(authority));
            assert!(keys.load(&state).unwrap().is_some());
        }
        let other = AuthorityKeys::new(dir.path().join("other"));
        assert!(other.load(&state).unwrap().is_none());
        other.clone().founding(off, None)(&cluster).unwrap();
        let refused = other.load(&state).unwrap_err();
        assert!(refused.contains("1.key: the key ") && refused.contains("is not that of"), "{refused}");
    }
}
