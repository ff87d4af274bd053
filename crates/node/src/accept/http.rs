//! HTTP/1.1 at an own port.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::connection::{Phase, PortConnection};
use super::{EstablishedIo, Serve, ServicePort};

/// Most bytes of a request's head, and of an answer that wait for the client in user space.
const BUFFER: usize = 16 * 1024;

/// Serves a router.
pub(crate) struct Http1(pub(crate) Router);

/// A request that is being answered.
struct HttpCall {
    connection: Arc<PortConnection>,
    number: u64,
}

impl Drop for HttpCall {
    fn drop(&mut self) {
        self.connection.end(self.number, Instant::now());
    }
}

/// An answer that is being fetched.
struct HttpResponseBody {
    body: Body,
    _call: HttpCall,
}

impl HttpBody for HttpResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn answer(
    router: Router,
    connection: Arc<PortConnection>,
    mut request: Request<Incoming>,
) -> Response<HttpResponseBody> {
    request.extensions_mut().insert(connection.origin.clone());
    let number = connection.begin(Phase::Running, Instant::now());
    let call = HttpCall { connection, number };
    let response = match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    call.connection.advance(number, Phase::Sending, Instant::now());
    response.map(|body| HttpResponseBody { body, _call: call })
}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static> Serve<Io> for Http1 {
    async fn serve(
        &self,
        _: Arc<ServicePort>,
        connection: Arc<PortConnection>,
        io: EstablishedIo<Io>,
        stop: CancellationToken,
    ) -> Result<(), &'static str> {
        let router = self.0.clone();
        let shared = connection.clone();
        let service = hyper::service::service_fn(move |request| {
            let (router, connection) = (router.clone(), shared.clone());
            async move { Ok::<_, Infallible>(answer(router, connection, request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        // The port looks at deadlines by itself; hyper has but one for the head of a request and the wait for it.
        http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER);
        let mut serving = pin!(http.serve_connection(TokioIo::new(io), service));
        let mut leaving = false;
        loop {
            tokio::select! {
                // What a client does wrong here it is told by 400 or 431.
                _ = serving.as_mut() => return Ok(()),
                () = connection.close_requested(), if !leaving => {}
                () = stop.cancelled(), if !leaving => {}
            }
            leaving = true;
            serving.as_mut().graceful_shutdown();
        }
    }
}
