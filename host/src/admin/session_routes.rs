//! The paths about sessions.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use quorate_protocol::SessionId;
use serde::Deserialize;

use super::routes::{Context, Failure, failure, invalid};
use super::sessions::{Closed, PAGE_SESSIONS_MAX, Session, SessionError, SessionPage};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageParameters {
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(context): State<Context>,
    parameters: Result<Query<PageParameters>, QueryRejection>,
) -> Result<Json<SessionPage>, Failure> {
    let Query(parameters) = parameters.map_err(|error| invalid(error.body_text()))?;
    let after = parameters.after.as_deref().map(session_id).transpose()?;
    let limit = parameters.limit.unwrap_or(PAGE_SESSIONS_MAX);
    if !(1..=PAGE_SESSIONS_MAX).contains(&limit) {
        let message = format!("limit is from 1 to {PAGE_SESSIONS_MAX}");
        return Err(invalid(message));
    }
    Ok(Json(context.source.sessions(after, limit).await?))
}

pub(super) async fn show(
    State(context): State<Context>,
    Path(session): Path<String>,
) -> Result<Json<Session>, Failure> {
    let session = session_id(&session)?;
    Ok(Json(context.source.session(session).await?))
}

pub(super) async fn close(
    State(context): State<Context>,
    Path(session): Path<String>,
) -> Result<Json<Closed>, Failure> {
    let session = session_id(&session)?;
    context.source.close_session(session).await?;
    Ok(Json(Closed {
        id: session.to_string(),
        outcome: "closed".to_owned(),
    }))
}

fn session_id(text: &str) -> Result<SessionId, Failure> {
    text.parse()
        .map_err(|_| invalid(format!("not the id of a session: {text}")))
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        let unavailable = |code| failure(StatusCode::SERVICE_UNAVAILABLE, code, message.clone());
        match error {
            SessionError::NotRunning => unavailable("not-running").hint("ask again in a moment"),
            SessionError::NotLeader { admin, .. } => {
                failure(StatusCode::MISDIRECTED_REQUEST, "not-leader", message).leader(admin)
            }
            SessionError::NoSession(_) => failure(StatusCode::NOT_FOUND, "no-session", message),
            SessionError::Continued => failure(StatusCode::CONFLICT, "session-continued", message)
                .hint("close it again, if it is to end all the same"),
            SessionError::Busy => unavailable("busy").hint("try again"),
            SessionError::OutcomeUnknown => unavailable("outcome-unknown")
                .hint("look whether it still exists; to close it again does no harm"),
            SessionError::Fault(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "fault", message),
        }
    }
}
