//! How the initial members of a cluster found it without a person.

use std::fmt;
use std::path::PathBuf;

use trestle_model::HostPort;

/// How the initial members of a cluster find one another, and know one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundingConfig {
    /// Their peer addresses as each advertises its own; the first founds.
    pub members: Vec<HostPort>,
    /// File of the founding token, which is the same for all.
    pub token_file: PathBuf,
}

impl fmt::Display for FoundingConfig {
    /// As TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> = self.members.iter().map(|member| format!("\"{member}\"")).collect();
        writeln!(f, "initial_members = [{}]", members.join(", "))?;
        writeln!(f, "founding_token_file = {:?}", self.token_file)
    }
}
