//! How fast a listener takes connections: clients that come too fast wait, each for a time of its own.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use trestle_engine::rate::{Bucket, Rate};

/// A listener takes the connections of this part of a second at once after a pause. Clients that come too fast only wait, so a
/// short burst will do; with a burst of a whole second, the first second would take twice the rate.
const BURST: u32 = 10;

fn rate(per_second: u32) -> Rate {
    Rate { per_second, burst: (per_second / BURST).max(1) }
}

/// Shared by all accept loops of a listener. A rate of 0 is none and is not asked for here.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// The origin of the clock that the engine sees.
    origin: Instant,
    /// `None` until there is a rate.
    bucket: Mutex<Option<Bucket>>,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self { origin: Instant::now(), bucket: Mutex::default() }
    }
}

/// Leave for one connection. It goes back when this is dropped and was not spent.
#[derive(Debug)]
pub(super) struct Token<'a> {
    limiter: &'a RateLimiter,
    per_second: u32,
}

impl Token<'_> {
    /// The connection was taken.
    pub(super) fn spend(self) {
        mem::forget(self);
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        if let Some(bucket) = &mut *self.limiter.bucket() {
            bucket.give_back(rate(self.per_second));
        }
    }
}

impl RateLimiter {
    fn bucket(&self) -> MutexGuard<'_, Option<Bucket>> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, per_second: u32, ask: impl FnOnce(&mut Bucket, Rate, Duration) -> T) -> T {
        let (rate, now) = (rate(per_second), self.origin.elapsed());
        let mut bucket = self.bucket();
        ask(bucket.get_or_insert_with(|| Bucket::new(rate, now)), rate, now)
    }

    /// Leave for a connection that comes now, unless it comes too fast.
    pub(super) fn take(&self, per_second: u32) -> Option<Token<'_>> {
        self.with(per_second, Bucket::take).then(|| Token { limiter: self, per_second })
    }

    /// Waits for leave, behind all who wait already.
    pub(super) async fn reserve(&self, per_second: u32) -> Token<'_> {
        let wait = self.with(per_second, Bucket::reserve);
        let token = Token { limiter: self, per_second };
        // `None` only for a rate that lets nobody in.
        sleep(wait.unwrap_or_default()).await;
        token
    }
}
