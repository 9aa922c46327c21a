//! A snapshot of a node's state, for whoever asks the admin listener: chunk by chunk, as nodes give it to
//! each other.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::api::text;
use super::routes::{Context, Failure, failure, invalid};

/// What the admin listener asks about snapshots: the node.
pub trait SnapshotSource: Send + Sync {
    /// Begins a snapshot of the newest state that is durable here.
    fn begin(&self) -> BoxFuture<'_, Result<SnapshotBegun, SnapshotError>>;

    /// How far the snapshot of this id is.
    fn look(&self, id: &str) -> Result<SnapshotBegun, SnapshotError>;

    /// One chunk of the snapshot of this id, from 0 on.
    fn chunk(&self, id: String, number: u64) -> BoxFuture<'_, Result<Bytes, SnapshotError>>;

    /// Removes it: whoever began it has read it.
    fn end(&self, id: &str) -> Result<(), SnapshotError>;
}

/// A snapshot that was begun. It is kept until it is ended or nobody has asked for it for a minute; for
/// an hour at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotBegun {
    /// The node whose state it is.
    #[serde(with = "text")]
    pub node_id: u64,
    /// The same id is the same bytes.
    pub id: String,
    /// The last entry in it.
    #[serde(with = "text")]
    pub index: u64,
    /// That entry's term.
    #[serde(with = "text")]
    pub term: u64,
    /// How many chunks it has; absent while it is being written, which takes minutes for a large state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    /// Length of all of them, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Why there is no snapshot, or no chunk of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The node has not opened its files yet, or takes no part just now.
    #[error("the node is still starting, or has stopped")]
    NotRunning,
    /// The node knows no leader: what it has may be old.
    #[error("the node knows no leader")]
    NoLeader,
    /// So many committed entries are not applied here yet.
    #[error("the node is {0} entries behind")]
    Behind(u64),
    /// As many snapshots are being read as a node gives at a time.
    #[error("other snapshots of the node are being read")]
    Busy,
    /// What is free on the node's disk is kept for what is replicated.
    #[error("no room for a snapshot: {free} bytes are free, of which {kept} are kept")]
    NoRoom {
        /// Bytes that are free.
        free: u64,
        /// Bytes that a snapshot leaves free.
        kept: u64,
    },
    /// It is not written yet.
    #[error("the snapshot is still being written")]
    Writing,
    /// Nothing was ever applied.
    #[error("the node has applied nothing yet")]
    Nothing,
    /// It was ended, or nobody asked for it for a minute, or it is an hour old.
    #[error("the snapshot is gone")]
    Gone,
    /// It has fewer chunks.
    #[error("the snapshot has no chunk {0}")]
    NoChunk(u64),
    /// The node's own trouble.
    #[error("the node cannot: {0}")]
    Fault(String),
}

pub(super) async fn begin(State(context): State<Context>) -> Result<Json<SnapshotBegun>, Failure> {
    let source = context.source.snapshots();
    let source = source.ok_or(SnapshotError::NotRunning)?;
    Ok(Json(source.begin().await?))
}

pub(super) async fn look(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Json<SnapshotBegun>, Failure> {
    let source = context.source.snapshots();
    let source = source.ok_or(SnapshotError::NotRunning)?;
    Ok(Json(source.look(&id)?))
}

pub(super) async fn end(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    let source = context.source.snapshots();
    let source = source.ok_or(SnapshotError::NotRunning)?;
    source.end(&id)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn chunk(
    State(context): State<Context>,
    Path((id, number)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let number = number.parse();
    let number = number.map_err(|_| invalid("a chunk is named by its number".to_owned()))?;
    let source = context.source.snapshots();
    let source = source.ok_or(SnapshotError::NotRunning)?;
    let chunk = source.chunk(id, number).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], chunk).into_response())
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let message = error.to_string();
        match error {
            SnapshotError::NotRunning | SnapshotError::Nothing => {
                failure(StatusCode::SERVICE_UNAVAILABLE, "not-running", message).hint("try again")
            }
            SnapshotError::Behind(_) => {
                failure(StatusCode::SERVICE_UNAVAILABLE, "node-behind", message)
                    .hint("ask another node")
            }
            SnapshotError::NoLeader => {
                failure(StatusCode::SERVICE_UNAVAILABLE, "no-leader", message)
                    .hint("ask another node")
            }
            SnapshotError::NoRoom { .. } => {
                failure(StatusCode::INSUFFICIENT_STORAGE, "no-room", message)
                    .hint("ask another node")
            }
            SnapshotError::Busy => {
                failure(StatusCode::SERVICE_UNAVAILABLE, "busy", message).hint("try again")
            }
            SnapshotError::Writing => {
                failure(StatusCode::CONFLICT, "snapshot-writing", message).hint("try again")
            }
            SnapshotError::Gone => {
                failure(StatusCode::GONE, "snapshot-gone", message).hint("begin another one")
            }
            SnapshotError::NoChunk(_) => failure(StatusCode::NOT_FOUND, "no-chunk", message),
            SnapshotError::Fault(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "fault", message),
        }
    }
}
