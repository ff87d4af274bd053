//! What happened, and what happens.

use std::time::Duration;

use tonic::{Request, Response, Status};
use trestle_api::v1::event_service_server::EventService;
use trestle_api::{status, v1};
use trestle_model::{Invalid, Violation};

use super::Admin;
use crate::events::{List, Position, Watch, moment};

/// A time that makes no sense is refused.
fn parse_since(since: Option<&prost_types::Timestamp>) -> Result<Option<Duration>, Status> {
    let Some(given) = since else { return Ok(None) };
    moment(given).map(Some).ok_or_else(|| {
        let rule = "must be a time after the beginning of 1970";
        let found = Violation::new("since", format!("{}s {}ns", given.seconds, given.nanos), rule);
        status::invalid(&Invalid(vec![found]))
    })
}

#[tonic::async_trait]
impl EventService for Admin {
    type ListEventsStream = List;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let since = parse_since(request.get_ref().since.as_ref())?;
        self.events.list(since).await.map(Response::new)
    }

    type WatchEventsStream = Watch;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let request = request.into_inner();
        parse_since(request.since.as_ref())?;
        self.events.watch(request.since, Position::of(&request.after)).await.map(Response::new)
    }
}
