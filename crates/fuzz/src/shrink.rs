//! Makes an input that fails smaller.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Attempts at a smaller input.
const ATTEMPTS_MAX: usize = 2000;

thread_local! {
    /// What panics on this thread is an attempt, and nobody wants to read of it.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics of attempts are not printed; those of other threads are.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
}

/// Leaves out parts of `input`, and puts zeros in place of bytes, as long as `check` panics.
pub(crate) fn shrink<Outcome>(input: &[u8], check: impl Fn(&[u8]) -> Outcome) -> Vec<u8> {
    install();
    QUIET.set(true);
    let fails = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| check(input))).is_err();
    let mut best = input.to_vec();
    let mut attempts = 0;
    let mut size = best.len().next_power_of_two();
    while size > 0 && attempts < ATTEMPTS_MAX {
        let mut at = 0;
        while at < best.len() && attempts < ATTEMPTS_MAX {
            let end = (at + size).min(best.len());
            let without = [&best[..at], &best[end..]].concat();
            attempts += 1;
            if fails(&without) {
                best = without;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    for at in 0..best.len().min(ATTEMPTS_MAX) {
        let before = std::mem::take(&mut best[at]);
        if before != 0 && !fails(&best) {
            best[at] = before;
        }
    }
    QUIET.set(false);
    best
}
