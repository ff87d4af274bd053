//! What the status says of the virtual IPs.

use super::StatusView;
use crate::view::grouped;

impl StatusView {
    /// Members that cannot take over, or hold on to what they should hand over. Without virtual IPs there is nothing to
    /// take over, and a member needs no rights for it.
    pub(super) fn vip_problems(&self) -> Vec<String> {
        if self.vips == 0 {
            return Vec::new();
        }
        let mut problems = self.holder_problems();
        let mut unfit = Vec::new();
        for m in self.members.iter().filter(|m| m.reachable) {
            let (name, why) = (&m.name, m.unfit.join("; "));
            // A drain is no trouble, unless nobody takes over.
            if m.draining && self.leader.as_ref() != Some(name) {
                continue;
            }
            match m.vip_standing {
                Some("unable") if why.is_empty() => problems.push(format!("{name} cannot hold virtual IPs")),
                Some("unable") => problems.push(format!("{name} cannot hold virtual IPs: {why}; \"trestle vip list\" shows each")),
                Some("without-quorum") => problems.push(format!(
                    "{name} leads and hears from no quorum: \"trestle vip list\" says what it holds all the same"
                )),
                _ if !why.is_empty() => unfit.push((name.clone(), why)),
                _ => {}
            }
        }
        problems.extend(grouped(unfit).into_iter().map(|(why, names)| {
            let names = names.join(", ");
            format!("{names} should not hold virtual IPs while another member can: {why}; \"trestle vip list\" shows each")
        }));
        problems
    }

    /// Virtual IPs that are not held by exactly one member. One member alone knows nothing of that.
    fn holder_problems(&self) -> Vec<String> {
        let known = if self.of_one { &[][..] } else { &self.vip_names[..] };
        let mut orphans = Vec::new();
        let mut problems = Vec::new();
        for vip in known {
            let holders = self.members.iter().filter(|m| m.held_vips.contains(vip));
            let holders: Vec<&str> = holders.map(|m| m.name.as_str()).collect();
            match holders.as_slice() {
                [_] => {}
                [] => orphans.push(vip.as_str()),
                several => problems.push(format!(
                    "vip {vip} is HELD BY {} AT ONCE: clients may reach any of them; \"trestle vip get {vip}\" shows each",
                    several.join(" AND ")
                )),
            }
        }
        if let [first, ..] = orphans.as_slice() {
            let why = self.why_none_holds().map(|why| format!(" ({why})")).unwrap_or_default();
            let who =
                if self.members.iter().all(|m| m.reachable) { "no member" } else { "no member that answers" };
            problems.push(format!(
                "vip {}: {who} holds it{why}; \"trestle vip get {first}\" shows each member",
                orphans.join(", ")
            ));
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
        let standing = m.vip_standing?;
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
        status.members[1].set_vip_standing(v1::VipStanding::Unable);
        status.members[1].unfit = vec!["CAP_NET_ADMIN is missing".to_owned()];
        status.members[2].set_vip_standing(v1::VipStanding::WithoutQuorum);
        assert!(StatusView::from(status.clone()).problems.is_empty());
        status.counts.as_mut().unwrap().vips = 1;
        assert_eq!(
            StatusView::from(status.clone()).problems,
            [
                "m2 cannot hold virtual IPs: CAP_NET_ADMIN is missing; \"trestle vip list\" shows each",
                "m3 leads and hears from no quorum: \"trestle vip list\" says what it holds all the same",
                "m1 should not hold virtual IPs while another member can: its own check fails; \"trestle vip list\" shows each",
            ]
        );
        for member in &mut status.members {
            member.member.as_mut().unwrap().draining = true;
        }
        let problems = StatusView::from(status).problems;
        assert_eq!(
            problems,
            [
                "m1 should not hold virtual IPs while another member can: its own check fails; \"trestle vip list\" shows each",
                "all members are drained, so none takes new connections: \"trestle member enable m1\" ends that for one",
            ]
        );
    }

    #[test]
    fn a_vip_is_held_by_one_member() {
        let mut status = sample_status();
        status.counts.as_mut().unwrap().vips = 3;
        status.vips = ["vips/api", "vips/db", "vips/web"].map(str::to_owned).to_vec();
        status.members[0].held_vips = vec!["vips/api".to_owned()];
        status.members[1].held_vips = vec!["vips/api".to_owned(), "vips/web".to_owned()];
        assert_eq!(
            StatusView::from(status.clone()).problems,
            [
                "vip api is HELD BY m1 AND m2 AT ONCE: clients may reach any of them; \"trestle vip get api\" shows each",
                "vip db: no member holds it (m1 leads, and is standby); \"trestle vip get db\" shows each member",
            ]
        );
        // Asked alone, a member does not know who holds what.
        status.members.truncate(1);
        let alone = StatusView::new(status, true);
        assert!(
            alone.problems.is_empty()
                && alone.text(None).ends_with("\nno problems, as far as this member knows\n")
        );
    }

    #[test]
    fn the_status_says_why_nobody_holds_the_vips() {
        let why = |change: fn(&mut v1::ClusterStatus)| {
            let mut status = sample_status();
            change(&mut status);
            StatusView::from(status).why_none_holds().unwrap()
        };
        assert_eq!(why(|_| {}), "m1 leads, and is standby");
        let waiting = |status: &mut v1::ClusterStatus| {
            status.members[0].set_vip_standing(v1::VipStanding::WaitingForOldLease);
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
