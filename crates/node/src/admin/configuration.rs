//! The whole configuration: backup and restore.

use std::sync::Arc;

use tonic::{Response, Status, Streaming};
use trestle_api::convert::Wanted;
use trestle_api::{convert, status, v1};
use trestle_model::{Outcome, defaults};

use super::{Accepted, Admin, mismatch};
use crate::access::{Caller, Target, TargetKind};

/// Most changes that are named of a restore that is only tried.
const CHANGES_MAX: usize = 1000;

/// A backup, part by part.
pub(super) type Backup =
    futures_util::stream::BoxStream<'static, Result<v1::BackupConfigurationResponse, Status>>;

impl Admin {
    pub(super) async fn backup(&self, caller: &Caller, consistency: i32) -> Result<Response<Backup>, Status> {
        let read = self.read(caller, &Target::all(TargetKind::Cluster), consistency).await?;
        let mut info = Some(read.info.clone());
        let parts = convert::configuration_parts(convert::configuration(read.state()));
        let messages = parts
            .into_iter()
            .map(move |part| Ok(v1::BackupConfigurationResponse { read: info.take(), part: Some(part) }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(messages))))
    }

    pub(super) async fn batch(
        &self,
        caller: &Caller,
        request: &v1::ApplyBatchRequest,
    ) -> Result<v1::ApplyBatchResponse, Status> {
        let write = convert::apply_batch(request);
        let wanted = write.as_ref().ok().map(|write| write.wanted.clone());
        let Accepted { revision, outcome, warnings, .. } = self.write(caller, write).await?;
        let results = match &wanted {
            Some(Wanted::Command(command)) => convert::batch_results(command, &outcome),
            _ => Vec::new(),
        };
        Ok(v1::ApplyBatchResponse { revision, results, warnings })
    }

    pub(super) async fn restore(
        &self,
        caller: &Caller,
        parts: Streaming<v1::RestoreConfigurationRequest>,
    ) -> Result<v1::RestoreConfigurationResponse, Status> {
        // A document and what becomes of it take many times its size.
        let Ok(_one) = self.turns.restoring.try_acquire() else {
            return Err(Status::resource_exhausted(
                "this member is busy with another restore; try again when that has ended",
            ));
        };
        let request = merged(parts).await?;
        let write = convert::restore_configuration(&request);
        let Accepted { revision, outcome, changes, warnings } = self.write(caller, write).await?;
        match outcome {
            Outcome::Restored(restored) => Ok(v1::RestoreConfigurationResponse {
                revision,
                created: restored.created,
                updated: restored.updated,
                deleted: restored.deleted,
                changes: changes.iter().take(CHANGES_MAX).map(convert::resource_change).collect(),
                warnings,
            }),
            other => Err(mismatch(&other)),
        }
    }
}

/// At most one restore at a time on each member.
pub(super) fn one_at_a_time() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(1))
}

/// The first message with the parts of all of them.
async fn merged(
    mut parts: Streaming<v1::RestoreConfigurationRequest>,
) -> Result<v1::RestoreConfigurationRequest, Status> {
    let mut first = parts.message().await?.unwrap_or_default();
    let mut whole = v1::Configuration::default();
    let mut size = convert::merge_configuration(&mut whole, first.part.take().unwrap_or_default());
    while let Some(next) = parts.message().await? {
        size += convert::merge_configuration(&mut whole, next.part.unwrap_or_default());
        if size > defaults::STAGED_MAX {
            return Err(status::failure(&status::Failure::TooLarge { size, max: defaults::STAGED_MAX }));
        }
    }
    first.part = Some(whole);
    Ok(first)
}
