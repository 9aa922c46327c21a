//! The paths about modules.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use quorate_core::module::ModuleHash;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::modules::{
    ARGUMENT_BYTES_MAX, ModuleInForce, ModuleLines, ModuleOverview, ModulePlan, ModuleSource,
    ModuleUploaded, ModuleWish, module_hash,
};
use super::routes::{Context, Failure, failure, invalid};
use super::unhex;
use crate::modules::{Error, Mode, Quorum, Selection, Wish};

/// Longest that a request waits: for nodes to get ready, or for a line.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Lines in one answer at most.
const LINES_MAX: usize = 1000;

pub(super) async fn overview(
    State(context): State<Context>,
) -> Result<Json<ModuleOverview>, Failure> {
    Ok(Json(source(&context)?.overview().await?))
}

pub(super) async fn upload(
    State(context): State<Context>,
    body: Body,
) -> Result<Json<ModuleUploaded>, Failure> {
    let source = source(&context)?;
    let _permit = permit(&context)?;
    let code = module_bytes(&*source, body).await?;
    Ok(Json(source.upload(code).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PlanParameters {
    #[serde(default)]
    mode: Mode,
    /// How many bytes at the end of the body are the argument.
    #[serde(default)]
    argument_bytes: usize,
}

pub(super) async fn plan(
    State(context): State<Context>,
    parameters: Result<Query<PlanParameters>, QueryRejection>,
    body: Body,
) -> Result<Json<ModulePlan>, Failure> {
    let Query(parameters) = parameters.map_err(|error| invalid(error.body_text()))?;
    let argument_bytes = parameters.argument_bytes;
    if argument_bytes > ARGUMENT_BYTES_MAX {
        return Err(argument_too_long());
    }
    let source = source(&context)?;
    let _permit = permit(&context)?;
    let mut code = bytes_of(&*source, body, argument_bytes).await?;
    let Some(at) = code.len().checked_sub(argument_bytes) else {
        let text = format!("the body is shorter than its argument of {argument_bytes} bytes");
        return Err(invalid(text));
    };
    let argument = code.split_off(at);
    Ok(Json(source.plan(code, parameters.mode, argument).await?))
}

/// What a migration or an init is handed.
fn handed(argument: Option<&str>) -> Result<Vec<u8>, Failure> {
    let argument = unhex(argument.unwrap_or_default());
    let argument = argument.ok_or_else(|| invalid("the argument is not hexadecimal".to_owned()))?;
    match argument.len() > ARGUMENT_BYTES_MAX {
        true => Err(argument_too_long()),
        false => Ok(argument),
    }
}

fn argument_too_long() -> Failure {
    invalid(format!(
        "the argument is longer than {ARGUMENT_BYTES_MAX} bytes"
    ))
}

/// A place among those who send a module.
pub(super) fn permit(context: &Context) -> Result<OwnedSemaphorePermit, Failure> {
    let permit = Arc::clone(&context.uploads).try_acquire_owned();
    permit.map_err(|_| Failure::from(Error::Busy))
}

/// The bytes of a module, no more of them than show that it is too large.
pub(super) async fn module_bytes(
    source: &dyn ModuleSource,
    body: Body,
) -> Result<Vec<u8>, Failure> {
    bytes_of(source, body, 0).await
}

/// The same, with `more` bytes of something else behind it.
async fn bytes_of(source: &dyn ModuleSource, body: Body, more: usize) -> Result<Vec<u8>, Failure> {
    let bytes_max = source.module_bytes_max();
    let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let body = Limited::new(body, limit.saturating_add(more))
        .collect()
        .await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => {
            let message = format!("the module is longer than {bytes_max} bytes (module-size)");
            failure(StatusCode::PAYLOAD_TOO_LARGE, "module-rejected", message)
        }
        false => invalid(error.to_string()),
    })?;
    Ok(body.to_bytes().to_vec())
}

pub(super) async fn activate(
    State(context): State<Context>,
    Path(hash): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ModuleInForce>, Failure> {
    let hash = parsed(&hash)?;
    let body = body.map_err(|error| invalid(error.body_text()))?;
    let wish: ModuleWish = match body.is_empty() {
        true => ModuleWish::default(),
        false => serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?,
    };
    let wish = Wish {
        hash,
        mode: wish.mode,
        expected: wish.expected.as_deref().map(parsed).transpose()?,
        quorum: match (wish.force, wish.wait_on) {
            (true, false) => Quorum::Majority,
            (true, true) => Quorum::MajorityOnceCompiled,
            (false, _) => Quorum::All,
        },
        wait: Duration::from_millis(wish.wait_ms).min(WAIT_MAX),
        argument: handed(wish.argument.as_deref())?,
    };
    Ok(Json(source(&context)?.activate(wish).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LogParameters {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    since_us: u64,
    module: Option<String>,
    #[serde(default)]
    wait_ms: u64,
    limit: Option<usize>,
}

pub(super) async fn said(
    State(context): State<Context>,
    parameters: Result<Query<LogParameters>, QueryRejection>,
) -> Result<Json<ModuleLines>, Failure> {
    let Query(parameters) = parameters.map_err(|error| invalid(error.body_text()))?;
    let limit = parameters.limit.unwrap_or(LINES_MAX);
    if !(1..=LINES_MAX).contains(&limit) {
        return Err(invalid(format!("limit is from 1 to {LINES_MAX}")));
    }
    let selection = Selection {
        after: parameters.after,
        since_us: parameters.since_us,
        module: parameters.module.as_deref().map(parsed).transpose()?,
        limit,
    };
    let wait = Duration::from_millis(parameters.wait_ms).min(WAIT_MAX);
    Ok(Json(source(&context)?.said(selection, wait).await?))
}

pub(super) fn source(context: &Context) -> Result<Arc<dyn ModuleSource>, Failure> {
    let source = context.source.modules();
    source.ok_or_else(|| Failure::from(Error::NotRunning))
}

pub(super) fn parsed(text: &str) -> Result<ModuleHash, Failure> {
    let hash = module_hash(text);
    hash.ok_or_else(|| invalid(format!("not the SHA-256 of a module: {text}")))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::NotRunning | Error::Busy | Error::NotReady(_) | Error::OutcomeUnknown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Error::NotLeader { .. } => StatusCode::MISDIRECTED_REQUEST,
            Error::Rejected { .. } | Error::NodeRejects { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Unknown(_) => StatusCode::NOT_FOUND,
            Error::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Error::NoRoom
            | Error::Incomplete(_)
            | Error::Superseded { .. }
            | Error::OtherName { .. }
            | Error::NotEmpty { .. }
            | Error::NoMigration { .. }
            | Error::Migrating
            | Error::MigrationGivenUp
            | Error::NotActivated(_) => StatusCode::CONFLICT,
        };
        let told = failure(status, error.code(), error.to_string());
        let told = match error.hint() {
            Some(hint) => told.hint(hint),
            None => told,
        };
        match error {
            Error::NotLeader { admin, .. } => told.leader(admin),
            _ => told,
        }
    }
}
