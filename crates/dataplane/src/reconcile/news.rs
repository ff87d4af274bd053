//! What is told of a pool and its backends.

use trestle_engine::Verdict;
use trestle_model::{AdminState, AllDown, BackendName, PoolName};

use crate::observe::check_result::CheckResult;
use crate::observe::event::Event;
use crate::upstream::backend::Backend;
use crate::upstream::pool::Pool;

/// What is told of a backend that gets a verdict, if that is news.
pub(super) fn of_verdict(
    pool: &PoolName,
    backend: &BackendName,
    was: &Backend,
    verdict: Verdict,
    reason: &CheckResult,
) -> Option<Event> {
    let ip = (!was.addresses.is_empty()).then_some(was.ip).flatten();
    // What every backend goes through when it is added is no news.
    let is_first = (was.verdict, verdict) == (Verdict::Unknown, Verdict::Healthy);
    let news = was.verdict != verdict && !is_first;
    news.then(|| Event::Verdict {
        pool: pool.clone(),
        backend: backend.clone(),
        verdict,
        reason: reason.at(ip),
    })
}

/// What is told of a pool whose entry is `pool` now; `down` is what was told of it last.
pub(super) fn of_pool(pool: &Pool, down: &mut bool) -> Option<Event> {
    let in_use = || pool.backends.iter().filter(|backend| backend.config.admin_state == AdminState::Enabled);
    let unhealthy = in_use().filter(|backend| backend.verdict == Verdict::Unhealthy).count();
    // One that has not been checked yet may be found healthy in a moment.
    let is_awaited = in_use().any(|backend| backend.reason == CheckResult::Awaited);
    let in_use = in_use().count();
    let all = unhealthy > 0 && unhealthy == in_use;
    let is_down = unhealthy > 0 && !is_awaited && (all || !pool.is_usable());
    let was_down = std::mem::replace(down, is_down);
    let name = pool.config.name.clone();
    match (was_down, is_down) {
        (false, true) => {
            let fails_open = pool.config.spec.all_down == AllDown::FailOpen;
            Some(Event::PoolDown { pool: name, unhealthy, in_use, fails_open })
        }
        // A pool whose backends were all taken out of use is neither.
        (true, false) if pool.is_usable() => Some(Event::PoolUp { pool: name }),
        _ => None,
    }
}
