use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::watch;
use trestle_model::{Change, Revision};

use super::identity;
use crate::data_dir::DataDir;
use crate::raft_types::{LogCommand, TypeConfig};
use crate::replica::{ChangeSink, Replica, StatePublisher};
use crate::storage::Storage;
use crate::store::LogStore;

pub(super) struct DiscardState;

impl ChangeSink for DiscardState {
    fn changed(&mut self, _: Revision, _: Vec<Change>, _: &LogCommand) {}
    fn jumped(&mut self, _: Revision) {}
}

struct SuiteBuilder;

impl StoreBuilder<TypeConfig, LogStore, Replica, TempDir> for SuiteBuilder {
    async fn build(&self) -> Result<(TempDir, LogStore, Replica), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(DataDir::open(dir.path()).unwrap());
        let published = StatePublisher {
            view: watch::channel(Arc::default()).0,
            history: Box::new(DiscardState),
            requests: Arc::default(),
        };
        let durable = Storage::create(&data, &identity(), published).unwrap();
        Ok((dir, durable.log, durable.replica))
    }
}

#[tokio::test]
async fn the_storage_suite_of_openraft_passes() {
    Suite::test_all(SuiteBuilder).await.unwrap();
}
