//! What this process may do.

use rustix::process::{Resource, Rlimit, setrlimit};
use trestle_vip::VipError;

use crate::config::Config;

/// Gives up every capability but the three that virtual IPs and low ports take. To be called before any other thread
/// starts, because rights belong to threads.
///
/// # Errors
/// When the kernel refuses; nothing is worse than before then.
pub fn give_up_rights(config: &Config) -> Result<(), VipError> {
    if config.vip.real_time {
        // Root may allow itself what a service manager allows with LimitRTPRIO; others are told by the lease thread's facts.
        let _ = setrlimit(Resource::Rtprio, Rlimit { current: Some(1), maximum: Some(1) });
    }
    trestle_vip::drop_other_capabilities()
}
