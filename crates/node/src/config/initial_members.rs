//! The keys by which the initial members of a cluster found it without a person.

use std::collections::BTreeSet;

use trestle_model::defaults::INITIAL_MEMBERS_MAX;
use trestle_model::{HostPort, TransportSecurity};

use super::checked::{Config, SettingReader};
use super::founding::FoundingConfig;

const MEMBERS: &str = "initial_members";
const TOKEN_FILE: &str = "founding_token_file";
/// Other ways into a cluster.
const OTHER_WAYS: [&str; 2] = ["join", "join_token_file"];

impl SettingReader<'_> {
    /// The keys `initial_members` and `founding_token_file`, on the member that advertises this peer address.
    pub(super) fn founding(&mut self, own: Option<&HostPort>, insecure: bool) -> Option<FoundingConfig> {
        let token_file = self.token_file(TOKEN_FILE);
        let Some((texts, source)) = self.given.texts(MEMBERS).filter(|(texts, _)| !texts.is_empty()) else {
            if let Some(file) = &token_file {
                self.note(TOKEN_FILE, file.display(), "goes with initial_members, which are not given");
            }
            return None;
        };
        let (shown, field) = (texts.join(","), Self::field(MEMBERS, source));
        if self.given.text(TOKEN_FILE).is_none() {
            let rule = "goes with founding_token_file: a file with what \"trestled founding-token\" prints, the same on each of them";
            self.note(MEMBERS, &shown, rule);
        }
        if texts.len() > INITIAL_MEMBERS_MAX {
            self.note(MEMBERS, texts.len(), &format!("must be 1 to {INITIAL_MEMBERS_MAX}"));
        }
        let read = |text: &String| self.v.take(&field, text, HostPort::parse_reachable(text));
        let members: Vec<HostPort> = texts.iter().filter_map(read).collect();
        let mut seen = BTreeSet::new();
        for again in members.iter().filter(|member| !seen.insert(*member)) {
            self.note(MEMBERS, again, "is there twice");
        }
        // An address that was not read may be its own.
        if let Some(own) = own.filter(|own| members.len() == texts.len() && !members.contains(own)) {
            let rule = format!(
                "must have this member's own advertise_peer_address, {own}, written the same: only initial members found the cluster; \
                 others join it by join_token_file"
            );
            self.note(MEMBERS, &shown, &rule);
        }
        if insecure {
            let rule = "cannot be together with insecure = true: they found a cluster whose members know one another by keys";
            self.note(MEMBERS, &shown, rule);
        }
        for other in OTHER_WAYS {
            if self.given.texts(other).is_some_and(|(texts, _)| !texts.is_empty()) {
                let rule = format!(
                    "cannot be together with {other}: a member founds a cluster with others, or joins one"
                );
                self.note(MEMBERS, &shown, &rule);
            }
        }
        Some(FoundingConfig { members, token_file: token_file? })
    }
}

impl Config {
    /// What the ports of a cluster accept that this member founds.
    pub(crate) fn founding_transport(&self) -> TransportSecurity {
        if self.insecure { TransportSecurity::Off } else { TransportSecurity::Require }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use trestle_model::Violations;

    use super::super::RawConfig;
    use super::*;

    const OWN: &str = "name = \"m1\"\nadvertise_peer_address = \"m1:7481\"\n";

    fn check(toml: &str) -> Result<Config, String> {
        let mut v = Violations::new();
        let given = RawConfig::from_toml(Path::new("t.toml"), &format!("{OWN}{toml}"), &mut v);
        Config::check(&given, v).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn initial_members_are_shown_as_they_were_given() {
        let toml = "initial_members = [\"m1:7481\", \"m2:7481\", \"m3:7481\"]\nfounding_token_file = \"/run/secrets/founding\"\n";
        let config = check(toml).unwrap();
        let founding = config.founding.clone().unwrap();
        assert_eq!(
            founding.members.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["m1:7481", "m2:7481", "m3:7481"]
        );
        assert!(config.to_string().contains(toml), "{config}");
        assert_eq!(check("").unwrap().founding, None);
        let alone = "initial_members = [\"m1:7481\"]\nfounding_token_file = \"/x\"\n";
        assert_eq!(check(alone).unwrap().founding.unwrap().members.len(), 1);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let told = check("initial_members = [\"m2:7481\", \"m2:7481\"]\ninsecure = true\njoin = [\"m2:7481\"]\njoin_token_file = \"/t\"\n")
            .unwrap_err();
        for part in [
            "goes with founding_token_file",
            "is there twice",
            "must have this member's own advertise_peer_address, m1:7481",
            "together with insecure = true",
            "together with join:",
            "together with join_token_file:",
        ] {
            assert_eq!(told.matches(part).count(), 1, "{part}: {told}");
        }
        let told = check("founding_token_file = \"/x\"\n").unwrap_err();
        assert!(told.contains("founding_token_file") && told.contains("goes with initial_members"), "{told}");
        let many: Vec<_> = (1..9).map(|number| format!("\"m{number}:7481\"")).collect();
        let told = check(&format!("initial_members = [{}]\nfounding_token_file = \"/x\"\n", many.join(", ")))
            .unwrap_err();
        assert!(told.contains("must be 1 to 7"), "{told}");
        let told = check("initial_members = [\"0.0.0.0:7481\", \"m1\"]\nfounding_token_file = \"/x\"\n")
            .unwrap_err();
        assert!(told.contains("0.0.0.0:7481") && told.contains("\"m1\""), "{told}");
    }
}
