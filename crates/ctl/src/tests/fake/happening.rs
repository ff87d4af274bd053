//! Events of the member that says what a test tells it to.

use tonic::{Request, Response, Status};
use trestle_api::v1;
use trestle_api::v1::event_service_server::EventService;

use super::{Answer, Fake, Stream};

#[tonic::async_trait]
impl EventService for Fake {
    type ListEventsStream = Stream<v1::ListEventsResponse>;
    type WatchEventsStream = Stream<v1::WatchEventsResponse>;

    async fn list_events(&self, _: Request<v1::ListEventsRequest>) -> Answer<Self::ListEventsStream> {
        let messages: Vec<_> = self.0.lock().unwrap().happened.iter().cloned().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let mut script = self.0.lock().unwrap();
        script.followed.push(request.into_inner());
        let messages = script.happening.pop_front();
        let messages = messages.ok_or_else(|| Status::resource_exhausted("too many"))?;
        Ok(Response::new(tokio_stream::iter(messages)))
    }
}
