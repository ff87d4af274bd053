//! The UNIX socket of the admin API: made at the start, in place of one that a dead process has left, and removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::accept::{ConnectionOrigin, ListeningSocket};
use crate::config::AdminSocket;
use crate::start_error::StartError;

/// Mode of the directory, if it is made here.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of the socket where nobody has a role but root and the daemon's own user.
const OWN_MODE: u32 = 0o660;
/// Mode where others have one: which ones the kernel cannot be told, so all may connect, and calls of those without a role are
/// refused.
const SHARED_MODE: u32 = 0o666;

/// The socket's file, removed when this is dropped, unless another one is in its place by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %error, "the admin socket cannot be removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The admin socket, listening.
#[derive(Debug)]
pub(crate) struct LocalSocket {
    listener: UnixListener,
    _file: SocketFile,
}

impl ListeningSocket for LocalSocket {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, ConnectionOrigin)> {
        ListeningSocket::accept(&self.listener).await
    }
}

impl LocalSocket {
    /// Makes the socket that the configuration asks for; `None` where it asks for none, or where the default one cannot be
    /// made, which is told.
    ///
    /// # Errors
    /// When one that was asked for cannot be made.
    pub(crate) fn bind(wanted: &AdminSocket) -> Result<Option<Self>, StartError> {
        let Some(path) = &wanted.path else { return Ok(None) };
        let mode = if wanted.roles.is_empty() { OWN_MODE } else { SHARED_MODE };
        match make(path, mode) {
            Ok(socket) => Ok(Some(socket)),
            Err(why) if wanted.required => Err(StartError::Socket { path: path.clone(), why }),
            Err(why) => {
                info!(path = %path.display(), "without an admin socket: {why}");
                Ok(None)
            }
        }
    }
}

fn make(path: &Path, mode: u32) -> Result<LocalSocket, String> {
    if let Some(directory) = path.parent()
        && !directory.exists()
    {
        let made = fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
        made.map_err(|error| format!("its directory {} cannot be made: {error}", directory.display()))?;
    }
    make_room(path)?;
    let in_words = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => "another process has made it in this moment".to_owned(),
        _ => error.to_string(),
    };
    let listener = UnixListener::bind(path).map_err(in_words)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path).map_err(in_words)? };
    // Made with the umask's mode, which lets nobody else connect unless it is empty; and then a caller without a role is refused.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(in_words)?;
    Ok(LocalSocket { listener, _file: file })
}

/// Removes a socket that no process listens on any more.
fn make_room(path: &Path) -> Result<(), String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !found.file_type().is_socket() {
        return Err("it is there, and is no socket: remove it, or choose another path".to_owned());
    }
    match is_served(path) {
        Ok(false) => fs::remove_file(path)
            .map_err(|error| format!("what a dead process left there cannot be removed: {error}")),
        Ok(true) => Err(format!(
            "another process listens on it; stop that one (\"ss -lxp src {}\" names it) or choose another path",
            path.display()
        )),
        Err(error) => Err(format!("whether another process listens on it cannot be found out: {error}")),
    }
}

/// Whether a process listens on a socket.
fn is_served(path: &Path) -> io::Result<bool> {
    // A process that accepts nothing must not hold this one up.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        // AGAIN: its backlog is full (unix(7)).
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted(path: &Path, required: bool) -> AdminSocket {
        AdminSocket { path: Some(path.to_owned()), required, roles: Vec::new() }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn it_is_made_with_its_directory_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let socket = LocalSocket::bind(&wanted(&path, true)).unwrap().unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o755));
        drop(socket);
        assert!(!path.exists());
        assert!(make(&dir.path().join("a/b/admin.sock"), OWN_MODE).unwrap_err().contains("directory"));
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_a_living_one_keeps_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = LocalSocket::bind(&wanted(&path, true)).unwrap().unwrap();
        let said = LocalSocket::bind(&wanted(&path, true)).unwrap_err().to_string();
        assert!(said.contains("another process listens on it") && said.contains("admin.sock"), "{said}");
        // The default path is no reason not to start.
        assert!(LocalSocket::bind(&wanted(&path, false)).unwrap().is_none());
        // One that somebody else has put in its place stays.
        fs::remove_file(&path).unwrap();
        let second = LocalSocket::bind(&wanted(&path, true)).unwrap().unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "mine").unwrap();
        let said = LocalSocket::bind(&wanted(&path, true)).unwrap_err().to_string();
        assert!(said.contains("no socket"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn one_that_accepts_nothing_is_alive_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let address = SocketAddrUnix::new(&path).unwrap();
        let waiting: Vec<_> = (0..10_000)
            .map_while(|_| {
                let socket =
                    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
                rustix::net::connect(&socket, &address).ok().map(|()| socket)
            })
            .collect();
        assert!(!waiting.is_empty() && is_served(&path).unwrap());
    }
}
