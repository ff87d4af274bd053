//! Batches of resources.

use std::collections::BTreeSet;

use trestle_model::{
    ChangeKind, Command, Document, Expected, Invalid, Operation, Outcome, ResourceName, Violation, Violations,
};

use super::write::{Asked, parse_etag};
use super::{ConvertResource, Write};
use crate::settings::Reader;
use crate::v1;
use crate::v1::batch_operation::Kind;

/// What a message puts: its name, its documents, and the etag that it names.
fn put<R: ConvertResource>(message: &R, found: &mut Violations) -> (String, Option<Vec<Document>>, String) {
    let (name, mut reader) = (message.name(), Reader::default());
    let id = R::parse_name(&format!("{}.name", R::WORD), name, &mut reader.found);
    let documents = message.documents(id, &mut reader);
    for Violation { field, value, rule } in reader.found.into_vec() {
        found.add(format!("{name}: {field}"), value, rule);
    }
    (name.to_owned(), documents, message.etag().to_owned())
}

/// As [`put`], of a backend. What an operator has switched by hand stays unless the message says otherwise.
fn put_backend(message: &v1::Backend, found: &mut Violations) -> (String, Option<Vec<Document>>, String) {
    let (name, mut documents, etag) = put(message, found);
    if message.admin_state() == v1::AdminState::Unspecified {
        let parts = documents.iter_mut();
        parts.for_each(|all| all.retain(|document| !matches!(document, Document::AdminState(..))));
    }
    (name, documents, etag)
}

fn operations(message: &v1::BatchOperation, found: &mut Violations) -> Vec<Operation> {
    let Some(kind) = &message.kind else {
        found.add("operations", "", "must each put or delete a resource");
        return Vec::new();
    };
    let (name, documents, etag) = match kind {
        Kind::Pool(pool) => put(pool, found),
        Kind::Backend(backend) => put_backend(backend, found),
        Kind::Listener(listener) => put(listener, found),
        Kind::Vip(vip) => put(vip, found),
        Kind::Delete(name) => {
            let resource = found.take("operations.delete", name, ResourceName::parse(name));
            let expected = parse_etag(&format!("{name}: etag"), &message.etag, found);
            return resource.map(|resource| Operation::Delete { resource, expected }).into_iter().collect();
        }
    };
    let revision = parse_etag(&format!("{name}: etag"), &etag, found);
    let expected = if message.create { Expected::Absent } else { revision.into() };
    let operation = |document| Operation::Put { document, expected };
    documents.unwrap_or_default().into_iter().map(operation).collect()
}

/// Parses a batch.
///
/// # Errors
/// Every value that breaks a rule, with the name of its resource.
pub fn apply_batch(request: &v1::ApplyBatchRequest) -> Result<Write, Invalid> {
    let v1::ApplyBatchRequest { operations: messages, request_id, validate_only } = request;
    let mut found = Violations::new();
    let all: Vec<Operation> = messages.iter().flat_map(|message| operations(message, &mut found)).collect();
    if messages.is_empty() {
        found.add("operations", 0, "must be at least one");
    }
    let asked = Asked { request, request_id, validate_only: *validate_only };
    asked.command(Some(Command::Batch(all.into())), found)
}

/// What became of the resources that a command names, in the order of their first operations.
pub fn batch_results(command: &Command, outcome: &Outcome) -> Vec<v1::BatchResult> {
    let (Command::Batch(operations), Outcome::Batch(kinds)) = (command, outcome) else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let mut results: Vec<v1::BatchResult> = Vec::new();
    for (operation, kind) in operations.iter().zip(kinds.iter()) {
        let name = operation.resource().shown_as();
        let change = match kind {
            None => v1::BatchChange::Unchanged,
            Some(ChangeKind::Created) => v1::BatchChange::Created,
            Some(ChangeKind::Updated) => v1::BatchChange::Updated,
            Some(ChangeKind::Deleted) => v1::BatchChange::Deleted,
        };
        let text = name.to_string();
        if seen.insert(name) {
            results.push(v1::BatchResult { name: text, change: change.into() });
        } else if let Some(result) = results.iter_mut().find(|result| result.name == text)
            && result.change() == v1::BatchChange::Unchanged
        {
            result.set_change(change);
        }
    }
    results
}
