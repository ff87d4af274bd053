//! Creating only what is not there. The write itself decides who was first; what is there is compared only once it was
//! refused, on a linearizable read.

use std::sync::Arc;

use tonic::{Code, Status};
use trestle_api::convert::{Wanted, Write};
use trestle_api::differences::differences;
use trestle_api::status;
use trestle_model::{Backend, Command, Document, Invalid, Listener, Outcome, Pool, ResourceName, Vip};

use super::resources::{Answer, ServedResource, accepted};
use super::{Accepted, Admin, internal};
use crate::access::Caller;

/// What a creation would make, at no revision.
fn made(command: &Command) -> Option<(ResourceName, Outcome)> {
    let mut documents = command.documents();
    let document = documents.next()?;
    let outcome = match document.clone() {
        Document::Vip(name, spec) => Outcome::Vip(Arc::new(Vip { name, spec, revision: 0 })),
        Document::Pool(name, spec) => Outcome::Pool(Arc::new(Pool { name, spec: *spec, revision: 0 }), 0),
        Document::Backend(pool, name, spec) => {
            let switched = documents.find_map(|document| match document {
                Document::AdminState(.., state) => Some(*state),
                _ => None,
            });
            let admin_state = switched.unwrap_or_default();
            Outcome::Backend(pool, Arc::new(Backend { name, spec, admin_state, revision: 0 }))
        }
        Document::AdminState(..) => return None,
        Document::Listener(name, spec) => {
            let listener = Listener { name, spec, binds: Vec::new(), created: 0, revision: 0 };
            Outcome::Listener(Arc::new(listener))
        }
    };
    Some((document.resource(), outcome))
}

/// Whether a refusal may only be so because the resource is there already.
fn may_exist(code: Code) -> bool {
    matches!(
        code,
        Code::AlreadyExists | Code::InvalidArgument | Code::FailedPrecondition | Code::ResourceExhausted
    )
}

impl Admin {
    /// Creates a resource as [`write`](Self::write) does; one that has the settings that are `wanted` may be there already.
    pub(super) async fn create_unless_there<R: ServedResource>(
        &self,
        caller: &Caller,
        parsed: Result<Write, Invalid>,
        wanted: Option<R>,
    ) -> Answer<R> {
        let write = parsed.map_err(|found| status::invalid(&found))?;
        let command = match (&write.wanted, &wanted) {
            (Wanted::Command(command), Some(_)) => Some(command.clone()),
            _ => None,
        };
        match (Box::pin(self.write(caller, Ok(write))).await, command.zip(wanted)) {
            (Ok(answer), _) => accepted(answer),
            (Err(refused), Some((command, wanted))) => {
                Box::pin(self.existing(&command, &wanted, refused)).await
            }
            (Err(refused), None) => Err(refused),
        }
    }

    /// What is there, when it has the settings that are wanted, in place of a refusal.
    ///
    /// # Errors
    /// The differences; or the refusal, where nothing is there or it is about something else.
    async fn existing<R: ServedResource>(&self, command: &Command, wanted: &R, refused: Status) -> Answer<R> {
        if !may_exist(refused.code()) {
            return Err(refused);
        }
        let Ok(read) = self.read_newest().await else { return Err(refused) };
        let Some((name, made)) = made(command) else { return Err(refused) };
        let Some((there, revision)) = read.state().outcome(&name).zip(read.state().revision_of(&name)) else {
            return Err(refused);
        };
        let rendered = |outcome| {
            accepted::<R>(Accepted { revision, outcome, changes: Vec::new(), warnings: Vec::new() })
        };
        let mut found = rendered(there)?;
        let made = rendered(made)?;
        let differing = differences(wanted, made.get_ref(), found.get_ref()).map_err(|why| internal(&why))?;
        if differing.is_empty() {
            let unchanged = tonic::metadata::MetadataValue::from_static("unchanged");
            found.metadata_mut().insert(status::EXISTING_KEY, unchanged);
            return Ok(found);
        }
        Err(status::differs(name.kind(), &name.id(), revision, &differing))
    }
}
