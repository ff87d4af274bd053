//! The UNIX socket of the admin API, and who has which role over it.

use std::fmt;
use std::path::{Path, PathBuf};

use trestle_model::{Choice, Role};

pub(super) const ADMIN_SOCKET: &str = "/run/trestle/admin.sock";
/// Longest path of a socket, in bytes: `sun_path` has 108 with the zero at its end (unix(7)).
const PATH_MAX: usize = 107;
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Where the admin API listens for processes of this machine, and who may do what there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocket {
    /// The socket's path; `None` for no socket.
    pub path: Option<PathBuf>,
    /// Whether the member does not start without it: the path was given, and is not the default.
    pub required: bool,
    /// Roles of users other than root and the daemon's own.
    pub roles: Vec<SocketRole>,
}

/// A role that users have over the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketRole {
    /// Who.
    pub account: LocalAccount,
    /// What they may do.
    pub role: Role,
}

/// A user or group of this machine, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalAccount {
    /// One user.
    User(u32),
    /// Everybody in a group, as their main group or another one.
    Group(u32),
}

impl fmt::Display for SocketRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.account {
            LocalAccount::User(uid) => write!(f, "uid:{uid}={}", self.role),
            LocalAccount::Group(gid) => write!(f, "gid:{gid}={}", self.role),
        }
    }
}

impl AdminSocket {
    /// One in a directory, without which the member starts all the same.
    pub fn within(directory: &Path) -> Self {
        Self { path: Some(directory.join("admin.sock")), required: false, roles: Vec::new() }
    }
}

pub(super) fn path(text: &str) -> Result<Option<PathBuf>, String> {
    match Path::new(text) {
        _ if text.is_empty() => Ok(None),
        path if path.is_absolute() && text.len() <= PATH_MAX && path.file_name().is_some() => {
            Ok(Some(path.to_owned()))
        }
        _ => Err(format!(
            "must be a path from the root on of at most {PATH_MAX} bytes, or empty for no socket"
        )),
    }
}

/// The number of a user or group: itself, or what a file of names says, in whose lines it is the third field (passwd(5),
/// group(5)).
fn number(text: &str, names: &Path) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let lines = std::fs::read_to_string(names).unwrap_or_default();
    let found = lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == text).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.ok_or_else(|| {
        format!("names \"{}\", which is not in {}: write its number", text.escape_debug(), names.display())
    })
}

fn role(text: &str, passwd: &Path, group: &Path) -> Result<SocketRole, String> {
    let form = || {
        "must be uid:USER=ROLE or gid:GROUP=ROLE, with a name or number, and viewer, operator or admin"
            .to_owned()
    };
    let (who, role) = text.split_once('=').ok_or_else(form)?;
    let role = Role::parse(role).map_err(|_| form())?;
    let account = match who.split_once(':') {
        Some((_, "")) | None => return Err(form()),
        Some(("uid", user)) => LocalAccount::User(number(user, passwd)?),
        Some(("gid", name)) => LocalAccount::Group(number(name, group)?),
        Some(_) => return Err(form()),
    };
    Ok(SocketRole { account, role })
}

/// The role that a text gives, with names as this machine has them.
pub(super) fn role_here(text: &str) -> Result<SocketRole, String> {
    role(text, Path::new(PASSWD), Path::new(GROUP))
}

impl fmt::Display for AdminSocket {
    /// As TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "admin_socket = {:?}", self.path.as_deref().unwrap_or(Path::new("")))?;
        let roles: Vec<_> = self.roles.iter().map(|role| format!("\"{role}\"")).collect();
        writeln!(f, "socket_roles = [{}]", roles.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_model::Violations;

    use super::super::{Config, RawConfig};
    use super::*;

    fn check(toml: &str) -> Result<AdminSocket, String> {
        let mut v = Violations::new();
        let given = RawConfig::from_toml(Path::new("t.toml"), &format!("name = \"m1\"\n{toml}"), &mut v);
        Config::check(&given, v).map(|config| config.admin_socket).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn the_default_may_be_missing_and_what_was_given_may_not() {
        let default = check("").unwrap();
        assert_eq!((default.path, default.required), (Some(ADMIN_SOCKET.into()), false));
        let given = check("admin_socket = \"/run/t.sock\"").unwrap();
        assert_eq!((given.path, given.required), (Some("/run/t.sock".into()), true));
        assert_eq!(check("admin_socket = \"\"").unwrap().path, None);
        let long = format!("/{}", "a".repeat(PATH_MAX));
        for wrong in ["run/t.sock", "/", &long] {
            let said = check(&format!("admin_socket = \"{wrong}\"")).unwrap_err();
            assert!(said.contains("admin_socket (t.toml:2)") && said.contains("107 bytes"), "{said}");
        }
    }

    #[test]
    fn roles_are_of_users_and_groups_by_name_or_number() {
        let dir = tempfile::tempdir().unwrap();
        let (passwd, group) = (dir.path().join("passwd"), dir.path().join("group"));
        std::fs::write(&passwd, "root:x:0:0:root:/root:/bin/sh\nann:x:1001:50::/home/ann:/bin/sh\n").unwrap();
        std::fs::write(&group, "root:x:0:\ntrestle-ops:x:2000:ann\n").unwrap();
        let read = |text| role(text, &passwd, &group);
        for (text, account, wanted) in [
            ("uid:1000=viewer", LocalAccount::User(1000), Role::Viewer),
            ("uid:ann=admin", LocalAccount::User(1001), Role::Admin),
            ("gid:trestle-ops=operator", LocalAccount::Group(2000), Role::Operator),
            ("gid:7=viewer", LocalAccount::Group(7), Role::Viewer),
        ] {
            assert_eq!(read(text), Ok(SocketRole { account, role: wanted }), "{text}");
        }
        assert_eq!(read("uid:ann=admin").unwrap().to_string(), "uid:1001=admin");
        assert!(read("uid:bob=viewer").unwrap_err().contains("names \"bob\""));
        assert!(read("gid:ann=viewer").unwrap_err().contains("group"));
        for wrong in
            ["", "uid:1000", "1000=viewer", "uid:=viewer", "uid:1000=root", "pid:1=viewer", "uid:-1=viewer"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_mistakes_are_told_and_roles_need_a_socket() {
        let said = check("socket_roles = [\"uid:1=boss\", \"x\"]").unwrap_err();
        assert_eq!(said.matches("must be uid:USER=ROLE").count(), 2, "{said}");
        let said = check("admin_socket = \"\"\nsocket_roles = [\"uid:1=viewer\"]").unwrap_err();
        assert!(said.contains("switched off"), "{said}");
    }
}
