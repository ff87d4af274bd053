//! What becomes of the connections of a backend that is found down.

/// Where a pool leads its clients now, as far as it matters to connections on a backend that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// To a backend that is healthy.
    Healthy,
    /// To none that is known to be healthy: to nobody, or to those of which nothing is known yet.
    Unproven,
    /// To backends that are down as well, since the pool fails open.
    Down,
}

/// Decides when a backend's connections are closed because it is down, in a pool that closes them then.
///
/// A backend that was good and no longer is keeps them until a client that comes back is led to a healthy one: when the
/// checks of all backends fail, something that all checks need is the likelier cause, and a reset would only add an outage.
/// One that was never found good, by this check and where it is now, has no such claim: clients were led there because
/// nothing was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outage {
    /// Found healthy by the check that it has now, at the address where it is now.
    proven: bool,
    /// Found unhealthy.
    down: bool,
    /// It may have connections that are to be closed.
    owed: bool,
    /// It was not proven when it was found down, and nobody has asked since.
    at_once: bool,
}

impl Outage {
    /// It is asked something else from now on, or at another address, or not at all.
    pub fn renew(&mut self) {
        *self = Self::default();
    }

    /// A check has confirmed or changed its verdict.
    pub fn found(&mut self, healthy: bool) {
        if healthy {
            *self = Self { proven: true, ..Self::default() };
        } else if !self.down {
            *self = Self { down: true, owed: true, at_once: !self.proven, ..*self };
        }
    }

    /// Whether its connections are to be closed now. To be asked after each change of the pool.
    pub fn closes(&mut self, elsewhere: Elsewhere) -> bool {
        let at_once = std::mem::take(&mut self.at_once);
        match elsewhere {
            _ if !self.down => false,
            Elsewhere::Healthy => std::mem::take(&mut self.owed),
            Elsewhere::Unproven if at_once => std::mem::take(&mut self.owed),
            // Those that come until then are led here because there is nothing better, and have to go as well.
            Elsewhere::Unproven | Elsewhere::Down => {
                self.owed = true;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven() -> Outage {
        let mut outage = Outage::default();
        outage.found(true);
        outage
    }

    #[test]
    fn a_backend_that_was_good_keeps_connections_until_another_is() {
        for elsewhere in [Elsewhere::Unproven, Elsewhere::Down] {
            let mut outage = proven();
            assert!(!outage.closes(elsewhere));
            outage.found(false);
            assert!(!outage.closes(elsewhere) && !outage.closes(elsewhere));
            // That it is still down is no news.
            outage.found(false);
            assert!(outage.closes(Elsewhere::Healthy) && !outage.closes(Elsewhere::Healthy));
            // What the pool led there when it failed open once more goes once more.
            assert!(!outage.closes(elsewhere) && outage.closes(Elsewhere::Healthy));
        }
    }

    #[test]
    fn one_that_recovers_keeps_them_for_good() {
        let mut outage = proven();
        outage.found(false);
        assert!(!outage.closes(Elsewhere::Down));
        outage.found(true);
        assert!(!outage.closes(Elsewhere::Healthy));
        outage.found(false);
        assert!(outage.closes(Elsewhere::Healthy));
    }

    #[test]
    fn one_that_was_never_good_keeps_none() {
        for asked_anew in [false, true] {
            let mut outage = if asked_anew { proven() } else { Outage::default() };
            outage.renew();
            assert!(!outage.closes(Elsewhere::Unproven));
            outage.found(false);
            assert!(outage.closes(Elsewhere::Unproven) && !outage.closes(Elsewhere::Unproven));
        }
    }

    #[test]
    fn none_is_closed_that_would_be_led_back() {
        let mut outage = Outage::default();
        outage.found(false);
        assert!(!outage.closes(Elsewhere::Down) && !outage.closes(Elsewhere::Unproven));
        assert!(outage.closes(Elsewhere::Healthy));
    }
}
