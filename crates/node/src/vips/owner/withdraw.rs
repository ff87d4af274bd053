//! What the owner does once this member was removed.

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;
use trestle_engine::ownership::Elected;
use trestle_vip::{KernelSettings, LinuxKernel, VipError};

use super::{KERNEL_RETRY, KernelState, Owner};

impl Owner {
    /// Releases everything and forgets who this member was: it was removed.
    pub(super) fn withdraw(&mut self) {
        self.state = Arc::default();
        self.reconcile();
        let cleaned_up = matches!(self.kernel_state, KernelState::Open(_));
        self.release_all();
        self.me = None;
        *self.shared.machine() = None;
        self.told.clear();
        (self.elected, self.left_in, self.wake) = (Elected::ByTransfer, None, None);
        self.withdrawn = true;
        self.cleanup_at = (!cleaned_up).then(Instant::now);
        self.clean_up();
    }

    /// Takes out of the kernel what an earlier run of this member left there, which nobody else would.
    pub(super) fn clean_up(&mut self) {
        if self.cleanup_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let settings = KernelSettings { watchdog: None, real_time: false, ..self.settings() };
        // With the last handle goes whatever opening it has put there.
        self.cleanup_at = match LinuxKernel::open(settings).map(drop) {
            // Without the capability there never was anything.
            Ok(()) | Err(VipError::Capability(_)) => None,
            Err(error) => {
                warn!(%error, "what an earlier run may have left in the kernel is not removed; tried again in {KERNEL_RETRY:?}");
                Some(Instant::now() + KERNEL_RETRY)
            }
        };
    }
}
