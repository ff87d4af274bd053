//! What is told of a pool and its backends.

use trestle_engine::Verdict;
use trestle_model::{AllDown, BackendName, PoolName};

use crate::observe::check_result::CheckResult;
use crate::observe::event::Event;
use crate::table::Table;
use crate::upstream::backend::Backend;
use crate::upstream::pool::Pool;

/// What is told of a backend that gets a verdict, if that is news; `was_told` when the last that was told of it is that its name
/// has no address.
pub(super) fn of_verdict(
    pool: &PoolName,
    backend: &BackendName,
    was: &Backend,
    was_told: bool,
    verdict: Verdict,
    reason: &CheckResult,
) -> Option<Event> {
    let ip = (!was.addresses.is_empty()).then_some(was.ip).flatten();
    // What every backend goes through when it is added is no news.
    let is_first = !was_told && (was.verdict, verdict) == (Verdict::Unknown, Verdict::Healthy);
    let news = was.verdict != verdict && !is_first;
    news.then(|| Event::Verdict {
        pool: pool.clone(),
        backend: backend.clone(),
        verdict,
        reason: reason.at(ip),
    })
}

/// What is told of a pool that may be in another condition; `down` is what was told of it last. Of one that is `awaited`, whose
/// backends have not all been looked up and checked yet, nothing: they may be healthy in a moment.
pub(super) fn of_pool(
    table: &Table,
    pool: &Pool,
    used: bool,
    awaited: bool,
    down: &mut bool,
) -> Option<Event> {
    if awaited {
        return None;
    }
    let condition = table.condition(pool);
    // One that is made before its backends and its listener is no news.
    let is_down = condition.is_down() && (used || condition.unhealthy > 0);
    let was_down = std::mem::replace(down, is_down);
    let name = pool.config.name.clone();
    match (was_down, is_down) {
        (false, true) => {
            let fails_open = pool.config.spec.all_down == AllDown::FailOpen;
            Some(Event::PoolDown { pool: name, condition, used, fails_open })
        }
        // One that is only not used any more has no usable backend either.
        (true, false) if !condition.is_down() => Some(Event::PoolUp { pool: name }),
        _ => None,
    }
}
