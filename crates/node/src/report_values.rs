//! Values of the data plane as reports have them.

use trestle_api::peer;
use trestle_dataplane::Verdict;

/// A number of things; one that is too large for a message is as good as the largest.
pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// What checks found.
pub(crate) fn verdict(verdict: Verdict) -> peer::Verdict {
    match verdict {
        Verdict::Unknown => peer::Verdict::Unknown,
        Verdict::Healthy => peer::Verdict::Healthy,
        Verdict::Unhealthy => peer::Verdict::Unhealthy,
    }
}
