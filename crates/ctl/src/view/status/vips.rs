//! What the status says of the virtual IPs.

use super::StatusView;

impl StatusView {
    /// Members that cannot take over, or hold on to what they should hand over. Without virtual IPs there is nothing to
    /// take over, and a member needs no rights for it.
    pub(super) fn vip_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.vips == 0 {
            return problems;
        }
        for m in self.members.iter().filter(|m| m.reachable) {
            let (name, why) = (&m.name, m.unfit.join("; "));
            // A drain is no trouble, unless nobody takes over.
            if m.draining && self.leader.as_ref() != Some(name) {
                continue;
            }
            match m.vip_standing.as_deref() {
                Some("unable") if why.is_empty() => problems.push(format!("{name} cannot hold virtual IPs")),
                Some("unable") => problems.push(format!("{name} cannot hold virtual IPs: {why}")),
                Some("without-quorum") => problems.push(format!(
                    "{name} leads and hears from no quorum: \"trestle vip list\" says what it holds all the same"
                )),
                _ if !why.is_empty() => {
                    problems.push(format!(
                        "{name} should not hold virtual IPs while another member can: {why}"
                    ));
                }
                _ => {}
            }
        }
        problems
    }

    /// Why no member holds the virtual IPs, as far as the members' words tell.
    pub(crate) fn why_none_holds(&self) -> Option<String> {
        if let Some(problem) = self.quorum_problem() {
            return Some(problem);
        }
        let Some(leader) = &self.leader else {
            return Some("no leader is known".to_owned());
        };
        let m = self.members.iter().find(|m| m.name == *leader)?;
        if !m.reachable {
            return Some(format!("{leader}, the last known leader, does not answer"));
        }
        let standing = m.vip_standing.as_ref()?;
        let unfit = if m.unfit.is_empty() { String::new() } else { format!(" ({})", m.unfit.join("; ")) };
        Some(format!("{leader} leads, and is {standing}{unfit}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use trestle_api::v1;

    use super::*;
    use crate::tests::sample::sample_status;

    #[test]
    fn members_that_cannot_take_over_are_told_where_there_are_vips() {
        let mut status = sample_status();
        status.members[0].unfit = vec!["its own check fails".to_owned()];
        status.members[1].vip_standing = "unable".to_owned();
        status.members[1].unfit = vec!["CAP_NET_ADMIN is missing".to_owned()];
        status.members[2].vip_standing = "without-quorum".to_owned();
        assert!(StatusView::from(status.clone()).problems.is_empty());
        status.counts.as_mut().unwrap().vips = 1;
        assert_eq!(
            StatusView::from(status.clone()).problems,
            [
                "m1 should not hold virtual IPs while another member can: its own check fails",
                "m2 cannot hold virtual IPs: CAP_NET_ADMIN is missing",
                "m3 leads and hears from no quorum: \"trestle vip list\" says what it holds all the same",
            ]
        );
        for member in &mut status.members {
            member.member.as_mut().unwrap().draining = true;
        }
        let problems = StatusView::from(status).problems;
        assert_eq!(
            problems,
            ["m1 should not hold virtual IPs while another member can: its own check fails"]
        );
    }

    #[test]
    fn the_status_says_why_nobody_holds_the_vips() {
        let why = |change: fn(&mut v1::ClusterStatus)| {
            let mut status = sample_status();
            change(&mut status);
            StatusView::from(status).why_none_holds().unwrap()
        };
        assert_eq!(why(|_| {}), "m1 leads, and is following");
        let waiting = |status: &mut v1::ClusterStatus| {
            status.members[0].vip_standing = "waiting-for-old-lease".to_owned();
            status.members[0].unfit = vec!["it is drained".to_owned()];
        };
        assert_eq!(why(waiting), "m1 leads, and is waiting-for-old-lease (it is drained)");
        assert_eq!(why(|status| status.leader.clear()), "no leader is known");
        let gone = |status: &mut v1::ClusterStatus| status.members[0].reachable = false;
        assert_eq!(why(gone), "m1, the last known leader, does not answer");
        let lost = |status: &mut v1::ClusterStatus| {
            status.members.iter_mut().skip(1).for_each(|member| member.reachable = false);
        };
        assert!(why(lost).starts_with("only 1 of 3 voters answer"));
    }
}
