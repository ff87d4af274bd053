//! Keys of the cluster's authorities, as files of this member: `ca/1.key` for generation 1. They are in no log, snapshot, answer or
//! backup.

use std::path::PathBuf;
use std::time::SystemTime;

use trestle_consensus::MakeIdentities;
use trestle_identity::{CertificateAuthority, PrivateKey, read_private, write_private};
use trestle_model::{ClusterId, ClusterState, FoundingIdentities, Secret, TransportSecurity};

use super::own_key;

/// Generation of the authority that a cluster is founded with.
const FIRST: u32 = 1;

/// Where the keys are.
#[derive(Debug, Clone)]
pub(crate) struct AuthorityKeys {
    data_dir: PathBuf,
}

impl AuthorityKeys {
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    fn path(&self, generation: u32) -> PathBuf {
        self.data_dir.join("ca").join(format!("{generation}.key"))
    }

    fn read(&self, generation: u32) -> Result<Option<PrivateKey>, String> {
        let path = self.path(generation);
        let text = read_private(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let key = text.map(|text| PrivateKey::from_pem(&text)).transpose();
        key.map_err(|error| format!("{} is no key: {error}", path.display()))
    }

    /// What makes the identities of a cluster that is founded here. Its keys are on disk before anybody hears of its certificate. Keys
    /// that are there already are taken: what comes of an earlier attempt to found may still be applied.
    pub(crate) fn founding(self, transport: TransportSecurity) -> MakeIdentities {
        Box::new(move |cluster| {
            let authority = self.found(cluster)?.certificate().into();
            let founder_key = Some(own_key::kept_or_new(&self.data_dir)?.pin());
            Ok(Some(FoundingIdentities { authority, founder_key, transport }))
        })
    }

    fn found(&self, cluster: &ClusterId) -> Result<CertificateAuthority, String> {
        let key = match self.read(FIRST)? {
            Some(key) => key,
            None => {
                let key = PrivateKey::generate().map_err(|error| error.to_string())?;
                let path = self.path(FIRST);
                let written = write_private(&path, key.to_pem().expose().as_bytes());
                written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                key
            }
        };
        CertificateAuthority::make(key, cluster, FIRST, SystemTime::now()).map_err(|error| error.to_string())
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
        belongs(key, state, generation).map_err(|why| format!("{}: {why}", path.display()))?;
        Ok(Some(text))
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
        let text = read.to_pem();
        belongs(read, state, generation)?;
        let path = self.path(generation);
        let written = write_private(&path, text.expose().as_bytes());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// The authority that signs, with its key; `None` if this member does not have it.
    ///
    /// # Errors
    /// In words, when the file is there and cannot be used.
    pub(super) fn load(&self, state: &ClusterState) -> Result<Option<CertificateAuthority>, String> {
        let (Some(cluster), Some(active)) = (&state.cluster_id, state.active_authority()) else {
            return Ok(None);
        };
        let Some(key) = self.read(active.generation)? else { return Ok(None) };
        let loaded = CertificateAuthority::load(key, cluster, &active.certificate);
        let path = self.path(active.generation);
        loaded.map(Some).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Whether a key is the one of an authority.
fn belongs(key: PrivateKey, state: &ClusterState, generation: u32) -> Result<(), String> {
    let authority = state.authorities.get(&generation);
    let (Some(cluster), Some(authority)) = (&state.cluster_id, authority) else {
        return Err(format!("this member knows of no authority of generation {generation} yet"));
    };
    let loaded = CertificateAuthority::load(key, cluster, &authority.certificate);
    loaded.map(drop).map_err(|error| error.to_string())
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
        let made: Vec<_> = (0..2).map(|_| keys.clone().founding(off)(&cluster).unwrap().unwrap()).collect();
        assert_eq!(made[0].founder_key, made[1].founder_key);
        for founding in made {
            let authority = Authority {
                generation: 1,
                certificate: founding.authority,
                state: AuthorityState::Active,
                key_holders: vec![MemberId(1)],
            };
            state.authorities.insert(1, Arc::new(authority));
            assert!(keys.load(&state).unwrap().is_some());
        }
        let other = AuthorityKeys::new(dir.path().join("other"));
        assert!(other.load(&state).unwrap().is_none());
        other.clone().founding(off)(&cluster).unwrap();
        let refused = other.load(&state).unwrap_err();
        assert!(refused.contains("1.key: the key ") && refused.contains("is not that of"), "{refused}");
    }
}
