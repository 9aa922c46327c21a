//! What the admin listener tells of the replicated limits, and how they are set.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use quorate_core::limits::{Invalid, Limits, NAMED};
use serde::{Deserialize, Serialize};

use super::api::text;
use super::routes::{Context, Failure, failure, invalid};

/// The limits in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LimitsInForce {
    /// The newest entry that the node had applied, or an older one; of a change, its own.
    #[serde(with = "text")]
    pub index: u64,
    /// Each limit.
    pub limits: Vec<LimitInForce>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LimitInForce {
    /// Its name.
    pub name: String,
    /// What it is set to.
    pub value: u64,
    /// `count`, `bytes` or `milliseconds`.
    pub unit: String,
    /// The least that it may be set to.
    pub least: u64,
    /// The most.
    pub most: u64,
}

impl LimitsInForce {
    pub(crate) fn new(index: u64, limits: &Limits) -> Self {
        let limits = NAMED.iter().map(|named| LimitInForce {
            name: named.name.to_owned(),
            value: named.of(limits),
            unit: named.unit.name().to_owned(),
            least: named.least,
            most: named.most,
        });
        Self {
            index,
            limits: limits.collect(),
        }
    }
}

/// Limits to set, by name; the others stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitChanges {
    /// What to set, and to what.
    pub set: BTreeMap<String, u64>,
}

/// Why limits were not told, or not set. Nothing was changed, but for
/// [`LimitsError::OutcomeUnknown`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// The node has not opened its files yet, or takes no part just now.
    #[error("the node is still starting, or has stopped")]
    NotRunning,
    /// Only the leader sets limits.
    #[error("this node does not lead")]
    NotLeader {
        /// The leader's admin address, if another node leads.
        admin: Option<String>,
    },
    /// They cannot be in force.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The module in force does not meet them.
    #[error("the module in force does not meet them: {0}")]
    Module(
        /// The rule of admission.
        String,
    ),
    /// The module's state is being migrated.
    #[error("the module's state is being migrated")]
    Migrating,
    /// The change was proposed, and the leader changed.
    #[error("it is not known whether the limits were set: the leader changed meanwhile")]
    OutcomeUnknown,
    /// The node's own trouble.
    #[error("the node cannot read its state: {0}")]
    Fault(
        /// What went wrong.
        String,
    ),
}

pub(super) async fn show(State(context): State<Context>) -> Result<Json<LimitsInForce>, Failure> {
    Ok(Json(context.source.limits().await?))
}

pub(super) async fn set(
    State(context): State<Context>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<LimitsInForce>, Failure> {
    let body = body.map_err(|error| invalid(error.body_text()))?;
    let changes: LimitChanges =
        serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?;
    if changes.set.is_empty() {
        return Err(invalid("name at least one limit to set".to_owned()));
    }
    Ok(Json(context.source.set_limits(changes).await?))
}

impl From<LimitsError> for Failure {
    fn from(error: LimitsError) -> Self {
        let message = error.to_string();
        let unavailable = |code| failure(StatusCode::SERVICE_UNAVAILABLE, code, message.clone());
        match error {
            LimitsError::NotRunning => unavailable("not-running").hint("ask again in a moment"),
            LimitsError::NotLeader { admin } => {
                failure(StatusCode::MISDIRECTED_REQUEST, "not-leader", message).leader(admin)
            }
            LimitsError::Invalid(Invalid::Unknown { .. }) => {
                failure(StatusCode::BAD_REQUEST, "limit-unknown", message)
                    .hint("`quorate limits show` lists them")
            }
            LimitsError::Invalid(_) => failure(StatusCode::BAD_REQUEST, "limit-invalid", message),
            LimitsError::Module(_) => failure(StatusCode::CONFLICT, "limits-refused", message)
                .hint("put a module in force that meets them, and then set them"),
            LimitsError::Migrating => unavailable("migrating").hint("try again when it has ended"),
            LimitsError::OutcomeUnknown => {
                unavailable("outcome-unknown").hint("look at them; to set them again does no harm")
            }
            LimitsError::Fault(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "fault", message),
        }
    }
}
