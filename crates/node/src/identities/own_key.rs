//! This member's own key, `tls/member.key`. It stays the same for as long as the member does: others know the member by it.

use std::path::{Path, PathBuf};

use trestle_identity::{PrivateKey, read_private, write_private};

/// Where the key is kept.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("tls").join("member.key")
}

/// The key that is kept, if there is one.
///
/// # Errors
/// In words, when the file is there and cannot be used.
pub(crate) fn kept(data_dir: &Path) -> Result<Option<PrivateKey>, String> {
    let path = path(data_dir);
    let text = read_private(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let key = text.map(|text| PrivateKey::from_pem(&text)).transpose();
    key.map_err(|error| format!("{} is no key: {error}", path.display()))
}

/// The key that is kept, or a new one, which is on disk when this returns.
///
/// # Errors
/// In words, when the file cannot be used or written.
pub(crate) fn kept_or_new(data_dir: &Path) -> Result<PrivateKey, String> {
    if let Some(key) = kept(data_dir)? {
        return Ok(key);
    }
    let key = PrivateKey::generate().map_err(|error| error.to_string())?;
    let path = path(data_dir);
    let written = write_private(&path, key.to_pem().expose().as_bytes());
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(kept(dir.path()).unwrap().is_none());
        let made = kept_or_new(dir.path()).unwrap().pin();
        assert_eq!(kept_or_new(dir.path()).unwrap().pin(), made);
        std::fs::write(path(dir.path()), "no key").unwrap();
        assert!(kept_or_new(dir.path()).unwrap_err().contains("member.key is no key: "));
    }
}
