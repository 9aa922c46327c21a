//! Requests to a node's admin listener: HTTP/1.1, one connection each.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use quorate_host::admin::{ApiError, ErrorBody};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why there is no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    /// Nobody was there: nothing was sent.
    NotSent(String),
    /// No answer, or one that cannot be read.
    NoAnswer(String),
    /// The node's error.
    Refused(StatusCode, ErrorBody),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) | Self::NoAnswer(why) => f.write_str(why),
            Self::Refused(_, error) => f.write_str(&error.message),
        }
    }
}

/// Until when the next of `left` nodes may answer, so that one that is silent leaves time for others.
pub(crate) fn turn(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let share = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    now + deadline.saturating_duration_since(now) / share
}

/// Asks `address` (`host:port`, perhaps after `http://`) for `path`.
pub(crate) async fn get<T: DeserializeOwned>(
    address: &str,
    path: &str,
    deadline: Instant,
) -> Result<T, Error> {
    send(address, Method::GET, path, Bytes::new(), deadline).await
}

/// Asks `address` for what is at `path`, as it is.
pub(crate) async fn get_bytes(
    address: &str,
    path: &str,
    deadline: Instant,
) -> Result<Bytes, Error> {
    sent(address, Method::GET, path, Bytes::new(), deadline).await
}

/// Asks `address` to remove what is at `path`.
pub(crate) async fn delete(address: &str, path: &str, deadline: Instant) -> Result<(), Error> {
    let removed = sent(address, Method::DELETE, path, Bytes::new(), deadline).await;
    removed.map(drop)
}

/// Sends `body` as JSON to `path`.
pub(crate) async fn post<T: DeserializeOwned>(
    address: &str,
    path: &str,
    body: &impl Serialize,
    deadline: Instant,
) -> Result<T, Error> {
    let body = serde_json::to_vec(body).expect("the value has nothing that JSON cannot say");
    send(address, Method::POST, path, body.into(), deadline).await
}

/// Sends `body` as it is to `path`.
pub(crate) async fn post_bytes<T: DeserializeOwned>(
    address: &str,
    path: &str,
    body: Bytes,
    deadline: Instant,
) -> Result<T, Error> {
    send(address, Method::POST, path, body, deadline).await
}

async fn send<T: DeserializeOwned>(
    address: &str,
    method: Method,
    path: &str,
    body: Bytes,
    deadline: Instant,
) -> Result<T, Error> {
    let body = sent(address, method, path, body, deadline).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Error::NoAnswer(format!("the answer cannot be read: {error}")))
}

/// The body of an answer that is a success.
async fn sent(
    address: &str,
    method: Method,
    path: &str,
    body: Bytes,
    deadline: Instant,
) -> Result<Bytes, Error> {
    let host = address
        .strip_prefix("http://")
        .unwrap_or(address)
        .trim_end_matches('/');
    let in_time = || "no answer in time".to_owned();
    let stream = timeout_at(deadline, TcpStream::connect(host))
        .await
        .map_err(|_| Error::NotSent(in_time()))?
        .map_err(|error| Error::NotSent(error.to_string()))?;
    let (status, body) = timeout_at(deadline, exchange(stream, host, method, path, body))
        .await
        .unwrap_or_else(|_| Err(in_time()))
        .map_err(Error::NoAnswer)?;
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice::<ApiError>(&body) {
        Ok(answer) => Err(Error::Refused(status, answer.error)),
        Err(_) => Err(Error::NoAnswer(format!("HTTP status {status}"))),
    }
}

async fn exchange(
    stream: TcpStream,
    host: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    // The connection moves the bytes; it ends by itself only after the answer, or by an error that
    // the answer tells.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = answer.as_mut() => answer,
        _ = connection => answer.await,
    }
}
