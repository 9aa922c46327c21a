//! The paths of the admin listener.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::api::{ApiError, ErrorBody, HashAt, ViewAnswer, ViewRequest, hex, unhex};
use super::repair::{Skip, SkipRefused};
use super::{AdminSource, ViewError, limits, module_routes, session_routes, snapshots};
use crate::drive::Driver;
use crate::metrics::CONTENT_TYPE;

/// Longest body of a request, in bytes: a payload of 1 MiB in hexadecimal, or its JSON.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Modules that are received or worked on at one time; each is in memory as a whole.
const UPLOADS_MAX: usize = 2;
/// Longest that a request for a hash waits for its index.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Context {
    pub(super) source: Arc<dyn AdminSource>,
    /// Who sends a module just now.
    pub(super) uploads: Arc<Semaphore>,
    driver: Driver,
}

/// An answer that is an error, with its HTTP status.
pub(super) struct Failure(StatusCode, ErrorBody);

pub(super) fn router(source: Arc<dyn AdminSource>, driver: Driver) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/v1/status", get(status))
        .route("/v1/hash", get(hash))
        .route("/v1/view", post(view))
        .route("/v1/sessions", get(session_routes::list))
        .route("/v1/sessions/{id}", get(session_routes::show))
        .route("/v1/sessions/{id}/close", post(session_routes::close))
        .route("/v1/limits", get(limits::show).post(limits::set))
        .route(
            "/v1/modules",
            get(module_routes::overview).post(module_routes::upload),
        )
        .route("/v1/modules/plan", post(module_routes::plan))
        .route("/v1/modules/log", get(module_routes::said))
        .route("/v1/modules/{hash}/activate", post(module_routes::activate))
        .route("/v1/snapshots", post(snapshots::begin))
        .route(
            "/v1/snapshots/{id}",
            get(snapshots::look).delete(snapshots::end),
        )
        .route("/v1/snapshots/{id}/{chunk}", get(snapshots::chunk))
        .route("/v1/repair/skip", post(skip))
        .fallback(async || {
            let hint = "the paths are /metrics, /livez, /readyz, /v1/status, /v1/hash, /v1/view, \
                        /v1/sessions, /v1/sessions/ID, /v1/sessions/ID/close, /v1/limits, \
                        /v1/modules, /v1/modules/plan, /v1/modules/log, \
                        /v1/modules/HASH/activate, /v1/snapshots, /v1/snapshots/ID, \
                        /v1/snapshots/ID/CHUNK, /v1/repair/skip";
            failure(StatusCode::NOT_FOUND, "not-found", "no such path").hint(hint)
        })
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            failure(
                status,
                "method-not-allowed",
                "the path is not for this method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Context {
            source,
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            driver,
        })
}

async fn metrics(State(context): State<Context>) -> Response {
    let text = context.source.metrics().encode();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

#[derive(Deserialize)]
struct ReadyParameters {
    verbose: Option<String>,
}

async fn readyz(
    State(context): State<Context>,
    parameters: Result<Query<ReadyParameters>, QueryRejection>,
) -> Response {
    let verbose = parameters.is_ok_and(|Query(parameters)| parameters.verbose.is_some());
    let checks = context.source.readiness().await;
    let ready = checks.iter().all(|check| check.failure.is_none());
    let mut text = String::new();
    // Who is told that a node is not ready wants to know why.
    for check in checks.iter().filter(|_| verbose || !ready) {
        let name = check.name;
        match &check.failure {
            None => writeln!(text, "[+]{name} ok"),
            Some(failure) => writeln!(text, "[-]{name} failed: {failure}"),
        }
        .expect("writing to a string cannot fail");
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text).into_response()
}

async fn status(State(context): State<Context>) -> Response {
    Json(context.source.status().await).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HashParameters {
    index: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
}

async fn hash(
    State(context): State<Context>,
    parameters: Result<Query<HashParameters>, QueryRejection>,
) -> Result<Json<HashAt>, Failure> {
    let Query(parameters) = parameters.map_err(|error| invalid(error.body_text()))?;
    let mut applied = context.source.applied();
    let index = match parameters.index {
        Some(0) => return Err(invalid("index 0 is before the first entry".to_owned())),
        Some(index) => index,
        None => *applied.borrow(),
    };
    let wait = Duration::from_millis(parameters.wait_ms).min(WAIT_MAX);
    let reached = tokio::select! {
        // Sent once more or never: a node that stops says so by its deadline.
        reached = applied.wait_for(|applied| *applied >= index) => reached.is_ok(),
        () = context.driver.sleep(wait) => false,
    };
    if !reached {
        let applied = *context.source.applied().borrow();
        let message = format!("entry {index} is not applied yet, the newest is {applied}");
        let hint = "the node is behind; ask again, or with a longer wait-ms";
        return Err(failure(StatusCode::GATEWAY_TIMEOUT, "not-applied-yet", message).hint(hint));
    }
    let hashes = context.source.hashes();
    // Between two changes the hash stays what the earlier one left.
    let after = hashes.partition_point(|(changed, _)| *changed <= index);
    let Some((_, hash)) = after.checked_sub(1).and_then(|at| hashes.get(at)) else {
        let message = format!("the hash at entry {index} is no longer known");
        let hint = "ask for a newer index";
        return Err(failure(StatusCode::GONE, "hash-forgotten", message).hint(hint));
    };
    Ok(Json(HashAt {
        index,
        hash: hex(hash),
    }))
}

async fn view(
    State(context): State<Context>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ViewAnswer>, Failure> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body is longer than {} MiB", BODY_BYTES_MAX >> 20);
            failure(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
        }
        _ => invalid(error.body_text()),
    })?;
    let request: ViewRequest =
        serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    match (request.json, request.payload) {
        (Some(json), None) if request.index.is_none() => {
            let json = String::from(Box::<str>::from(json));
            let payload = context.source.payload_from_json(request.kind, json).await?;
            Ok(Json(ViewAnswer {
                json: None,
                payload: Some(hex(&payload)),
            }))
        }
        (None, Some(payload)) => {
            let payload = unhex(&payload)
                .ok_or_else(|| invalid("the payload is not hexadecimal".to_owned()))?;
            let json = context
                .source
                .payload_to_json(request.kind, payload, request.index)
                .await?;
            let json = RawValue::from_string(json).map_err(|error| {
                let message = format!("the module wrote something else than JSON: {error}");
                failure(StatusCode::UNPROCESSABLE_ENTITY, "view-refused", message)
            })?;
            Ok(Json(ViewAnswer {
                json: Some(json),
                payload: None,
            }))
        }
        _ => Err(invalid(
            "give either `json`, or `payload` and perhaps `index`".to_owned(),
        )),
    }
}

