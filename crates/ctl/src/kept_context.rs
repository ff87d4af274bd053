//! Contexts that keep their endpoints up to date by themselves.

use std::path::{Path, PathBuf};

use trestle_api::v1;
use trestle_identity::{lock_directory, read_private};

use crate::context::{Contexts, default_path, directory};
use crate::session::Session;

/// Most endpoints that are kept in a context by itself: as many as a cluster has voters at the most that make sense.
const ENDPOINTS_MAX: usize = 7;

/// The endpoints of a context as the members of its cluster are now: those that are members stay in their order, and the others follow.
fn with_members(endpoints: &[String], members: &[String]) -> Vec<String> {
    let stay = endpoints.iter().filter(|endpoint| members.contains(endpoint));
    let come = members.iter().filter(|member| !endpoints.contains(member));
    stay.chain(come).take(ENDPOINTS_MAX).cloned().collect()
}

/// A context in the user's own file, which keeps its endpoints up to date by itself: it works on when the member is gone that was its
/// first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptContext {
    path: PathBuf,
    name: String,
}

impl KeptContext {
    /// A context of the user's own file; `None` for one of another file, which is not this program's to change.
    pub(crate) fn of(path: &Path, name: &str) -> Option<Self> {
        let own = default_path().ok()?.canonicalize().ok()?;
        (path.canonicalize().ok()? == own).then(|| Self { path: own, name: name.to_owned() })
    }

    /// Makes the members' admin addresses its endpoints, if the file is as this program has written it: what somebody has written there
    /// by hand stays as it is. Nothing depends on it, so nothing is said when it does not succeed.
    pub(crate) fn keep(&self, members: &[String]) {
        // Another process that changes the file is not waited for: the next command does this.
        let Ok(Some(_lock)) = lock_directory(directory(&self.path), false) else { return };
        let Ok(Some(text)) = read_private(&self.path) else { return };
        let Ok(mut contexts) = toml::from_str::<Contexts>(&text) else { return };
        if *contexts.render().expose() != text {
            return;
        }
        let Some(context) = contexts.contexts.get_mut(&self.name) else { return };
        let endpoints = with_members(&context.endpoints, members);
        if endpoints.is_empty() || endpoints == context.endpoints {
            return;
        }
        context.endpoints = endpoints;
        // It is no part of what was asked for.
        let _ = contexts.write(&self.path);
    }
}

impl Session<'_> {
    /// Keeps the members' admin addresses with the context, once a command, so that it works on when its first endpoint is down. Where the
    /// member that answered is reached at another address than the cluster knows, the others may be too, and nothing is changed.
    pub(crate) fn keep_endpoints<'m>(&mut self, members: impl Iterator<Item = &'m v1::Member>) {
        let addresses: Vec<_> = members
            .map(|member| member.admin_address.clone())
            .filter(|address| !address.is_empty())
            .collect();
        if addresses.iter().any(|address| address == self.endpoint())
            && let Some(kept) = self.kept.take()
        {
            kept.keep(&addresses);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use trestle_model::Secret;

    use super::*;
    use crate::context::Context;

    fn context(endpoint: &str) -> Context {
        Context {
            endpoints: vec![endpoint.to_owned()],
            certificate: "CERTIFICATE\n".to_owned(),
            key: Secret::new("KEY\n".to_owned()),
            ca: "CA\n".to_owned(),
            signed_for: None,
            renewal_failed: None,
        }
    }

    #[test]
    fn endpoints_follow_the_members_in_a_file_that_nobody_has_edited() {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let members = texts(&["m1:1", "m2:1", "m3:1"]);
        assert_eq!(with_members(&texts(&["m2:1"]), &members), texts(&["m2:1", "m1:1", "m3:1"]));
        assert_eq!(
            with_members(&texts(&["m3:1", "gone:1", "m1:1"]), &members),
            texts(&["m3:1", "m1:1", "m2:1"])
        );
        let many: Vec<_> = (0..15).map(|number| format!("m{number}:1")).collect();
        assert_eq!(with_members(&texts(&["m9:1"]), &many).len(), ENDPOINTS_MAX);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let mut contexts = Contexts::default();
        contexts.add("bob@0b".to_owned(), context("10.0.0.1:7480"));
        contexts.add("eve@0c".to_owned(), context("10.0.0.9:7480"));
        contexts.write(&path).unwrap();
        let kept = KeptContext { path: path.clone(), name: "bob@0b".to_owned() };
        kept.keep(&texts(&["10.0.0.1:7480", "10.0.0.2:7480"]));
        let after = Contexts::read(&path).unwrap();
        assert_eq!(after.contexts["bob@0b"].endpoints, texts(&["10.0.0.1:7480", "10.0.0.2:7480"]));
        assert_eq!(after.contexts["eve@0c"], contexts.contexts["eve@0c"]);
        // No address, another name, and a file with a word of its owner's: all stay.
        let written = || std::fs::read_to_string(&path).unwrap();
        let before = written();
        kept.keep(&[]);
        KeptContext { name: "x".to_owned(), ..kept.clone() }.keep(&members);
        assert_eq!(written(), before);
        std::fs::write(&path, format!("# mine\n{before}")).unwrap();
        kept.keep(&members);
        assert_eq!(written(), format!("# mine\n{before}"));
        KeptContext { path: dir.path().join("none"), ..kept }.keep(&members);
        assert!(!dir.path().join("none").exists());
    }
}
