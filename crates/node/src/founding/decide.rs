//! What an empty member does by what the other initial members have answered.

use std::collections::BTreeMap;

use trestle_model::{ClusterId, HostPort, KeyPin};

use super::exchange::Answer;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Found a cluster.
    Found,
    /// Join the cluster of this authority, through these members.
    Join(ClusterId, KeyPin, Vec<HostPort>),
    /// Ask again, and meanwhile say this.
    Wait(String),
}

/// What keeps a member's answer from counting as empty, in words.
fn trouble(answer: &Answer, members: &[HostPort]) -> Option<String> {
    let list = |members: &[String]| format!("[{}]", members.join(", "));
    Some(match answer {
        Answer::Empty | Answer::InCluster(..) => return None,
        Answer::None(why) => format!("does not answer: {why}"),
        Answer::NoToken => {
            "has no founding token: give it initial_members and founding_token_file as here, and see in its log whether it can read \
             that"
                .to_owned()
        }
        Answer::OtherToken => {
            "has another founding token than this member: put the same text into the founding_token_file of both".to_owned()
        }
        Answer::Elsewhere(other) => {
            format!("is answered for by {other}: see to the addresses, and to advertise_peer_address there")
        }
        Answer::OtherMembers(theirs) => {
            let own: Vec<_> = members.iter().map(ToString::to_string).collect();
            format!(
                "has other initial_members, {}, than this member, {}: write the same in both files",
                list(theirs),
                list(&own)
            )
        }
    })
}

fn each(members: &[(&HostPort, String)]) -> String {
    members.iter().map(|(member, what)| format!("{member} ({what})")).collect::<Vec<_>>().join(", ")
}

