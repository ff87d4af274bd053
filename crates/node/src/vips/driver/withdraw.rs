//! What the driver does after this member was removed.

use std::sync::Arc;

use tracing::warn;
use trestle_engine::ownership::Elected;
use trestle_vip::VipError;

use super::{Driver, KERNEL_RETRY};

impl Driver {
    /// Releases everything and forgets this member's identity, because it was removed.
    pub(super) fn withdraw(&mut self) {
        self.state = Arc::default();
        self.reconcile();
        let cleaned_up = self.has_kernel();
        self.release_all();
        self.me = None;
        *self.shared.machine() = None;
        self.told.clear();
        (self.elected, self.left_in, self.wake) = (Elected::ByTransfer, None, None);
        self.withdrawn = true;
        self.cleanup_at = (!cleaned_up).then(|| self.shared.present());
        self.clean_up();
    }

    /// Removes from the kernel what an earlier run of this member left there. Nothing else would remove it.
    pub(super) fn clean_up(&mut self) {
        let now = self.shared.present();
        if self.cleanup_at.is_none_or(|at| at > now) {
            return;
        }
        self.cleanup_at = match self.host.clean_up() {
            // Without the capability this member never had anything in the kernel.
            Ok(()) | Err(VipError::Capability(_)) => None,
            Err(error) => {
                warn!(%error, "what an earlier run may have left in the kernel is not removed; tried again in {KERNEL_RETRY:?}");
                Some(now + KERNEL_RETRY)
            }
        };
    }
}
