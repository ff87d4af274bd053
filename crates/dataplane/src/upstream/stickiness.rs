//! Stickiness: which client of a pool had which backend, shared by all workers of this member.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trestle_engine::Stickiness;

/// Clients that a pool remembers, about 9 MB when it has seen that many. They are spread over the shards by a hash, so
/// the last few per cent of them may push one another out.
const CLIENTS_MAX: usize = 100_000;

/// Clients that all pools remember together, about 90 MB; each pool has its part.
const ALL_CLIENTS_MAX: usize = 1_000_000;

/// Parts with a lock each, so that workers seldom wait for one another.
const SHARDS: usize = 16;

/// What a shard of a pool's memory has room for when `pools` pools remember; one client at least.
fn room(pools: usize) -> u32 {
    let room = CLIENTS_MAX.min(ALL_CLIENTS_MAX / pools.max(1)) / SHARDS;
    u32::try_from(room).unwrap_or(u32::MAX).max(1)
}

/// The table of clients, which outlives the pool's table entries. It names backends by their generation.
#[derive(Debug)]
pub(crate) struct StickyTable {
    /// The origin of the clock that the engine sees.
    origin: Instant,
    shards: [Mutex<Stickiness>; SHARDS],
}

impl StickyTable {
    /// The memory of one of `pools` pools that remember.
    pub(crate) fn new(pools: usize) -> Self {
        let shard = |_| Mutex::new(Stickiness::new(room(pools)));
        Self { origin: Instant::now(), shards: std::array::from_fn(shard) }
    }

    /// There are `pools` pools that remember now.
    pub(crate) fn share(&self, pools: usize) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).limit(room(pools));
        }
    }

    /// The part of the memory that a client is in, and the time.
    fn shard(&self, client: IpAddr) -> (MutexGuard<'_, Stickiness>, Duration) {
        // The last byte of an address and the one before differ between neighbours; networks differ in the others.
        let fold = |bytes: &[u8]| {
            bytes.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()))
        };
        // Of IPv6 the network only, by which a client is remembered.
        let place = match client.to_canonical() {
            IpAddr::V4(ip) => fold(&ip.octets()),
            IpAddr::V6(ip) => fold(ip.octets().first_chunk::<8>().map_or(&[], |network| network)),
        };
        let [first, ..] = &self.shards;
        let shard = self.shards.get(place % SHARDS).unwrap_or(first);
        (shard.lock().unwrap_or_else(PoisonError::into_inner), self.origin.elapsed())
    }
}

/// A pool's stickiness, as one table entry of the pool uses it.
#[derive(Debug)]
pub(crate) struct PoolStickiness {
    pub(crate) memory: Arc<StickyTable>,
    /// How long a client is remembered.
    pub(crate) keep: Duration,
    /// The positions of backends by generation, in order.
    pub(crate) positions: Vec<(u64, u32)>,
}

impl PoolStickiness {
    /// The position of the backend that a client had last, if it is still there.
    pub(crate) fn find(&self, client: SocketAddr) -> Option<usize> {
        let (shard, now) = self.memory.shard(client.ip());
        let generation = shard.find(client.ip(), self.keep, now)?;
        let found = self.positions.binary_search_by_key(&generation, |(generation, _)| *generation).ok()?;
        self.positions.get(found).map(|(_, position)| *position as usize)
    }

    /// A connection to a backend begins. With `passing`, the client was sent elsewhere because its own backend is full, and
    /// keeps its own.
    pub(crate) fn begin(&self, client: SocketAddr, generation: u64, passing: bool) -> StickyVisit {
        let client = client.ip();
        let (mut shard, now) = self.memory.shard(client);
        if passing {
            shard.touch(client, now)
        } else {
            shard.begin(client, generation, now)
        }
        StickyVisit { memory: self.memory.clone(), client, generation, keep: self.keep }
    }
}

/// A connection of a client that is remembered; the table learns of its end when this is dropped.
#[derive(Debug)]
pub(crate) struct StickyVisit {
    memory: Arc<StickyTable>,
    client: IpAddr,
    generation: u64,
    keep: Duration,
}

impl Drop for StickyVisit {
    fn drop(&mut self) {
        let (mut shard, now) = self.memory.shard(self.client);
        shard.end(self.client, self.generation, self.keep, now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    impl StickyTable {
        /// Clients that are remembered.
        pub(crate) fn len(&self) -> usize {
            self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
        }
    }

    /// Remembers as many clients, each with an address of its own.
    fn fill(memory: &Arc<StickyTable>, clients: u32) {
        let sticky = PoolStickiness {
            memory: memory.clone(),
            keep: Duration::from_secs(3600),
            positions: vec![(1, 0)],
        };
        for client in 0..clients {
            let client = SocketAddr::from((client.to_be_bytes(), 1));
            drop(sticky.begin(client, 1, false));
        }
    }

    #[test]
    fn all_pools_together_remember_no_more_clients_than_the_bound() {
        for pools in (1..=100).chain([1_000, trestle_model::defaults::POOLS_MAX]) {
            let one = room(pools) as usize * SHARDS;
            assert!(one <= CLIENTS_MAX && one * pools <= ALL_CLIENTS_MAX, "{one} in each of {pools}");
        }
        assert_eq!(room(1) as usize * SHARDS, CLIENTS_MAX);
    }

    #[test]
    fn a_pool_forgets_clients_as_others_begin_to_remember() {
        let memory = Arc::new(StickyTable::new(1));
        fill(&memory, 20_000);
        assert_eq!(memory.len(), 20_000);
        memory.share(100);
        assert_eq!(memory.len(), ALL_CLIENTS_MAX / 100);
        fill(&memory, 20_000);
        assert_eq!(memory.len(), ALL_CLIENTS_MAX / 100);
        // Fewer pools leave each more room again.
        memory.share(50);
        fill(&memory, 40_000);
        assert_eq!(memory.len(), ALL_CLIENTS_MAX / 50);
    }
}
