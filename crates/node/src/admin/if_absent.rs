//! Creating only what is not there. The write itself decides who was first; what is there is compared only once it was
//! refused, on a linearizable read.

use prost::Message;
use tonic::{Code, Response, Status};
use trestle_api::convert::Write;
use trestle_api::differences::differences;
use trestle_api::{convert, status, v1};
use trestle_model::{Backend, ClusterState, Command, Invalid, Kind, Listener, Outcome, Pool, Revision, Vip};

use super::{Admin, internal};
use crate::access::Caller;

/// A resource that can be created, as the API writes it.
pub(super) trait Resource: Message + prost::Name + Clone {
    /// What the command would create.
    fn made(command: &Command) -> Option<Self>;
    /// What is there under the name that the command would create.
    fn there(state: &ClusterState, command: &Command) -> Option<Found<Self>>;
}

/// A resource that is there.
pub(super) struct Found<T> {
    resource: T,
    kind: Kind,
    name: String,
    revision: Revision,
}

impl Resource for v1::Pool {
    fn made(command: &Command) -> Option<Self> {
        let Command::CreatePool { name, spec } = command else { return None };
        Some(convert::pool(&Pool { name: name.clone(), spec: spec.clone(), revision: 0 }, 0))
    }

    fn there(state: &ClusterState, command: &Command) -> Option<Found<Self>> {
        let Command::CreatePool { name, .. } = command else { return None };
        let entry = state.pools.get(name)?;
        let resource = convert::pool(&entry.pool, entry.backends.len());
        Some(Found { resource, kind: Kind::Pool, name: name.to_string(), revision: entry.pool.revision })
    }
}

impl Resource for v1::Backend {
    fn made(command: &Command) -> Option<Self> {
        let Command::CreateBackend { pool, name, spec } = command else { return None };
        let backend = Backend { name: name.clone(), spec: spec.clone(), revision: 0 };
        Some(convert::backend(pool, &backend))
    }

    fn there(state: &ClusterState, command: &Command) -> Option<Found<Self>> {
        let Command::CreateBackend { pool, name, .. } = command else { return None };
        let backend = state.backend(pool, name)?;
        let (resource, name) = (convert::backend(pool, backend), format!("{pool}/{name}"));
        Some(Found { resource, kind: Kind::Backend, name, revision: backend.revision })
    }
}

impl Resource for v1::Listener {
    fn made(command: &Command) -> Option<Self> {
        let Command::CreateListener { name, spec } = command else { return None };
        let (name, spec) = (name.clone(), spec.clone());
        Some(convert::listener(&Listener { name, spec, created: 0, revision: 0 }))
    }

    fn there(state: &ClusterState, command: &Command) -> Option<Found<Self>> {
        let Command::CreateListener { name, .. } = command else { return None };
        let listener = state.listeners.get(name)?;
        let (resource, revision) = (convert::listener(listener), listener.revision);
        Some(Found { resource, kind: Kind::Listener, name: name.to_string(), revision })
    }
}

impl Resource for v1::Vip {
    fn made(command: &Command) -> Option<Self> {
        let Command::CreateVip { name, spec } = command else { return None };
        Some(convert::vip(&Vip { name: name.clone(), spec: spec.clone(), revision: 0 }))
    }

    fn there(state: &ClusterState, command: &Command) -> Option<Found<Self>> {
        let Command::CreateVip { name, .. } = command else { return None };
        let vip = state.vips.get(name)?;
        let (resource, revision) = (convert::vip(vip), vip.revision);
        Some(Found { resource, kind: Kind::Vip, name: name.to_string(), revision })
    }
}

/// Whether a refusal may only be so because the resource is there already.
fn may_exist(code: Code) -> bool {
    matches!(
        code,
        Code::AlreadyExists | Code::InvalidArgument | Code::FailedPrecondition | Code::ResourceExhausted
    )
}

impl Admin {
    /// Creates a resource as [`write`](Self::write) does.
    pub(super) async fn create<T: Resource>(
        &self,
        caller: &Caller,
        parsed: Result<Write, Invalid>,
        answer: impl FnOnce(Outcome) -> Result<Response<T>, Status>,
        wanted: Option<&T>,
    ) -> Result<Response<T>, Status> {
        let write = parsed.map_err(|found| status::invalid(&found))?;
        let command = wanted.map(|_| write.proposal.command.clone());
        let refused = match Box::pin(self.write(caller, Ok(write))).await {
            Ok((_, outcome)) => return answer(outcome),
            Err(refused) => refused,
        };
        match command.zip(wanted) {
            Some((command, wanted)) => Box::pin(self.existing(&command, wanted, refused)).await,
            None => Err(refused),
        }
    }

    /// What is there, when it has the settings that are wanted, in place of a refusal.
    ///
    /// # Errors
    /// The differences; or the refusal, where nothing is there or it is about something else.
    pub(super) async fn existing<T: Resource>(
        &self,
        command: &Command,
        wanted: &T,
        refused: Status,
    ) -> Result<Response<T>, Status> {
        if !may_exist(refused.code()) {
            return Err(refused);
        }
        let Ok(read) = self.read_newest().await else { return Err(refused) };
        let (Some(found), Some(made)) = (T::there(read.state(), command), T::made(command)) else {
            return Err(refused);
        };
        let differing = differences(wanted, &made, &found.resource).map_err(|why| internal(&why))?;
        if differing.is_empty() {
            let mut response = Response::new(found.resource);
            let unchanged = tonic::metadata::MetadataValue::from_static("unchanged");
            response.metadata_mut().insert(status::EXISTING_KEY, unchanged);
            return Ok(response);
        }
        let Found { kind, name, revision, .. } = found;
        Err(status::differs(kind, &name, revision, &differing))
    }
}
