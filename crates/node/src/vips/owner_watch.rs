//! A leader whose owner hangs gives leadership away.
//!
//! Nobody extends the leases of what such a member holds, so its kernel drops them in time. But while it leads, no other member may
//! serve. The successor waits for the old lease, because no release is committed. An owner that goes on in the meantime notices, as it
//! does after its whole process was stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;
use trestle_consensus::Consensus;

use super::shared::Shared;
use super::succession::Succession;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Time to the next attempt at giving leadership away.
const AGAIN: Duration = Duration::from_secs(1);

/// Watches the owner for ever.
pub(super) async fn watch(consensus: Consensus, shared: Arc<Shared>, succession: Succession) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        shared.look_at_owner();
        let leads = consensus.leadership().borrow().leads.is_some_and(|leads| !leads.transferring);
        let serves = !consensus.view().borrow().state.vips.is_empty();
        if let Some(silence) = shared.owner_hangs().filter(|_| leads && serves) {
            give_leadership_away(&consensus, &succession, silence).await;
            sleep(AGAIN).await;
        }
    }
}

async fn give_leadership_away(consensus: &Consensus, succession: &Succession, silence: Duration) {
    warn!(
        silence_s = silence.as_secs(),
        "the thread that holds virtual IPs gives no sign of life; this member gives leadership away"
    );
    // Leadership goes to a member that says that it can serve, if there is one.
    let to = succession.targets().await.first().copied();
    if let Err(error) = consensus.transfer(to).await {
        warn!(%error, "leadership was not handed over");
    }
}
