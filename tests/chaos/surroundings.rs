//! What belongs to others on the members' machines: addresses, routes, rules of a firewall.

use std::process::Command;

use trestle_testkit::lab::{Host, Lab, VIP};

use crate::findings::{Findings, Invariant};

/// Rules of somebody else, which let everything pass.
const FOREIGN: &str = "\
table inet site {
    set admins { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.7 } }
    chain input { type filter hook input priority 10; ip saddr @admins tcp dport 22 accept; }
    chain forward { type filter hook forward priority 10; ip daddr 198.51.100.0/24 drop; }
}
";

/// What one machine has.
#[derive(Debug)]
struct Machine {
    addresses: Vec<String>,
    routes: Vec<String>,
    rules: Vec<String>,
}

/// What all of them had.
#[derive(Debug)]
pub(crate) struct Surroundings(Vec<Machine>);

impl Surroundings {
    /// Gives every member's machine rules of somebody else, and remembers what there is.
    pub(crate) fn arrange(lab: &Lab) -> Self {
        lab.members.iter().for_each(put_foreign_rules);
        Self(lab.members.iter().map(look).collect())
    }

    /// Compares; the virtual address itself may be there.
    pub(crate) fn compare(&self, lab: &Lab, findings: &mut Findings) {
        for (number, (before, host)) in self.0.iter().zip(&lab.members).enumerate() {
            let after = look(host);
            let pairs = [
                (&before.addresses, &after.addresses),
                (&before.routes, &after.routes),
                (&before.rules, &after.rules),
            ];
            for (before, after) in pairs.into_iter().filter(|(before, after)| before != after) {
                let what = format!("m{}: {before:#?} became {after:#?}", number + 1);
                findings.add(Invariant::MachinesUnharmed, what);
            }
        }
    }
}

/// Puts somebody else's rules there as they were.
fn put_foreign_rules(host: &Host) {
    host.nft(&format!("table inet site {{}}\ndelete table inet site\n{FOREIGN}"));
}

fn look(host: &Host) -> Machine {
    let own = |text: String| -> Vec<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).filter(|line| !line.contains(&VIP.to_string())).collect()
    };
    let rules = host.run(|| Command::new("nft").args(["list", "table", "inet", "site"]).output().unwrap());
    // IPv6 addresses of the interfaces pass through states of their own.
    Machine {
        addresses: own(host.ip("-4 -oneline address show")),
        routes: own(host.ip("-4 route show table all")),
        rules: own(String::from_utf8_lossy(&rules.stdout).into_owned()),
    }
}
