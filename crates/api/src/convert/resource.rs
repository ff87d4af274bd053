//! Creations, changes and deletions of all kinds of resources.

use trestle_model::{Document, Invalid, Outcome, ResourceName, Violations};

use super::Write;
use super::write::{Asked, parse_etag};
use crate::resource::{CreateCall, DeleteCall, ResourceMessage, UpdateCall};
use crate::settings::Reader;

/// A kind of resource between its messages and the model.
pub trait ConvertResource: ResourceMessage {
    /// How the model names one.
    type Id: Into<ResourceName>;

    /// Renders what became of one; `None` for an outcome of another kind.
    fn render(outcome: &Outcome) -> Option<Self>;
    /// Parses its name, noting mistakes under `field`.
    fn parse_name(field: &str, name: &str, v: &mut Violations) -> Option<Self::Id>;
    /// The name that a creation gives it.
    fn new_name(call: &CreateCall<Self>, v: &mut Violations) -> Option<Self::Id>;
    /// Paths of the settings that an update may change.
    fn paths() -> Vec<String>;
    /// The documents that the message stands for: what is not set has its default.
    fn documents(&self, id: Option<Self::Id>, reader: &mut Reader) -> Option<Vec<Document>>;
}

/// Parses the creation of a resource.
///
/// # Errors
/// Every value that breaks a rule.
pub fn create<R: ConvertResource>(request: &R::Create) -> Result<Write, Invalid> {
    let call: CreateCall<R> = request.clone().into();
    let mut reader = Reader::default();
    let id = R::new_name(&call, &mut reader.found);
    let documents = call.resource.unwrap_or_default().documents(id, &mut reader);
    let asked = Asked { request, request_id: &call.request_id, validate_only: call.validate_only };
    asked.create(documents, reader.found)
}

/// Parses the change of a resource.
///
/// # Errors
/// Every value that breaks a rule.
pub fn update<R: ConvertResource>(request: &R::Update) -> Result<Write, Invalid> {
    let call: UpdateCall<R> = request.clone().into();
    let message = call.resource.unwrap_or_default();
    let mut v = Violations::new();
    let id = R::parse_name(&format!("{}.name", R::WORD), message.name(), &mut v);
    let expected = parse_etag(&format!("{}.etag", R::WORD), message.etag(), &mut v);
    let asked = Asked { request, request_id: &call.request_id, validate_only: call.validate_only };
    let documents = |reader: &mut Reader| message.documents(id, reader);
    asked.update(R::WORD, (call.update_mask.as_ref(), &R::paths()), expected, documents, v)
}

/// Parses the deletion of a resource.
///
/// # Errors
/// Every value that breaks a rule.
pub fn delete<R: ConvertResource>(request: &R::Delete) -> Result<Write, Invalid> {
    let call: DeleteCall = request.clone().into();
    let mut v = Violations::new();
    let id = R::parse_name("name", &call.name, &mut v);
    let expected = parse_etag("etag", &call.etag, &mut v);
    let asked = Asked { request, request_id: &call.request_id, validate_only: call.validate_only };
    asked.delete(id.map(Into::into), expected, v)
}
