//! What the voters' clocks show: each member asks all of them, so that it knows what to think of its own, and the leader has what a quorum
//! has reached noted in the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use trestle_api::peer;
use trestle_consensus::{ClusterView, DEFAULT_WAIT};
use trestle_model::defaults::{FEATURE_LEVEL_IDENTITIES, TIME_NOTED_EVERY};
use trestle_model::{Command, Member, MemberId, Proposal, agreed_by_quorum, reached_by_quorum};

use crate::peers::{Peers, REPORT_TIMEOUT};
use crate::this_member::ThisMember;

/// How often the clocks are asked for.
const LOOK: Duration = Duration::from_secs(20);
/// The same while no quorum is known to agree, as after a start.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// How long a note in the log may take.
const NOTE_MAX: Duration = Duration::from_secs(10);
/// How long an answer counts. A machine that was asleep takes it for younger than it is, and asks again soon.
const FRESH: Duration = Duration::from_secs(60);

/// What a quorum of the voters' clocks are known to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuorumTime {
    /// Too few have answered, or that was long ago.
    Unheard,
    /// Enough have answered, and show different times.
    Differ,
    /// They agree on this time.
    Agreed(SystemTime),
}

/// What the clocks showed when they were asked last.
#[derive(Debug, Clone, Copy)]
enum Reading {
    Differ,
    Agreed(SystemTime),
    /// This member is the only voter.
    Alone,
}

/// What the voters' clocks show.
#[derive(Debug, Default)]
pub(crate) struct QuorumClock(Mutex<Option<(Instant, Reading)>>);

/// Since the beginning of 1970.
fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl QuorumClock {
    /// What they show now, going by what they showed and the time that has passed since.
    pub(crate) fn time(&self, clock: SystemTime, now: Instant) -> QuorumTime {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((at, reading)) = last.filter(|(at, _)| now.saturating_duration_since(*at) < FRESH) else {
            return QuorumTime::Unheard;
        };
        let passed = now.saturating_duration_since(at);
        match reading {
            Reading::Alone => QuorumTime::Agreed(clock),
            Reading::Differ => QuorumTime::Differ,
            Reading::Agreed(then) => then.checked_add(passed).map_or(QuorumTime::Differ, QuorumTime::Agreed),
        }
    }

    /// Notes what they have answered; too few answers change nothing.
    fn note(&self, clocks: &[Option<Duration>], is_alone: bool, at: Instant) {
        let reading = match (is_alone, reached_by_quorum(clocks), agreed_by_quorum(clocks)) {
            (true, ..) => Reading::Alone,
            (_, _, Some(agreed)) => match SystemTime::UNIX_EPOCH.checked_add(agreed) {
                Some(time) => Reading::Agreed(time),
                None => Reading::Differ,
            },
            (_, Some(_), None) => Reading::Differ,
            (_, None, None) => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, reading));
    }
}

/// Asks the voters for their clocks, and as the leader has the log note the time.
pub(crate) struct ClockFollower {
    pub(crate) local: ThisMember,
    pub(crate) peers: Peers,
}

impl ClockFollower {
    /// Asks again and again, until the stop.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        // The log's time as it was seen last, and since when it is so; long ago where that is not known.
        let mut noted: (u64, Option<Instant>) = (0, None);
        loop {
            let view = self.local.consensus.view().borrow().clone();
            let reached = self.look(&view).await;
            if noted.0 != view.state.time_ms {
                noted = (view.state.time_ms, (noted.0 != 0).then(Instant::now));
            }
            let is_due = noted.1.is_none_or(|at| at.elapsed() >= TIME_NOTED_EVERY);
            if let Some(reached) = reached.filter(|_| is_due && self.local.leads()) {
                self.note_in_log(&view, reached).await;
            }
            let heard = self.local.trust.quorum_time() != QuorumTime::Unheard;
            tokio::select! {
                () = tokio::time::sleep(if heard { LOOK } else { LOOK_SOON }) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The latest time that a quorum of the voters' clocks have reached.
    async fn look(&self, view: &ClusterView) -> Option<Duration> {
        let me = self.local.id()?;
        let read = view.voters.iter().map(|id| async {
            if *id == me {
                return Some(since_epoch(SystemTime::now()));
            }
            self.ask(view.state.members.get(id)?).await
        });
        let clocks = join_all(read).await;
        let is_alone = view.voters.iter().all(|id| *id == me) && !clocks.is_empty();
        self.local.trust.quorum_clock().note(&clocks, is_alone, Instant::now());
        reached_by_quorum(&clocks)
    }

    /// What a member's clock shows.
    async fn ask(&self, member: &Member) -> Option<Duration> {
        let cluster = self.local.consensus.identity()?.cluster_id;
        let mut client = self.peers.client(&member.spec.peer_address).ok()?;
        let asked = client.describe(peer::DescribeRequest {});
        let described = timeout(REPORT_TIMEOUT, asked).await.ok()?.ok()?.into_inner();
        let is_it = described.cluster_id == cluster.as_str() && MemberId(described.member_id) == member.id;
        let time = described.time.filter(|_| is_it)?;
        SystemTime::try_from(time).ok().map(since_epoch)
    }

    async fn note_in_log(&self, view: &ClusterView, reached: Duration) {
        let state = &view.state;
        if state.feature_level < FEATURE_LEVEL_IDENTITIES || state.active_authority().is_none() {
            return;
        }
        let reached = u64::try_from(reached.as_millis()).unwrap_or(u64::MAX).min(state.time_max_ms());
        let gap = u64::try_from(TIME_NOTED_EVERY.as_millis()).unwrap_or(u64::MAX);
        if reached < state.time_ms.saturating_add(gap) {
            return;
        }
        let proposal =
            Proposal { request: None, origin: None, command: Command::NoteTime { time_ms: reached } };
        // The clocks are asked for again, whatever becomes of this.
        let noted = timeout(NOTE_MAX, self.local.consensus.propose_here(proposal, DEFAULT_WAIT)).await;
        match noted {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!("what time it is is not noted in the log yet: {error}"),
            Err(_) => {
                warn!("what time it is is not noted in the log yet: that took longer than {NOTE_MAX:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const YEARS: Duration = Duration::from_secs(3650 * 24 * 3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_agreed_goes_on_with_the_time_that_passes_and_is_forgotten_when_it_is_old() {
        let (quorum, begin) = (QuorumClock::default(), Instant::now());
        let shows = |seconds| quorum.time(at(5), begin + Duration::from_secs(seconds));
        assert_eq!(shows(0), QuorumTime::Unheard);
        let now = Duration::from_secs(1_800_000_000);
        quorum.note(&[Some(now), Some(now + YEARS), Some(now)], false, begin);
        assert_eq!(shows(7), QuorumTime::Agreed(at(1_800_000_007)));
        // A member that is cut off does not go by what it heard before.
        quorum.note(&[Some(now), None, None], false, begin + MINUTE);
        assert_eq!(shows(60), QuorumTime::Unheard);
        quorum.note(&[Some(now), Some(now + YEARS), None], false, begin + MINUTE);
        assert_eq!(shows(61), QuorumTime::Differ);
    }

    #[test]
    fn the_only_voter_agrees_with_its_clock_as_it_is() {
        let (quorum, begin) = (QuorumClock::default(), Instant::now());
        quorum.note(&[Some(YEARS)], true, begin);
        assert_eq!(quorum.time(at(5), begin), QuorumTime::Agreed(at(5)));
    }
}
