use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::sync::watch;
use trestle_model::{Change, Proposal, Revision};

use super::identity;
use crate::data_dir::DataDir;
use crate::durable::Durable;
use crate::raft_types::TypeConfig;
use crate::replica::{History, Published, Replica};
use crate::store::LogStore;

pub(super) struct Unwatched;

impl History for Unwatched {
    fn changed(&mut self, _: Revision, _: Vec<Change>, _: &Proposal) {}
    fn jumped(&mut self, _: Revision) {}
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Replica, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Replica), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let data = Arc::new(DataDir::open(dir.path()).unwrap());
        let published = Published {
            view: watch::channel(Arc::default()).0,
            history: Box::new(Unwatched),
            requests: Arc::default(),
        };
        let durable = Durable::create(&data, &identity(), published).unwrap();
        Ok((dir, durable.log, durable.replica))
    }
}

#[tokio::test]
async fn the_storage_suite_of_openraft_passes() {
    Suite::test_all(Builder).await.unwrap();
}
