//! The listener: connections, their limits and keys, and the table of addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::error::ApiError;
use super::shared::Shared;
use super::timed_stream::TimedStream;
use super::{chat, completions, hidden_states, models, openapi};
use crate::error::{Error, Result};

/// The server's addresses.
fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/hidden_states", post(hidden_states::states))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/pearl", get(models::library))
        .route("/health", get(models::health))
        .route("/metrics", get(models::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/", get(models::playground))
        .fallback(no_such_address)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

async fn no_such_address(request: Request) -> ApiError {
    let known = "/v1/chat/completions, /v1/completions, /v1/hidden_states, /v1/models, /health, /metrics or /openapi.json";
    let message = format!("no address {}; expected {known}", request.uri().path());
    ApiError::not_found(message, "unknown_url")
}

async fn no_such_method(request: Request) -> ApiError {
    ApiError::method(format_args!(
        "{} {}: not a method of this address",
        request.method(),
        request.uri().path()
    ))
}

/// Addresses that need no key: they say nothing about requests.
const OPEN: [&str; 2] = ["/", "/health"];

/// Checks key, host and origin before an address is looked up; counts and logs afterwards.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_allowed = origin.is_some() && origin == shared.origin;
    let mut response = match admit(&shared, &request) {
        Err(error) => error.into_response(),
        // A page of the allowed origin asks before it sends.
        Ok(()) if method == Method::OPTIONS && is_allowed => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin.filter(|_| is_allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        let allowed = HeaderValue::from_static("authorization, content-type");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    }
    let status = response.status().as_u16();
    shared.metrics.responded(status);
    (shared.log)(format!("{method} {path} {status} {} ms", begin.elapsed().as_millis()));
    response
}

fn admit(shared: &Shared, request: &Request) -> std::result::Result<(), ApiError> {
    // A page of another site that gives its own name this machine's address would read answers without a key.
    if shared.is_loopback && shared.key.is_none() {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| !is_local_name(host)) {
            return Err(ApiError::invalid(
                "a host that is not this machine; expected localhost, or a server with a key",
            ));
        }
    }
    // Nor may another site's page use the server behind its user's back.
    let (origin, host) = (request.headers().get(header::ORIGIN), request.headers().get(header::HOST));
    if let Some(origin) = origin.filter(|origin| Some(*origin) != shared.origin.as_ref()) {
        let own =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, name)| name.as_bytes());
        if own != host.map(HeaderValue::as_bytes) {
            return Err(ApiError::forbidden(
                "a page of another origin; expected this server's, or --allow-origin",
            ));
        }
    }
    let is_preflight = request.method() == Method::OPTIONS;
    let Some(key) = shared.key.as_ref().filter(|_| !is_preflight && !OPEN.contains(&request.uri().path()))
    else {
        return Ok(());
    };
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|value| {
        let scheme = value.get(..7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| value[7..].trim_ascii())
    });
    match given {
        None => Err(ApiError::unauthorized("no key; expected the header Authorization: Bearer KEY")),
        Some(given) if bool::from(given.ct_eq(key.as_bytes())) => Ok(()),
        Some(_) => Err(ApiError::unauthorized("a wrong key; expected the server's")),
    }
}

/// Whether a `Host` header names this machine.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Binds an address.
///
/// # Errors
/// An address that is in use or not this machine's.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let wrong = |error: io::Error| {
        Error::input(format!("address {address}"), error, "a free address of this machine")
    };
    TcpListener::bind(address).await.map_err(wrong)
}

/// Longest head of a request, in bytes.
const LONGEST_HEAD: usize = 64 << 10;

/// Serves connections until `stop` is set, and then until those that are open are done or the time for that is over.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router(shared.clone()));
    // Each connection holds a sender; once all are gone, the receiver hears so.
    let (alive, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        let accepted = {
            let stopped = stop.wait_for(|stop| *stop);
            let (mut accept, mut stopped) = (std::pin::pin!(listener.accept()), std::pin::pin!(stopped));
            std::future::poll_fn(|context| {
                use std::task::Poll;
                if stopped.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                accept.as_mut().poll(context).map(Some)
            })
            .await
        };
        let stream = match accepted {
            None => break,
            Some(Ok((stream, _))) => stream,
            // Too many open files, or a connection that broke off at once: others may come.
            Some(Err(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        if shared.metrics.connections.up() > shared.limits.connections {
            shared.metrics.connections.down();
            continue;
        }
        let _ = stream.set_nodelay(true);
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(shared.limits.read_timeout)
            .max_buf_size(LONGEST_HEAD);
        let stream = TimedStream::new(stream, shared.limits.read_timeout);
        let connection = builder.serve_connection(TokioIo::new(stream), service.clone());
        let (shared, alive, mut stop) = (shared.clone(), alive.clone(), stop.clone());
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let mut is_stopping = false;
            let mut stopped = Box::pin(async move { stop.wait_for(|stop| *stop).await.is_ok() });
            std::future::poll_fn(|context| {
                if !is_stopping && stopped.as_mut().poll(context).is_ready() {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                connection.as_mut().poll(context).map(|_| ())
            })
            .await;
            shared.metrics.connections.down();
            drop(alive);
        });
    }
    drop((listener, alive));
    if timeout(shared.limits.drain, gone.recv()).await.is_err() {
        shared.is_aborted.store(true, Ordering::SeqCst);
    }
    // Every answer is given, or nobody waits for it any more.
    shared.queue.close();
}
