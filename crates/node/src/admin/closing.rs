//! Closing connections: all that are meant at once, or a share of them, or at a rate.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tonic::Status;
use trestle_api::convert::{self, CloseRequest, Closing, ConnectionFilter};
use trestle_api::{peer, status, v1};
use trestle_model::{Invalid, Member, Violation, defaults};

use super::Admin;
use super::connections::in_time;

/// Time between two messages of progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// Least time between two batches.
const STEP: Duration = Duration::from_millis(50);

pub(super) type Stream =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::CloseConnectionsGraduallyResponse, Status>> + Send>>;

/// Connections that are to be closed.
struct ClosePlan {
    /// The members that have them, in the order of their ids.
    members: Vec<Arc<Member>>,
    /// A place among the members and a number on that one, for each connection; in random order.
    connections: Vec<(usize, u64)>,
    /// Members that did not say what they have.
    unreachable: Vec<String>,
}

/// How many of `count` connections a share is: rounded up, so that a share of something is never nothing.
fn share(count: usize, percent: u32) -> usize {
    (count as u64).saturating_mul(percent.into()).div_ceil(100) as usize
}

impl Admin {
    /// The members that have what is to be closed, in the order of their ids.
    fn target_members(&self, closing: &Closing) -> Result<Vec<Arc<Member>>, Status> {
        match closing {
            Closing::Matching(filter) => self.selected_members(filter.member.as_ref()),
            Closing::Named(named) => {
                let mut members = Vec::new();
                for name in named.keys() {
                    members.extend(self.selected_members(Some(name))?);
                }
                members.sort_by_key(|member| member.id);
                Ok(members)
            }
        }
    }

    /// Closes, at one member, what a filter matches, or without one what has these numbers.
    async fn close_at(
        &self,
        member: &Member,
        filter: Option<&ConnectionFilter>,
        numbers: Vec<u64>,
        validate_only: bool,
    ) -> Result<peer::CloseConnectionsResponse, Status> {
        if Some(member.id) == self.local.id() {
            return Ok(self.connections.close(filter, &numbers, validate_only));
        }
        let ask = peer::CloseConnectionsRequest {
            to: self.local.destination(Some(member.id)),
            filter: filter.map(Into::into),
            numbers,
            validate_only,
        };
        let mut client = self.peers.client(&member.spec.peer_address)?;
        in_time(client.close_connections(ask)).await
    }

    /// Asks one member to close what is meant there.
    async fn close_meant(
        &self,
        member: &Member,
        closing: &Closing,
        validate_only: bool,
    ) -> Result<peer::CloseConnectionsResponse, Status> {
        let (filter, numbers) = match closing {
            Closing::Matching(filter) => (Some(&**filter), Vec::new()),
            Closing::Named(members) => (None, members.get(&member.spec.name).cloned().unwrap_or_default()),
        };
        self.close_at(member, filter, numbers, validate_only).await
    }

    /// Draws what is to be closed from what is open now.
    async fn choose(&self, request: &CloseRequest) -> Result<ClosePlan, Status> {
        let members = self.target_members(&request.closing)?;
        let asked = members.iter().map(|member| self.close_meant(member, &request.closing, true));
        let mut plan = ClosePlan { members: Vec::new(), connections: Vec::new(), unreachable: Vec::new() };
        for (member, answer) in members.iter().zip(join_all(asked).await) {
            match answer {
                // A member of a version that names no numbers has closed nothing, and will not.
                Ok(answer) if answer.numbers.len() as u64 == answer.count => {
                    let place = plan.members.len();
                    plan.connections.extend(answer.numbers.into_iter().map(|number| (place, number)));
                    plan.members.push(member.clone());
                }
                Ok(_) | Err(_) => plan.unreachable.push(convert::member_name(&member.spec.name)),
            }
        }
        if plan.connections.is_empty() {
            self.refuse_unmatched(&request.closing).await?;
        }
        // Hashes under a key that is drawn anew each time are in random order.
        let key = RandomState::new();
        plan.connections.sort_by_cached_key(|connection| key.hash_one(connection));
        plan.connections.truncate(share(plan.connections.len(), request.share_percent));
        Ok(plan)
    }

