//! Writes as they are parsed: what is known of them before the state is.

use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};
use trestle_model::{
    AdminState, ClusterState, Command, Document, Expected, Invalid, Operation, Refusal, Request, RequestId,
    ResourceName, Revision, Violations,
};

use super::field;
use crate::settings::{Masked, Reader};

/// A parsed write: what to propose, or only to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The request, if it named itself.
    pub request: Option<Request>,
    /// True when the caller only wants to know what would happen.
    pub validate_only: bool,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What a write wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This, whatever is there.
    Command(Command),
    /// Some settings of what is there.
    Update(Update),
}

/// Other settings for a resource that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The documents with the new settings; what the paths do not name is not looked at.
    documents: Vec<Document>,
    /// Paths of the settings that change.
    paths: Vec<String>,
    /// Revision that the resource must have.
    expected: Option<Revision>,
}

impl Write {
    /// Recognises the write by `request`, where what was parsed is a copy of it in which names are resolved: the same
    /// request shall get the same answer whatever they stand for by then.
    #[must_use]
    pub fn recognised_by<R: Message + prost::Name>(mut self, request: &R) -> Self {
        if let Some(known) = &mut self.request {
            known.fingerprint = fingerprint(request);
        }
        self
    }

    /// The command for this state. What it changes it expects as the state has it, so that it is refused as
    /// [`Refusal::Moved`] where that is no longer so.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when what is to be changed is not there.
    pub fn command(&self, state: &ClusterState) -> Result<Command, Refusal> {
        match &self.wanted {
            Wanted::Command(command) => Ok(command.clone()),
            Wanted::Update(update) => update.command(state),
        }
    }

    /// The resource that it follows: a command for a newer state of it may be accepted where one for an older was refused as
    /// [`Refusal::Moved`], because the caller has not named a revision.
    pub fn follows(&self) -> Option<ResourceName> {
        match &self.wanted {
            Wanted::Update(Update { expected: None, documents, .. }) => {
                documents.first().map(Document::resource)
            }
            _ => None,
        }
    }
}

/// The settings of a document, if they are of the same kind.
fn merged(current: Document, change: &Document, is_named: &dyn Fn(&str) -> bool) -> Document {
    match (current, change) {
        (Document::Vip(name, mut spec), Document::Vip(_, change)) => {
            spec.take_over(change, is_named);
            Document::Vip(name, spec)
        }
        (Document::Pool(name, mut spec), Document::Pool(_, change)) => {
            spec.take_over(change, is_named);
            Document::Pool(name, spec)
        }
        (Document::Backend(pool, name, mut spec), Document::Backend(.., change)) => {
            spec.take_over(change, is_named);
            Document::Backend(pool, name, spec)
        }
        (Document::Listener(name, mut spec), Document::Listener(_, change)) => {
            spec.take_over(change, is_named);
            Document::Listener(name, spec)
        }
        (Document::AdminState(pool, name, state), Document::AdminState(.., change)) => {
            let switched = is_named("admin_state") || is_named("drain_timeout");
            Document::AdminState(pool, name, if switched { *change } else { state })
        }
        (current, _) => current,
    }
}

impl Update {
    fn command(&self, state: &ClusterState) -> Result<Command, Refusal> {
        let is_named = |path: &str| self.paths.iter().any(|named| named == path);
        let mut operations = Vec::new();
        let mut as_it_is = None;
        for change in &self.documents {
            let name = change.resource();
            let current = state.document(&name).ok_or_else(|| state.not_there(&name))?;
            let read = state.revision_of(&name);
            let wanted = merged(current.clone(), change, &is_named);
            if wanted != current {
                // What something is switched to does not depend on what it was switched to before.
                let read = read.filter(|_| !matches!(name, ResourceName::AdminState(..)));
                let expected = Expected::from(self.expected.or(read));
                operations.push(Operation::Put { document: wanted, expected });
            } else if as_it_is.is_none() {
                let expected = Expected::from(self.expected.or(read));
                as_it_is = Some(Operation::Put { document: current, expected });
            }
        }
        if operations.is_empty() {
            operations.extend(as_it_is);
        }
        Ok(Command::Batch(operations.into()))
    }
}

