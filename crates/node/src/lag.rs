//! How long the data plane has lacked a revision that this member knows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use trestle_consensus::Consensus;
use trestle_dataplane::DataPlane;
use trestle_model::Revision;

/// The oldest revision that was known when the data plane lacked it, and since when.
#[derive(Debug, Default)]
pub(crate) struct Lag(Mutex<Option<(Revision, Instant)>>);

impl Lag {
    fn oldest(&self) -> MutexGuard<'_, Option<(Revision, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, known: Revision, in_force: Revision, now: Instant) {
        let mut oldest = self.oldest();
        *oldest = match *oldest {
            // Others may have come since: a member that is always busy with the newest one lags behind none for long.
            Some((revision, since)) if in_force < revision => Some((revision, since)),
            _ => (in_force < known).then_some((known, now)),
        };
    }

    /// For how long a revision has been lacking; `None` while none is.
    pub(crate) fn lasts(&self, now: Instant) -> Option<Duration> {
        self.oldest().map(|(_, since)| now.saturating_duration_since(since))
    }
}

/// Looks whenever something changes, until the member stops.
pub(crate) async fn follow(
    lag: Arc<Lag>,
    consensus: Consensus,
    plane: Arc<DataPlane>,
    stop: CancellationToken,
) {
    let (mut view, mut in_force) = (consensus.view(), plane.in_force());
    loop {
        let known = view.borrow_and_update().state.revision;
        let reached = *in_force.borrow_and_update();
        lag.look(known, reached, Instant::now());
        let goes_on = tokio::select! {
            changed = view.changed() => changed.is_ok(),
            changed = in_force.changed() => changed.is_ok(),
            () = stop.cancelled() => false,
        };
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_as_old_as_the_oldest_revision_that_is_missing() {
        let (lag, start) = (Lag::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        lag.look(7, 7, at(0));
        assert_eq!(lag.lasts(at(1)), None);
        lag.look(8, 7, at(1));
        lag.look(9, 7, at(3));
        assert_eq!(lag.lasts(at(4)), Some(Duration::from_secs(3)));
        // That one is there now, and the next one is missing.
        lag.look(9, 8, at(5));
        assert_eq!(lag.lasts(at(6)), Some(Duration::from_secs(1)));
        lag.look(9, 9, at(7));
        assert_eq!(lag.lasts(at(8)), None);
    }
}
