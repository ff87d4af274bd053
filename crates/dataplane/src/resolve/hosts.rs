//! /etc/hosts, which is read before any name server is asked.

use std::collections::HashMap;
use std::net::IpAddr;

/// The names of hosts(5), in lower case and without a final dot.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

/// The form in which names are compared. A name with the final dot of the root is the same name.
fn folded(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl Hosts {
    /// Reads `ADDRESS NAME…` from each line. A line of another form is skipped, as getent(1) does.
    pub(super) fn parse(text: &str) -> Self {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(ip) = words.next().and_then(|ip| ip.parse().ok()) else { continue };
            for name in words {
                names.entry(folded(name)).or_default().push(ip);
            }
        }
        Self(names)
    }

    /// All addresses of a name, if the file has it.
    pub(super) fn find(&self, name: &str) -> Option<&[IpAddr]> {
        self.0.get(&folded(name)).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_addresses_of_all_its_lines() {
        let text = "\u{feff}127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # comment\n\n# 10.0.0.1 not.there\n\
                    10.0.0.7 Web_1.Example. my_svc\nfe80::1%lo0 scoped\n10.0.0.300 wrong\n10.0.0.8\n";
        let hosts = Hosts::parse(text);
        let found = |name: &str| {
            hosts.find(name).map(|ips| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(found("LOCALHOST").as_deref(), Some("127.0.0.1 ::1"));
        for name in ["web_1.example", "web_1.example.", "my_svc", "my_svc."] {
            assert_eq!(found(name).as_deref(), Some("10.0.0.7"), "{name}");
        }
        for name in ["not.there", "scoped", "wrong", "", "#"] {
            assert_eq!(found(name), None, "{name}");
        }
    }
}
