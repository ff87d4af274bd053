//! What the members say of themselves, and what is seen of them by asking: who lags behind, and whose clock differs.

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use trestle_api::{convert, peer, v1};
use trestle_model::{Member, Revision};

use super::Admin;

/// How long a member that lacks a revision of another one is asked again: many times as long as replication takes.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// Time between two such questions.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Admin {
    /// The cluster as its members describe it, or as this one alone does.
    pub(super) async fn cluster_status(&self, local_only: bool) -> v1::ClusterStatus {
        let known = self.local.known();
        if local_only || known.is_empty() {
            let own = self.reports.report(&question()).status.map(convert::member_status);
            let member = Some(self.local.own_record());
            let own = own.map(|status| v1::MemberStatus { member, ..status });
            return self.reports.cluster_status(own.into_iter().collect());
        }
        let first = join_all(known.iter().map(|member| self.look_at(member))).await;
        let newest = first.iter().filter(|status| status.reachable).map(|status| status.revision).max();
        let newest = newest.unwrap_or_default();
        let pairs = known.iter().zip(first);
        let settled = pairs.map(|(member, status)| self.once_caught_up(member, status, newest));
        self.reports.cluster_status(join_all(settled).await)
    }

    /// What a member says of itself, or why it says nothing.
    async fn look_at(&self, member: &Member) -> v1::MemberStatus {
        // What role each has is answered from one view, so that no two claim to lead.
        let record = Some(self.local.rendered(member));
        let (asked, began) = (SystemTime::now(), Instant::now());
        match self.reports.ask(member, &question()).await {
            Ok(report) => {
                let half = began.elapsed() / 2;
                let mut status = convert::member_status(report.status.unwrap_or_default());
                if Some(member.id) != self.local.id() {
                    let theirs = status.time.and_then(|time| SystemTime::try_from(time).ok());
                    status.clock_offset = theirs.map(|theirs| ahead(theirs, asked + half));
                    status.clock_offset_error = theirs.map(|_| convert::duration(half));
                }
                v1::MemberStatus { member: record, ..status }
            }
            Err(error) => {
                let error = error.message().to_owned();
                v1::MemberStatus { member: record, error, ..Default::default() }
            }
        }
    }

    /// The status of a member that has a revision, or the last one in which it lacks it for good.
    async fn once_caught_up(
        &self,
        member: &Member,
        mut status: v1::MemberStatus,
        revision: Revision,
    ) -> v1::MemberStatus {
        let began = Instant::now();
        while status.reachable && status.revision < revision {
            if began.elapsed() >= CATCH_UP_MAX {
                status.behind = true;
                break;
            }
            tokio::time::sleep(ASK_AGAIN).await;
            let again = self.look_at(member).await;
            // One that answered a moment ago and does not now is told as such the next time.
            if again.reachable {
                status = again;
            }
        }
        status
    }
}

fn question() -> peer::ReportRequest {
    peer::ReportRequest { troubles: true, ..Default::default() }
}

/// How far one time is ahead of another.
fn ahead(theirs: SystemTime, ours: SystemTime) -> prost_types::Duration {
    match theirs.duration_since(ours) {
        Ok(ahead) => convert::duration(ahead),
        Err(behind) => {
            let behind = convert::duration(behind.duration());
            prost_types::Duration { seconds: -behind.seconds, nanos: -behind.nanos }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind() {
        let now = SystemTime::now();
        let offset = |millis: i64| prost_types::Duration {
            seconds: millis / 1000,
            nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or_default(),
        };
        let later = now + Duration::from_millis(2_500);
        assert_eq!((ahead(later, now), ahead(now, later)), (offset(2_500), offset(-2_500)));
    }
}
