//! Connections of single addresses, for as many addresses as there is room for.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trestle_engine::rate::{Bucket, Rate};
use trestle_engine::share::{client_of, may_take};
use trestle_model::ListenerSpec;

use crate::accept::client_counts::WEIGHT;

/// Addresses that are known at a time, about 10 MB when there are that many. When all places are taken, the address gives
/// way that has had no connection for longest; while all have some, a new one is admitted and not counted: what a bound
/// for each address can do is over then.
const CLIENTS_MAX: usize = 65_536;

/// Parts with a lock each, so that workers seldom wait for one another.
const SHARDS: usize = 16;

/// An address that is known.
#[derive(Debug, Default)]
struct KnownSource {
    active: u32,
    /// `None` while there is no rate.
    bucket: Option<Bucket>,
    /// Its place among those without connections, if it has none.
    idle: Option<u64>,
}

#[derive(Debug, Default)]
struct Shard {
    source_permits: HashMap<IpAddr, KnownSource>,
    /// Addresses without connections, the one first that has had none for longest.
    idle: BTreeMap<u64, IpAddr>,
    /// Counts up.
    last: u64,
}

impl Shard {
    /// Makes room for one more address, if it can.
    fn make_room(&mut self) -> bool {
        if self.source_permits.len() < CLIENTS_MAX / SHARDS {
            return true;
        }
        self.idle.pop_first().and_then(|(_, ip)| self.source_permits.remove(&ip)).is_some()
    }

    /// Forgets addresses that are as if they had never come: two at most, so that as many go as come, and soon more.
    fn forget(&mut self, rate: Rate, now: Duration) {
        for _ in 0..2 {
            let Some(oldest) = self.idle.first_entry() else { return };
            let bucket = self.source_permits.get(oldest.get()).and_then(|client| client.bucket.as_ref());
            if bucket.is_some_and(|bucket| !bucket.is_full(rate, now)) {
                return;
            }
            self.source_permits.remove(&oldest.remove());
        }
    }

    fn release(&mut self, ip: IpAddr) {
        let Some(client) = self.source_permits.get_mut(&ip) else { return };
        client.active = client.active.saturating_sub(1);
        if client.active > 0 {
            return;
        }
        if client.bucket.is_none() {
            self.source_permits.remove(&ip);
            return;
        }
        self.last += 1;
        client.idle = Some(self.last);
        self.idle.insert(self.last, ip);
    }
}

/// The addresses that have, or had, connections through one listener.
#[derive(Debug)]
pub(super) struct SourcePermits {
    /// The origin of the clock that the engine sees.
    origin: Instant,
    /// Random, so that nobody can choose addresses of one shard.
    hash: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Default for SourcePermits {
    fn default() -> Self {
        Self { origin: Instant::now(), hash: RandomState::new(), shards: Default::default() }
    }
}

/// An address has all the connections that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceLimitReached;

/// A connection of an address; over when this is dropped.
#[derive(Debug)]
pub(crate) struct SourcePermit {
    source_permits: Arc<SourcePermits>,
    ip: IpAddr,
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        self.source_permits.shard(self.ip).release(self.ip);
    }
}

impl SourcePermits {
    fn shard(&self, ip: IpAddr) -> MutexGuard<'_, Shard> {
        let [first, ..] = &self.shards;
        let place = self.hash.hash_one(ip) as usize % SHARDS;
        self.shards.get(place).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection from `ip`, if there is room to count it.
    pub(super) fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        spec: &ListenerSpec,
        free: usize,
    ) -> Result<Option<SourcePermit>, SourceLimitReached> {
        let ip = client_of(ip);
        let (per_second, max) = (spec.accept_rate_per_source, spec.max_connections_per_source);
        // A second's connections at once: clients that come too fast are refused, and browsers open several together.
        let rate = Rate { per_second, burst: per_second };
        let mut shard = self.shard(ip);
        let now = self.origin.elapsed();
        shard.forget(rate, now);
        if !shard.source_permits.contains_key(&ip) && !shard.make_room() {
            return Ok(None);
        }
        let client = shard.source_permits.entry(ip).or_default();
        if max != 0 && client.active >= max {
            return Err(SourceLimitReached);
        }
        if spec.max_connections != 0 && !may_take(client.active as usize, free, WEIGHT) {
            return Err(SourceLimitReached);
        }
        if per_second == 0 {
            client.bucket = None;
        } else if !client.bucket.get_or_insert_with(|| Bucket::new(rate, now)).take(rate, now) {
            return Err(SourceLimitReached);
        }
        client.active += 1;
        if let Some(place) = client.idle.take() {
            shard.idle.remove(&place);
        }
        Ok(Some(SourcePermit { source_permits: self.clone(), ip }))
    }

    /// Addresses that are known now.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).source_permits.len())
            .sum()
    }
}
