//! The keys that say how this machine is let in: its own users over the UNIX socket, and itself into a cluster.

use std::path::PathBuf;

use trestle_model::HostPort;

use super::admin_socket::{ADMIN_SOCKET, AdminSocket, path, role_here};
use super::checked::SettingReader;

fn token_file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must be the path of a file".to_owned()) } else { Ok(PathBuf::from(text)) }
}

impl SettingReader<'_> {
    /// The keys `admin_socket` and `socket_roles`.
    pub(super) fn admin_socket(&mut self) -> Option<AdminSocket> {
        let given = self.given.text("admin_socket").is_some();
        let path = self.read("admin_socket", ADMIN_SOCKET, path);
        let mut roles = Vec::new();
        if let Some((texts, source)) = self.given.texts("socket_roles") {
            let field = Self::field("socket_roles", source);
            roles = texts.iter().filter_map(|text| self.v.take(&field, text, role_here(text))).collect();
        }
        if path == Some(None) && !roles.is_empty() {
            self.note("socket_roles", roles.len(), "goes with an admin_socket, which is switched off");
        }
        Some(AdminSocket { path: path?, required: given, roles })
    }

    /// The key `join`.
    pub(super) fn peers(&mut self) -> Vec<HostPort> {
        let Some((texts, source)) = self.given.texts("join") else {
            return Vec::new();
        };
        let field = Self::field("join", source);
        texts.iter().filter_map(|text| self.v.take(&field, text, HostPort::parse(text))).collect()
    }

    /// A key that names the file of a token.
    pub(super) fn token_file(&mut self, name: &str) -> Option<PathBuf> {
        self.optional(name, token_file)
    }
}
