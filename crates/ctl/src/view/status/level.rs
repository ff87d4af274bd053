//! What is not to be had yet because not all members' programs know it.

use super::StatusView;
use super::member::MemberStatusView;

/// The names of members, as a list in words.
fn names(members: &[&MemberStatusView]) -> String {
    let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

impl StatusView {
    /// Says that the feature level is held back, and by whom.
    pub(super) fn level_note(&self) -> Option<String> {
        let level = self.feature_level;
        let highest = self.members.iter().map(|m| m.feature_level_max).max()?;
        // A member of a version without levels says nothing of them.
        if level == 0 || highest <= level {
            return None;
        }
        let (behind, ahead): (Vec<_>, Vec<_>) =
            self.members.iter().partition(|m| m.feature_level_max < highest);
        if behind.is_empty() {
            let who = if ahead.len() == 1 { "its member knows" } else { "all members know" };
            return Some(format!(
                "the cluster is at feature level {level}, and {who} {highest}: the leader raises it once every member answers"
            ));
        }
        let know = |members: &[&MemberStatusView]| if members.len() == 1 { "knows" } else { "know" };
        Some(format!(
            "the cluster is at feature level {level}: {} {} {highest}, and {} {} not; what needs more is refused until {} upgraded",
            names(&ahead),
            know(&ahead),
            names(&behind),
            if behind.len() == 1 { "does" } else { "do" },
            if behind.len() == 1 { format!("{} is", names(&behind)) } else { "they are".to_owned() },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample::sample_status;

    /// What is told of a cluster at a level whose members know these.
    fn told(level: u32, known: [u32; 3]) -> Option<String> {
        let mut status = sample_status();
        status.feature_level = level;
        for (member, known) in status.members.iter_mut().zip(known) {
            member.member.get_or_insert_default().feature_level_max = known;
        }
        StatusView::from(status).level_note()
    }

    #[test]
    fn a_level_is_told_only_where_something_holds_it_back() {
        assert_eq!(told(2, [2, 2, 2]), None);
        assert_eq!(told(0, [0, 0, 0]), None);
        assert_eq!(
            told(1, [2, 1, 2]).as_deref(),
            Some(
                "the cluster is at feature level 1: m1 and m3 know 2, and m2 does not; what needs more is refused until m2 is \
                 upgraded"
            )
        );
        assert_eq!(
            told(1, [2, 1, 1]).as_deref(),
            Some(
                "the cluster is at feature level 1: m1 knows 2, and m2 and m3 do not; what needs more is refused until they are \
                 upgraded"
            )
        );
        assert_eq!(
            told(1, [2, 2, 2]).as_deref(),
            Some(
                "the cluster is at feature level 1, and all members know 2: the leader raises it once every member answers"
            )
        );
    }
}
