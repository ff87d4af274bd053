//! A file with a new founding token, for a volume that initial members share.

use std::io::{Error, ErrorKind, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::new_founding_token;

/// Writes a new founding token to a file, which only its owner may read, unless something is there already; answers whether it did.
/// The file is there whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_founding_token(path: &Path) -> std::io::Result<bool> {
    if path.try_exists()? {
        return Ok(false);
    }
    let token = new_founding_token()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Its mode is 0600 from the first.
    let mut file = NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    writeln!(file, "{}", token.to_text().expose())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::from(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use trestle_identity::{FoundingToken, read_private};

    use super::*;

    #[test]
    fn the_first_token_stays_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(write_founding_token(&path).unwrap());
        let text = read_private(&path).unwrap().unwrap();
        FoundingToken::parse(&text).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_founding_token(&path).unwrap());
        assert_eq!(read_private(&path).unwrap().unwrap(), text);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_founding_token(&dir.path().join("none/token")).is_err());
    }
}
