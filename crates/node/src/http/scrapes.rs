//! `/metrics`, whose size follows the configuration: rendered once for all who ask, on a thread that nobody else needs, and
//! fetched by few at a time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

/// Answers that are fetched at a time; more are refused, since each holds a rendering of up to some 15 MB.
const SCRAPES_MAX: usize = 8;
/// How long a rendering is shown to others.
const FRESH: Duration = Duration::from_secs(1);
/// Bytes that are given to a connection at a time, so that an answer counts until it was fetched.
const SLICE: usize = 64 * 1024;

type Render = Arc<dyn Fn() -> Result<String, fmt::Error> + Send + Sync>;

/// The newest rendering, and who is fetching one.
pub(super) struct Scrapes {
    render: Render,
    newest: Arc<Mutex<Option<(Instant, Bytes)>>>,
    fetching: Arc<Semaphore>,
}

impl Scrapes {
    pub(super) fn new(render: impl Fn() -> Result<String, fmt::Error> + Send + Sync + 'static) -> Self {
        let fetching = Arc::new(Semaphore::new(SCRAPES_MAX));
        Self { render: Arc::new(render), newest: Arc::default(), fetching }
    }

    /// The text as it is now, or was a moment ago.
    async fn text(&self) -> Result<Bytes, String> {
        // Who waits here gets what the one before made.
        let mut newest = self.newest.clone().lock_owned().await;
        if let Some((at, text)) = newest.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let render = self.render.clone();
        // The lock goes along: when the caller goes away, the next one waits for this rendering and begins no other.
        let rendering = tokio::task::spawn_blocking(move || {
            // The old one goes first, so that there are not two more than are fetched.
            *newest = None;
            let text = Bytes::from(render().map_err(|error| error.to_string())?);
            *newest = Some((Instant::now(), text.clone()));
            Ok(text)
        });
        rendering.await.map_err(|error| error.to_string())?
    }

    /// Answers one scrape.
    pub(super) async fn answer(&self, content_type: &'static str) -> Response {
        let Ok(permit) = self.fetching.clone().try_acquire_owned() else {
            let why = format!("metrics: {SCRAPES_MAX} scrapes are under way; try again\n");
            return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response();
        };
        match self.text().await {
            Ok(text) => {
                let body = Body::new(Slices { rest: text, _permit: permit });
                ([(header::CONTENT_TYPE, content_type)], body).into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
        }
    }
}

/// A text that is fetched piece by piece; it holds its permit until the last piece was taken.
struct Slices {
    rest: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for Slices {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(SLICE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn one_rendering_serves_all_and_the_ninth_is_refused() {
        let rendered = Arc::new(AtomicUsize::new(0));
        let count = rendered.clone();
        let scrapes = Scrapes::new(move || {
            count.fetch_add(1, SeqCst);
            Ok("x".repeat(3 * SLICE + 1))
        });
        let answers = join_all((0..12).map(|_| scrapes.answer("text/plain"))).await;
        let ok = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
        assert_eq!((ok, rendered.load(SeqCst)), (SCRAPES_MAX, 1));
        let refused = answers.iter().find(|answer| answer.status() != StatusCode::OK).unwrap();
        assert_eq!(refused.headers().get(header::RETRY_AFTER).unwrap(), "1");
        drop(answers);
        let text = axum::body::to_bytes(scrapes.answer("text/plain").await.into_body(), usize::MAX).await;
        assert_eq!(text.unwrap().len(), 3 * SLICE + 1);
    }
}