/// Decides. `members` are the initial ones in the order of the configuration, and `answers` those of all of them but this one.
pub(super) fn decide(members: &[HostPort], own: &HostPort, answers: &[(HostPort, Answer)]) -> Step {
    let mut clusters: BTreeMap<&ClusterId, Vec<(&HostPort, Option<KeyPin>)>> = BTreeMap::new();
    for (member, answer) in answers {
        if let Answer::InCluster(cluster, authority) = answer {
            clusters.entry(cluster).or_default().push((member, *authority));
        }
    }
    let joinable = |known: &[(&HostPort, Option<KeyPin>)]| {
        let authority = known.iter().find_map(|(_, authority)| *authority)?;
        let same = known.iter().filter(|(_, theirs)| *theirs == Some(authority));
        Some((authority, same.map(|(member, _)| (*member).clone()).collect()))
    };
    let mut found = clusters.into_iter();
    match (found.next(), found.next()) {
        (Some((cluster, known)), None) => {
            return match joinable(&known) {
                Some((authority, through)) => Step::Join(cluster.clone(), authority, through),
                None => {
                    let who: Vec<_> = known.iter().map(|(member, _)| member.to_string()).collect();
                    Step::Wait(format!(
                        "waits for {}, which knows too little yet of its cluster {cluster} to lead this member to it",
                        who.join(", ")
                    ))
                }
            };
        }
        (Some((one, of_one)), Some((other, of_other))) => {
            let at = |known: &[(&HostPort, Option<KeyPin>)]| {
                known.first().map(|(member, _)| member.to_string()).unwrap_or_default()
            };
            return Step::Wait(format!(
                "joins none of two clusters: {} belongs to {one}, and {} to {other}; leave only those of one in initial_members, or join by \
                 a token",
                at(&of_one),
                at(&of_other)
            ));
        }
        (None, _) => {}
    }
    let missing = answers.iter().filter_map(|(member, answer)| Some((member, trouble(answer, members)?)));
    let missing: Vec<_> = missing.collect();
    let first = members.first().unwrap_or(own);
    match (first == own, missing.is_empty()) {
        (true, true) => Step::Found,
        (true, false) => Step::Wait(format!("waits for {} before it founds the cluster", each(&missing))),
        (false, true) => Step::Wait(format!("waits for {first}, which founds the cluster")),
        (false, false) => Step::Wait(format!(
            "waits for {first}, which founds the cluster once all initial members answer; here: {}",
            each(&missing)
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(number: usize) -> HostPort {
        HostPort::parse(&format!("m{number}:7481")).unwrap()
    }

    fn members() -> Vec<HostPort> {
        (1..=3).map(address).collect()
    }

    fn cluster(byte: &str) -> ClusterId {
        ClusterId::parse(&byte.repeat(16)).unwrap()
    }

    const PIN: KeyPin = KeyPin([7; 32]);

    fn decided(own: usize, answers: [Answer; 2]) -> Step {
        let others = (1..=3).filter(|number| *number != own).map(address);
        decide(&members(), &address(own), &others.zip(answers).collect::<Vec<_>>())
    }

    fn waits(step: Step) -> String {
        match step {
            Step::Wait(why) => why,
            other => unreachable!("{other:?}"),
        }
    }

    fn kinds() -> Vec<Answer> {
        vec![
            Answer::None("connection refused".to_owned()),
            Answer::NoToken,
            Answer::OtherToken,
            Answer::Elsewhere("m9:7481".to_owned()),
            Answer::OtherMembers(vec!["m1:7481".to_owned()]),
            Answer::Empty,
            Answer::InCluster(cluster("0a"), Some(PIN)),
            Answer::InCluster(cluster("0a"), None),
            Answer::InCluster(cluster("0b"), Some(PIN)),
        ]
    }

    #[test]
    fn only_the_first_founds_and_only_where_all_are_empty() {
        for own in 1..=3 {
            for one in kinds() {
                for other in kinds() {
                    let found = decided(own, [one.clone(), other.clone()]) == Step::Found;
                    let all_empty = one == Answer::Empty && other == Answer::Empty;
                    assert_eq!(found, own == 1 && all_empty, "{own} {one:?} {other:?}");
                }
            }
        }
        assert_eq!(decide(&[address(1)], &address(1), &[]), Step::Found);
    }

    #[test]
    fn a_cluster_that_is_there_is_joined_whoever_else_answers() {
        let there = Answer::InCluster(cluster("0a"), Some(PIN));
        for own in 1..=3 {
            for other in &kinds()[..6] {
                let step = decided(own, [other.clone(), there.clone()]);
                assert!(matches!(&step, Step::Join(_, PIN, through) if through.len() == 1), "{step:?}");
            }
        }
        let unknowing = Answer::InCluster(cluster("0a"), None);
        let step = decided(1, [unknowing.clone(), there.clone()]);
        assert_eq!(step, Step::Join(cluster("0a"), PIN, vec![address(3)]));
        let told = waits(decided(1, [unknowing, Answer::Empty]));
        assert!(told.contains("m2:7481, which knows too little yet"), "{told}");
        let told = waits(decided(2, [there, Answer::InCluster(cluster("0b"), Some(PIN))]));
        assert!(told.contains("joins none of two clusters: m1:7481") && told.contains("m3:7481"), "{told}");
    }

    #[test]
    fn it_says_for_whom_it_waits_and_why() {
        let silent = || Answer::None("connection refused: nothing listens there".to_owned());
        let told = waits(decided(1, [Answer::Empty, silent()]));
        assert_eq!(
            told,
            "waits for m3:7481 (does not answer: connection refused: nothing listens there) before it founds the cluster"
        );
        assert_eq!(
            waits(decided(2, [Answer::Empty, Answer::Empty])),
            "waits for m1:7481, which founds the cluster"
        );
        let told = waits(decided(3, [Answer::Empty, Answer::OtherToken]));
        assert!(
            told.contains("once all initial members answer; here: m2:7481 (has another founding token"),
            "{told}"
        );
        let told = waits(decided(1, [Answer::OtherMembers(vec!["m1:7481".to_owned()]), Answer::NoToken]));
        for part in
            ["[m1:7481], than this member, [m1:7481, m2:7481, m3:7481]", "m3:7481 (has no founding token"]
        {
            assert!(told.contains(part), "{told}");
        }
    }
}
