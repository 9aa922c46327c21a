//! What the admin listener tells and takes about operations at which a node's own code panics.

use serde::{Deserialize, Serialize};

use super::api::text;

/// The operation at which a node stands still, since its code panics there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Poison {
    /// The entry.
    #[serde(with = "text")]
    pub index: u64,
    /// The operation's place in it, from 0.
    pub position: u32,
    /// BLAKE3 of the entry, hexadecimal: that nodes mean the same one.
    pub entry: String,
}

/// How much of an operation is skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// The module is not called; what the node itself records of the operation is recorded.
    #[default]
    Module,
    /// Nothing is done at all.
    Operation,
}

/// An operation to skip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Skip {
    /// The entry.
    #[serde(with = "text")]
    pub index: u64,
    /// The operation's place in it, from 0.
    pub position: u32,
    /// How much of it.
    #[serde(default)]
    pub extent: Extent,
    /// BLAKE3 of the entry, hexadecimal. Without it only a node takes the skip that stands still at
    /// exactly this operation; with it also one that has not come to the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

/// Why a skip was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SkipRefused {
    /// The node has not opened its files yet.
    #[error("the node is still starting")]
    Starting,
    /// The node does not stand still there, and was not told which entry is meant.
    #[error("this node does not stand still at {index}:{position}: {instead}")]
    NotPoisoned {
        /// The entry.
        index: u64,
        /// The operation in it.
        position: u32,
        /// What it does instead.
        instead: String,
    },
    /// The entry is in its state, with the operation.
    #[error("{message}")]
    Applied {
        /// Which entry.
        message: String,
    },
    /// It has another entry at this index.
    #[error("{message}")]
    OtherEntry {
        /// Which entry.
        message: String,
    },
    /// The node's own trouble.
    #[error("{message}")]
    Fault {
        /// What went wrong.
        message: String,
    },
}
