//! Random numbers for balancing: cheap, and nothing that must not be guessed.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A number of 64 random bits. Each thread has a generator of its own (xorshift64*, Vigna 2016), seeded from the
/// operating system by way of the standard library's hasher.
pub(crate) fn random() -> u64 {
    thread_local! {
        // An odd number is never 0, the one state that the generator does not leave.
        static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
    }
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}