    /// Closes what is meant, or says how many it would be.
    pub(super) async fn close(&self, request: &CloseRequest) -> Result<v1::CloseConnectionsResponse, Status> {
        if request.share_percent < 100 {
            let mut plan = self.choose(request).await?;
            let mut counts = vec![0; plan.members.len()];
            if request.validate_only {
                for (place, _) in &plan.connections {
                    counts.get_mut(*place).into_iter().for_each(|count| *count += 1);
                }
            } else {
                let count = plan.connections.len();
                self.close_next(&mut plan, count, &mut counts).await;
            }
            let members = counted(&plan.members, &counts);
            return Ok(v1::CloseConnectionsResponse { members, unreachable_members: plan.unreachable });
        }
        let members = self.target_members(&request.closing)?;
        let asked =
            members.iter().map(|member| self.close_meant(member, &request.closing, request.validate_only));
        let mut answer = v1::CloseConnectionsResponse::default();
        for (member, closed) in members.iter().zip(join_all(asked).await) {
            let member = convert::member_name(&member.spec.name);
            match closed {
                Ok(closed) => answer.members.push(v1::ClosedConnections { member, count: closed.count }),
                Err(_) => answer.unreachable_members.push(member),
            }
        }
        if answer.members.iter().all(|closed| closed.count == 0) {
            self.refuse_unmatched(&request.closing).await?;
        }
        Ok(answer)
    }

    /// Refuses what has matched nothing because it names what does not exist.
    async fn refuse_unmatched(&self, closing: &Closing) -> Result<(), Status> {
        match closing {
            Closing::Matching(filter) => self.refuse_unknown(filter).await,
            // A connection that is named may have ended in the meantime.
            Closing::Named(_) => Ok(()),
        }
    }

    /// Closes the next of what was chosen, and adds up how many that were on each member. One that does not answer is left
    /// alone from then on.
    async fn close_next(&self, plan: &mut ClosePlan, count: usize, closed: &mut [u64]) {
        let mut batch: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let rest = plan.connections.len().saturating_sub(count);
        for (place, number) in plan.connections.drain(rest..) {
            batch.entry(place).or_default().push(number);
        }
        let asked = batch.into_iter().filter_map(|(place, numbers)| {
            let member = plan.members.get(place)?;
            Some(async move { (place, self.close_at(member, None, numbers, false).await) })
        });
        for (place, answer) in join_all(asked).await {
            match (answer, closed.get_mut(place), plan.members.get(place)) {
                (Ok(answer), Some(sum), _) => *sum += answer.count,
                (Err(_), _, Some(member)) => {
                    plan.unreachable.push(convert::member_name(&member.spec.name));
                    plan.connections.retain(|(at, _)| *at != place);
                }
                (_, None, _) | (Err(_), _, None) => {}
            }
        }
    }

    /// Closes what is meant at a rate, for as long as the answer is read.
    pub(super) async fn close_gradually(&self, request: &CloseRequest, rate: f64) -> Result<Stream, Status> {
        let plan = self.choose(request).await?;
        let count = plan.connections.len();
        let least = count as f64 / defaults::CLOSE_TIME_MAX.as_secs_f64();
        if rate < least {
            let most = defaults::CLOSE_TIME_MAX.as_secs() / 60;
            let rule = format!(
                "must be at least {:.2} a second for {count} connections, so that closing them takes {most} minutes at most; or take a smaller share",
                // Rounded up, so that what is advised is taken.
                (least * 100.0).ceil() / 100.0
            );
            return Err(status::invalid(&Invalid(vec![Violation::new("rate", rate, rule)])));
        }
        let closed = vec![0; plan.members.len()];
        let begun = GradualClose {
            admin: self.clone(),
            plan,
            closed,
            allowance: CloseRate::new(rate, Instant::now()),
            done: false,
        };
        Ok(Box::pin(futures_util::stream::unfold(begun, GradualClose::next)))
    }
}

