//! How many clusters are broken at once. A small machine bears two; one that has the default timing is alone, because its members take one
//! another for dead where they wait for a processor.

use std::sync::{Condvar, Mutex, PoisonError};

/// Places on the machine.
const PLACES: usize = 2;

static FREE: Mutex<usize> = Mutex::new(PLACES);
static CHANGED: Condvar = Condvar::new();

/// Places that are taken for as long as this is there.
#[derive(Debug)]
pub(crate) struct Turn(usize);

impl Turn {
    /// Waits for one place, or for all.
    pub(crate) fn wait(alone: bool) -> Self {
        let count = if alone { PLACES } else { 1 };
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = CHANGED.wait_while(free, |free| *free < count).unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        Self(count)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        CHANGED.notify_all();
    }
}
