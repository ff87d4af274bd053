//! When the connections of a backend are closed.

use std::time::Duration;

use trestle_model::AdminState;

use crate::spread;

/// Why a backend's connections are closed by this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The backend was removed, by itself or with its pool.
    Removed,
    /// The backend was disabled.
    Disabled,
    /// The backend was drained and its deadline has passed.
    Drained,
}

/// What happens to the connections that a backend has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseSchedule {
    /// They go on.
    Never,
    /// Each of those that are left is closed at a moment of its own between these two, on the clock that was passed in; at the
    /// second one none is left.
    Between(Duration, Duration),
    /// They are closed now.
    Now(CloseCause),
}

/// Follows what the operator wants of one backend, and remembers since when this member knows of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainState {
    draining_since: Option<Duration>,
}

impl DrainState {
    /// Takes note of what the operator wants at `now`, on a monotonic clock.
    ///
    /// The deadline of a drain counts from the first time that this member learned of it: a repeated drain with
    /// another deadline moves the end, not the beginning. A deadline that has passed closes now, as often as asked. Ends are
    /// spread over the last `spread_percent` of the time.
    pub fn learn(&mut self, wanted: AdminState, spread_percent: u32, now: Duration) -> CloseSchedule {
        match wanted {
            AdminState::Enabled => {
                self.draining_since = None;
                CloseSchedule::Never
            }
            AdminState::Disabled => {
                self.draining_since = None;
                CloseSchedule::Now(CloseCause::Disabled)
            }
            AdminState::Draining { timeout } => {
                let since = *self.draining_since.get_or_insert(now);
                let Some(timeout) = timeout else { return CloseSchedule::Never };
                let deadline = since.saturating_add(timeout);
                if deadline <= now {
                    return CloseSchedule::Now(CloseCause::Drained);
                }
                CloseSchedule::Between(deadline - spread::last_part(timeout, spread_percent), deadline)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn drain(secs: Option<u64>) -> AdminState {
        AdminState::Draining { timeout: secs.map(at) }
    }

    #[test]
    fn a_drain_without_a_deadline_closes_nothing() {
        assert_eq!(DrainState::default().learn(drain(None), 10, at(5)), CloseSchedule::Never);
    }

    #[test]
    fn a_deadline_counts_from_the_first_notice() {
        let mut drain_state = DrainState::default();
        assert_eq!(drain_state.learn(drain(Some(10)), 10, at(5)), CloseSchedule::Between(at(14), at(15)));
        assert_eq!(drain_state.learn(drain(Some(20)), 10, at(9)), CloseSchedule::Between(at(23), at(25)));
        assert_eq!(drain_state.learn(drain(Some(3)), 10, at(9)), CloseSchedule::Now(CloseCause::Drained));
    }

    #[test]
    fn ends_are_spread_over_the_last_part_as_long_as_the_deadline_has_not_come() {
        let mut drain_state = DrainState::default();
        assert_eq!(drain_state.learn(drain(Some(10)), 0, at(5)), CloseSchedule::Between(at(15), at(15)));
        assert_eq!(drain_state.learn(drain(Some(10)), 50, at(14)), CloseSchedule::Between(at(10), at(15)));
        assert_eq!(drain_state.learn(drain(Some(10)), 50, at(15)), CloseSchedule::Now(CloseCause::Drained));
    }

    #[test]
    fn enabling_forgets_the_drain() {
        let mut drain_state = DrainState::default();
        drain_state.learn(drain(Some(10)), 10, at(5));
        assert_eq!(drain_state.learn(AdminState::Enabled, 10, at(6)), CloseSchedule::Never);
        assert_eq!(drain_state.learn(drain(Some(10)), 10, at(20)), CloseSchedule::Between(at(29), at(30)));
    }

    #[test]
    fn disabling_closes_now() {
        let mut drain_state = DrainState::default();
        let closing = drain_state.learn(AdminState::Disabled, 10, at(1));
        assert_eq!(closing, CloseSchedule::Now(CloseCause::Disabled));
    }
}
