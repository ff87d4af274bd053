//! Which edges of the code were taken, as the compiler counts them (LLVM's SanitizerCoverage, inline 8-bit counters), in a
//! program that was built so. In others there are no counters, and nothing here does anything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where counters begin, and how many there are.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each part of an instrumented program before its main function, with the counters of the whole program.
#[expect(unsafe_code, reason = "the name by which instrumented code calls it")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let found = (start.addr(), stop.addr().saturating_sub(start.addr()));
    start.expose_provenance();
    let mut counters = COUNTERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !counters.contains(&found) {
        counters.push(found);
    }
}

/// Calls `each` for every counter with its number.
#[expect(unsafe_code, reason = "the counters belong to no object that Rust knows")]
fn visit(mut each: impl FnMut(usize, &AtomicU8)) {
    let counters = COUNTERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut number = 0;
    for (start, len) in counters.iter() {
        for at in 0..*len {
            let counter = std::ptr::with_exposed_provenance_mut::<u8>(start + at);
            // SAFETY: the linker laid out `len` bytes from `start`, which live as long as the program; instrumented code
            // writes them without a lock, so they are only ever used as atomic here.
            each(number, unsafe { AtomicU8::from_ptr(counter) });
            number += 1;
        }
    }
}

/// Begins to count anew.
pub(crate) fn reset() {
    visit(|_, counter| counter.store(0, Ordering::Relaxed));
}

/// Edges seen so far, each by how often it was taken at once: 1, 2, 3, up to 7, 15, 31, 127, and more.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<u8>);

impl Seen {
    /// Notes what was counted since the last reset; whether there was anything new.
    pub(crate) fn note(&mut self) -> bool {
        let mut new = false;
        visit(|number, counter| {
            let step = match counter.load(Ordering::Relaxed) {
                0 => return,
                1 => 1,
                2 => 2,
                3 => 4,
                4..=7 => 8,
                8..=15 => 16,
                16..=31 => 32,
                32..=127 => 64,
                _ => 128_u8,
            };
            if self.0.len() <= number {
                self.0.resize(number + 1, 0);
            }
            new |= self.0[number] & step == 0;
            self.0[number] |= step;
        });
        new
    }

    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(|steps| steps.count_ones() as usize).sum()
    }
}