/// Parses an etag; empty means any revision.
pub(super) fn parse_etag(field: &str, etag: &str, v: &mut Violations) -> Option<Revision> {
    if etag.is_empty() {
        return None;
    }
    let parsed = etag.parse().map_err(|_| "must be an etag as an earlier answer gave it".to_owned());
    v.take(field, etag, parsed)
}

/// What every request has: its id, whether it is only to be tried, and itself to recognise it by.
pub(super) struct Asked<'r, R> {
    pub(super) request: &'r R,
    pub(super) request_id: &'r str,
    pub(super) validate_only: bool,
}

impl<R: Message + prost::Name> Asked<'_, R> {
    /// Finishes a write: the request's id, the fingerprint that recognises it, and all mistakes found so far.
    pub(super) fn finish(self, wanted: Option<Wanted>, mut v: Violations) -> Result<Write, Invalid> {
        let id = match self.request_id {
            "" => None,
            id => v.take("request_id", id, RequestId::parse(id)),
        };
        v.into_result()?;
        let Some(wanted) = wanted else {
            // Parsers give nothing only together with a violation.
            return Err(Invalid(vec![trestle_model::Violation::new("request", "", "must be complete")]));
        };
        let request = id.map(|id| Request { id, fingerprint: fingerprint(self.request) });
        Ok(Write { request, validate_only: self.validate_only, wanted })
    }

    /// Finishes a command.
    pub(super) fn command(self, command: Option<Command>, v: Violations) -> Result<Write, Invalid> {
        self.finish(command.map(Wanted::Command), v)
    }

    /// Finishes the creation of a resource.
    pub(super) fn create(self, documents: Option<Vec<Document>>, v: Violations) -> Result<Write, Invalid> {
        let operations = documents.map(|documents| {
            let operation = |document: Document| match document {
                // A backend that is created is switched to nothing yet.
                Document::AdminState(..) => Operation::put(document),
                other => Operation::create(other),
            };
            let is_default =
                |document: &Document| matches!(document, Document::AdminState(.., AdminState::Enabled));
            documents.into_iter().filter(|document| !is_default(document)).map(operation).collect()
        });
        self.command(operations.map(Command::Batch), v)
    }

    /// Finishes the change of a resource: `read` parses its documents, `all` are the paths that they have, and `kind` begins the
    /// field of each mistake.
    pub(super) fn update(
        self,
        kind: &str,
        (mask, all): (Option<&prost_types::FieldMask>, &[String]),
        expected: Option<Revision>,
        read: impl FnOnce(&mut Reader) -> Option<Vec<Document>>,
        mut v: Violations,
    ) -> Result<Write, Invalid> {
        let mut paths = field::mask(mask, all, OUTPUT_ONLY, &mut v);
        if SWITCH.iter().any(|path| paths.iter().any(|named| named == path)) {
            paths.extend(SWITCH.map(str::to_owned));
        }
        // Only what the mask names is looked at.
        let mut reader = Reader::default();
        let documents = read(&mut reader);
        v.extend(reader.found.into_vec().into_iter().filter(|found| {
            let field = found.field.strip_prefix(kind).and_then(|rest| rest.strip_prefix('.'));
            field::is_named(field.unwrap_or(&found.field), &paths)
        }));
        let update = documents.map(|documents| Wanted::Update(Update { documents, paths, expected }));
        self.finish(update, v)
    }

    /// Finishes the deletion of a resource.
    pub(super) fn delete(
        self,
        resource: Option<ResourceName>,
        expected: Option<Revision>,
        v: Violations,
    ) -> Result<Write, Invalid> {
        let operation = resource.map(|resource| Operation::Delete { resource, expected });
        self.command(operation.map(|operation| Command::Batch(Arc::new([operation]))), v)
    }
}

/// What a backend is switched to: each of them changes both.
pub(super) const SWITCH: [&str; 2] = ["admin_state", "drain_timeout"];

/// Fields that only the server sets.
const OUTPUT_ONLY: &[&str] =
    &["backend_count", "addresses", "warnings", "revision", "create_revision", "etag", "name"];

/// Recognises a request that comes again: the first 8 bytes of the SHA-256 of its type and content.
fn fingerprint<R: Message + prost::Name>(request: &R) -> u64 {
    let mut hash = Sha256::new();
    hash.update(R::full_name().as_bytes());
    hash.update(request.encode_to_vec());
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
