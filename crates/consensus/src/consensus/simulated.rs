//! A member of a simulation.

use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

use super::{Consensus, OwnRuntime};
use crate::member::ConsensusSettings;
use crate::parts::Core;
use crate::platform::{Platform, SimulatedPlatform};
use crate::store::OpenError;

impl Consensus {
    /// Opens a member on the runtime that this is called on, without threads and sockets. Dropping that runtime is the end of the
    /// process.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[doc(hidden)]
    pub async fn open_simulated(
        settings: ConsensusSettings,
        platform: Arc<dyn SimulatedPlatform>,
    ) -> Result<Self, OpenError> {
        let core = Core::open(settings, Handle::current(), Platform::Simulated(platform)).await?;
        Ok(Self { core: Arc::new(core), runtime: Arc::new(OwnRuntime(Mutex::default())) })
    }
}
