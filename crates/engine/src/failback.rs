//! What becomes of the connections of backups when a primary, a backend that is no backup, is usable again.

use trestle_model::OnPrimaryUp;

/// Decides when a backend's connections are closed because it is a backup and a primary is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failback {
    /// It may have connections from when it was no backup, from when no primary was usable, or from when the pool kept them.
    owed: bool,
}

impl Failback {
    /// Whether its connections are to be closed now. To be asked after each change of the pool.
    pub fn closes(&mut self, is_backup: bool, primary_is_usable: bool, policy: OnPrimaryUp) -> bool {
        if !is_backup || !primary_is_usable || policy == OnPrimaryUp::Keep {
            self.owed = true;
            return false;
        }
        std::mem::take(&mut self.owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_got_while_no_primary_was_usable_is_closed_once() {
        let mut failback = Failback::default();
        assert!(!failback.closes(true, true, OnPrimaryUp::Close), "it had no connections");
        for _ in 0..2 {
            assert!(!failback.closes(true, false, OnPrimaryUp::Close));
            assert!(failback.closes(true, true, OnPrimaryUp::Close));
            assert!(!failback.closes(true, true, OnPrimaryUp::Close));
        }
    }

    #[test]
    fn a_primary_that_becomes_a_backup_is_left_too() {
        let mut failback = Failback::default();
        assert!(!failback.closes(false, true, OnPrimaryUp::Close));
        assert!(failback.closes(true, true, OnPrimaryUp::Close));
    }

    #[test]
    fn what_was_kept_is_closed_when_the_policy_changes() {
        let mut failback = Failback::default();
        // Beside a primary too: who is refused by that one comes here.
        assert!(!failback.closes(true, true, OnPrimaryUp::Keep));
        assert!(failback.closes(true, true, OnPrimaryUp::Close));
    }
}
