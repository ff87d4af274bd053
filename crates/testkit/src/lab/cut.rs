//! Partitions: which members the switch lets talk to which. Clients and backends reach all of them, so that a holder on
//! the wrong side would be seen.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{Lab, MEMBERS};

/// What the switch drops between members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// This member and the others hear nothing of one another.
    Both(usize),
    /// The others do not hear this member, which hears them.
    From(usize),
    /// This member does not hear the others, which hear it.
    To(usize),
    /// These two hear nothing of one another; the third hears both and both hear it.
    Between(usize, usize),
}

impl Cut {
    /// The same cut with `holder` in the place of member 0, and those after it following.
    pub(super) fn around(self, holder: usize) -> Self {
        let place = |member: usize| (member + holder) % MEMBERS;
        match self {
            Self::Both(member) => Self::Both(place(member)),
            Self::From(member) => Self::From(place(member)),
            Self::To(member) => Self::To(place(member)),
            Self::Between(a, b) => Self::Between(place(a), place(b)),
        }
    }

    /// Pairs of sender and receiver between which nothing passes.
    fn pairs(self) -> Vec<(usize, usize)> {
        let all = (0..MEMBERS).flat_map(|from| (0..MEMBERS).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to)
            .filter(|(from, to)| match self {
                Self::Both(member) => *from == member || *to == member,
                Self::From(member) => *from == member,
                Self::To(member) => *to == member,
                Self::Between(a, b) => [(a, b), (b, a)].contains(&(*from, *to)),
            })
            .collect()
    }
}

/// Replaces the switch's rules.
pub(super) fn apply(lab: &Lab, cut: Option<Cut>) {
    // Made before it is deleted, so that the first time is as all others; one transaction.
    let mut rules = "table bridge cut {}\ndelete table bridge cut\n".to_owned();
    if let Some(cut) = cut {
        rules += "table bridge cut { chain forward { type filter hook forward priority 0\n";
        for (from, to) in cut.pairs() {
            let (from, to) = (&lab.members[from].port, &lab.members[to].port);
            writeln!(rules, "iifname \"{from}\" oifname \"{to}\" drop").unwrap();
        }
        rules += "}\n}\n";
    }
    lab.switch.run(|| {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refuses {rules}");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_drop_what_they_say() {
        assert_eq!(Cut::Both(1).pairs(), [(0, 1), (1, 0), (1, 2), (2, 1)]);
        assert_eq!(Cut::From(0).pairs(), [(0, 1), (0, 2)]);
        assert_eq!(Cut::To(0).pairs(), [(1, 0), (2, 0)]);
        assert_eq!(Cut::Between(2, 0).pairs(), [(0, 2), (2, 0)]);
        assert_eq!(Cut::Between(0, 1).around(2), Cut::Between(2, 0));
    }
}