fn counted(members: &[Arc<Member>], counts: &[u64]) -> Vec<v1::ClosedConnections> {
    let count = |(member, count): (&Arc<Member>, &u64)| v1::ClosedConnections {
        member: convert::member_name(&member.spec.name),
        count: *count,
    };
    members.iter().zip(counts).map(count).collect()
}

/// How many may be closed by now.
#[derive(Debug)]
struct CloseRate {
    /// Connections a second.
    rate: f64,
    /// Those that may be closed, parts of one included; what a slow member held up is not made up for.
    credit: f64,
    since: Instant,
}

impl CloseRate {
    /// The first may be closed at once.
    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, credit: 1.0, since: now }
    }

    /// Takes what may be closed at `now`.
    fn take(&mut self, now: Instant) -> usize {
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * self.rate;
        self.since = now;
        let most = (2.0 * self.rate * STEP.as_secs_f64()).max(1.0);
        self.credit = (self.credit + earned).min(most);
        let whole = self.credit.floor();
        self.credit -= whole;
        whole as usize
    }

    /// How long it takes from the last time until more may be closed.
    fn pause(&self) -> Duration {
        Duration::from_secs_f64((1.0 - self.credit) / self.rate).max(STEP)
    }
}

/// Connections that are being closed at a rate. Nobody closes any further once this is dropped.
struct GradualClose {
    admin: Admin,
    plan: ClosePlan,
    closed: Vec<u64>,
    allowance: CloseRate,
    done: bool,
}

impl GradualClose {
    /// Goes on until there is progress to tell.
    async fn next(mut self) -> Option<(Result<v1::CloseConnectionsGraduallyResponse, Status>, Self)> {
        if self.done {
            return None;
        }
        let tell = Instant::now() + PROGRESS;
        loop {
            let count = self.allowance.take(Instant::now());
            self.admin.close_next(&mut self.plan, count, &mut self.closed).await;
            let left = self.plan.connections.len();
            let pause = self.allowance.pause();
            let now = Instant::now();
            self.done = left == 0;
            if self.done || now >= tell {
                break;
            }
            sleep(pause.min(tell - now)).await;
        }
        let progress = v1::CloseConnectionsGraduallyResponse {
            members: counted(&self.plan.members, &self.closed),
            remaining: self.plan.connections.len() as u64,
            unreachable_members: self.plan.unreachable.clone(),
        };
        Some((Ok(progress), self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up() {
        assert_eq!([0, 1, 3, 5, 300].map(|count| share(count, 20)), [0, 1, 1, 1, 60]);
        assert_eq!([0, 1, 300].map(|count| share(count, 100)), [0, 1, 300]);
    }

    /// How many are closed in each second, if each pause is as long as it should be, or `late`.
    fn seconds(rate: f64, late: Duration) -> Vec<usize> {
        let begin = Instant::now();
        let (mut allowance, mut now, mut counts) = (CloseRate::new(rate, begin), begin, vec![0; 11]);
        while now - begin < Duration::from_secs(10) {
            counts[(now - begin).as_secs() as usize] += allowance.take(now);
            now += allowance.pause() + late;
        }
        counts.truncate(10);
        counts
    }

    #[test]
    fn a_rate_is_kept_and_never_exceeded() {
        for (rate, expected) in [(1.0, 1), (7.0, 7), (50.0, 50), (10_000.0, 10_000)] {
            for (second, count) in seconds(rate, Duration::ZERO).into_iter().enumerate() {
                // A batch may fall into the second before or after.
                let batch = expected / 10 + 1;
                let range = expected - batch..=expected + batch;
                assert!(range.contains(&count), "{rate} a second: {count} in second {second}");
            }
        }
        let slow: usize = seconds(0.25, Duration::ZERO).iter().sum();
        assert!((2..=3).contains(&slow), "{slow}");
    }

    #[test]
    fn what_was_held_up_is_not_made_up_for() {
        let held_up = seconds(100.0, Duration::from_millis(500));
        assert!(held_up.iter().all(|count| *count <= 20), "{held_up:?}");
    }
}
