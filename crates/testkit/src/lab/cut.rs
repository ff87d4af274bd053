//! Partitions: which members the switch lets talk to which. Clients and backends reach all of them, so that a holder on
//! the wrong side would be seen.

use std::fmt::Write as _;

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

/// What is lost on the way from one member to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obstacle {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
    /// How many frames of a hundred are lost.
    pub percent: u8,
}

impl Obstacle {
    /// What a cut loses: everything between some.
    pub fn of(cut: Cut) -> Vec<Self> {
        cut.pairs().into_iter().map(|(from, to)| Self { from, to, percent: 100 }).collect()
    }

    /// The rule of the switch, between ports whose names begin so: a relay in a cable has one of its own.
    fn rule(self, from: &str, to: &str) -> String {
        let some = match self.percent {
            100 => String::new(),
            percent => format!("numgen random mod 100 < {percent} "),
        };
        format!("iifname \"{from}*\" oifname \"{to}*\" {some}drop")
    }
}

/// Replaces the switch's rules.
pub(super) fn apply(lab: &Lab, obstacles: &[Obstacle]) {
    // Made before it is deleted, so that the first time is as all others; one transaction.
    let mut rules = "table bridge cut {}\ndelete table bridge cut\n".to_owned();
    if !obstacles.is_empty() {
        rules += "table bridge cut { chain forward { type filter hook forward priority 0\n";
        for obstacle in obstacles {
            let (from, to) = (&lab.members[obstacle.from].port, &lab.members[obstacle.to].port);
            writeln!(rules, "{}", obstacle.rule(from, to)).unwrap();
        }
        rules += "}\n}\n";
    }
    lab.switch.nft(&rules);
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

    #[test]
    fn an_obstacle_loses_all_or_some() {
        let obstacle = |percent| Obstacle { from: 0, to: 1, percent }.rule("a", "b");
        assert_eq!(obstacle(100), "iifname \"a*\" oifname \"b*\" drop");
        assert_eq!(obstacle(20), "iifname \"a*\" oifname \"b*\" numgen random mod 100 < 20 drop");
    }
}
