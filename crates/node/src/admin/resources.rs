//! Creating, reading, listing, changing and deleting resources, in the same way for all kinds.

use tonic::{Request, Response, Status};
use trestle_api::convert::{self, ConvertResource};
use trestle_api::resource::{CreateCall, DeleteAnswer, GetCall, ListAnswer, ListCall};
use trestle_api::status;
use trestle_model::{ClusterState, Invalid, ResourceName, Violations};

use super::paging::Page;
use super::{Accepted, Admin, mismatch};
use crate::access::{Caller, Target, TargetKind};

/// What a method of a service answers.
pub(super) type Answer<T> = Result<Response<T>, Status>;

/// A kind of resource as it is served.
pub(super) trait ServedResource: ConvertResource {
    /// What callers are authorised for.
    const TARGET: TargetKind;

    /// What a list is about.
    ///
    /// # Errors
    /// When it is about parts of something whose name is none.
    fn listed(_: &ListCall) -> Result<Target, Status> {
        Ok(Target::all(Self::TARGET))
    }

    /// A page of a list.
    ///
    /// # Errors
    /// When there is no such page, or nothing that the list is about.
    fn page(state: &ClusterState, call: &ListCall) -> Result<Page<Self>, Status>;

    /// Adds what else is to be said of a write.
    fn warn(&mut self, _: Vec<String>) {}
}

/// The name of a resource.
///
/// # Errors
/// What is wrong with it.
pub(super) fn name<R: ServedResource>(field: &str, text: &str) -> Result<R::Id, Status> {
    let mut v = Violations::new();
    R::parse_name(field, text, &mut v).ok_or_else(|| status::invalid(&Invalid(v.into_vec())))
}

/// The resource that a write has answered with.
pub(super) fn accepted<R: ServedResource>(accepted: Accepted) -> Answer<R> {
    let mut resource = R::render(&accepted.outcome).ok_or_else(|| mismatch(&accepted.outcome))?;
    resource.warn(accepted.warnings);
    Ok(Response::new(resource))
}

impl Admin {
    pub(super) async fn create<R: ServedResource>(&self, request: Request<R::Create>) -> Answer<R> {
        let (caller, request) = Caller::take(request)?;
        let call: CreateCall<R> = request.clone().into();
        let wanted = call.if_absent.then(|| call.resource.unwrap_or_default());
        self.create_unless_there(&caller, convert::create::<R>(&request), wanted).await
    }

    pub(super) async fn get<R: ServedResource>(&self, request: Request<R::Get>) -> Answer<R> {
        let (caller, request) = Caller::take(request)?;
        let call: GetCall = request.into();
        let id: ResourceName = name::<R>("name", &call.name)?.into();
        let target = Target::named(R::TARGET, &call.name);
        let read = self.read(&caller, &target, call.consistency).await?;
        let missing = || status::refusal(&read.state().not_there(&id));
        let outcome = read.state().outcome(&id).ok_or_else(missing)?;
        Ok(read.answer(R::render(&outcome).ok_or_else(|| mismatch(&outcome))?))
    }

    pub(super) async fn list<R: ServedResource>(&self, request: Request<R::List>) -> Answer<R::Listed> {
        let (caller, request) = Caller::take(request)?;
        let call: ListCall = request.into();
        let read = self.read(&caller, &R::listed(&call)?, call.consistency).await?;
        let Page { items: resources, next: next_page_token } = R::page(read.state(), &call)?;
        let answer = ListAnswer { resources, next_page_token, read: Some(read.info) };
        Ok(Response::new(answer.into()))
    }

    pub(super) async fn update<R: ServedResource>(&self, request: Request<R::Update>) -> Answer<R> {
        let (caller, request) = Caller::take(request)?;
        accepted(self.write(&caller, convert::update::<R>(&request)).await?)
    }

    pub(super) async fn delete<R: ServedResource>(&self, request: Request<R::Delete>) -> Answer<R::Deleted> {
        let (caller, request) = Caller::take(request)?;
        let Accepted { revision, .. } = self.write(&caller, convert::delete::<R>(&request)).await?;
        Ok(Response::new(DeleteAnswer { revision }.into()))
    }
}