async fn skip(
    State(context): State<Context>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Skip>, Failure> {
    let body = body.map_err(|error| invalid(error.body_text()))?;
    let skip: Skip = serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    Ok(Json(context.source.skip(skip).await?))
}

pub(super) fn timed_out() -> Response {
    let message = "the request took too long";
    failure(StatusCode::REQUEST_TIMEOUT, "timeout", message).into_response()
}

pub(super) fn failure(status: StatusCode, code: &str, message: impl Into<String>) -> Failure {
    Failure(
        status,
        ErrorBody {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            leader: None,
        },
    )
}

pub(super) fn invalid(message: String) -> Failure {
    failure(StatusCode::BAD_REQUEST, "invalid-request", message)
}

impl Failure {
    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.1.hint = Some(hint.to_owned());
        self
    }

    pub(super) fn leader(mut self, admin: Option<String>) -> Self {
        self.1.leader = admin;
        self
    }
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        let message = error.to_string();
        match error {
            ViewError::NoModule => failure(StatusCode::SERVICE_UNAVAILABLE, "no-module", message),
            ViewError::Behind { .. } => failure(StatusCode::SERVICE_UNAVAILABLE, "behind", message)
                .hint("try again, or ask another node"),
            ViewError::Forgotten { .. } => failure(StatusCode::GONE, "module-forgotten", message)
                .hint("`quorate module list` shows what is kept"),
            ViewError::NotOffered => {
                let hint = "give the payload as it is, with `--hex` or `--file`";
                failure(StatusCode::NOT_IMPLEMENTED, "no-json", message).hint(hint)
            }
            ViewError::Refused { .. } => {
                failure(StatusCode::UNPROCESSABLE_ENTITY, "view-refused", message)
            }
            ViewError::Busy => {
                failure(StatusCode::SERVICE_UNAVAILABLE, "busy", message).hint("try again")
            }
            ViewError::Fault { .. } => failure(StatusCode::INTERNAL_SERVER_ERROR, "fault", message),
        }
    }
}

impl From<SkipRefused> for Failure {
    fn from(error: SkipRefused) -> Self {
        let message = error.to_string();
        let conflict = |code| failure(StatusCode::CONFLICT, code, message.clone());
        match error {
            SkipRefused::Starting => failure(StatusCode::SERVICE_UNAVAILABLE, "starting", message)
                .hint("ask again in a moment"),
            SkipRefused::NotPoisoned { .. } => conflict("not-poisoned"),
            SkipRefused::Applied { .. } => conflict("entry-applied"),
            SkipRefused::OtherEntry { .. } => conflict("other-entry"),
            SkipRefused::Fault { .. } => {
                failure(StatusCode::INTERNAL_SERVER_ERROR, "fault", message)
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(ApiError { error: self.1 })).into_response()
    }
}
