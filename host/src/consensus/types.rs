//! The types that openraft is configured with.

use std::fmt;

use std::sync::Arc;

use bytes::Bytes;
use openraft::entry::EntryPayload;
use openraft::impls::leader_id_std;
use quorate_core::apply::Applied;

use super::runtime::Runtime;
use crate::drive::Instant;

openraft::declare_raft_types!(
    /// How openraft is parameterised: terms and node ids are `u64`, at most one leader per term, and
    /// time, tasks and randomness come from [`Runtime`].
    pub TypeConfig:
        D = EntryBytes,
        R = ApplyResponse,
        NodeId = NodeId,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, NodeId>,
        Vote = Vote,
        Payload = Payload,
        Entry = Entry,
        AsyncRuntime = Runtime,
);

/// Id of a node, given in its configuration and never reused in a cluster.
pub type NodeId = u64;

/// Who leads, or wants to lead, in a term.
pub type LeaderId = leader_id_std::LeaderId<u64, NodeId>;

/// The leader part of a log id: in a term there is at most one leader, so only the term.
pub type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;

/// The vote a node granted, and whether a quorum granted it as well.
pub type Vote = openraft::impls::Vote<LeaderId>;

/// Term and index of a log entry, as openraft names it.
pub type LogId = openraft::LogId<CommittedLeaderId>;

/// What a log entry holds: nothing, an [`EntryBytes`], or a membership.
pub type Payload = EntryPayload<EntryBytes, NodeId, Member>;

/// A log entry.
pub type Entry = openraft::Entry<CommittedLeaderId, Payload>;

/// What a snapshot contains, as openraft names it.
pub type SnapshotMeta = openraft::storage::SnapshotMeta<CommittedLeaderId, NodeId, Member>;

/// A snapshot and what it contains.
pub type Snapshot =
    openraft::storage::Snapshot<CommittedLeaderId, NodeId, Member, super::machine::SnapshotData>;

/// Voters (one or two sets of them) and learners.
pub type Membership = openraft::Membership<NodeId, Member>;

/// A membership and the log id of the entry that brought it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Member>;

/// What applying an entry gives to who proposed it.
///
/// openraft's trait bounds ask for serde; neither disk nor wire uses it.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(from = "()", into = "()")]
pub struct ApplyResponse(pub Option<AppliedEntry>);

/// An entry of operations that was applied, and when.
#[derive(Clone, Debug)]
pub struct AppliedEntry {
    /// What it did.
    pub applied: Arc<Applied>,
    /// When that began.
    pub began: Instant,
    /// When it was done.
    pub ended: Instant,
}

impl From<()> for ApplyResponse {
    fn from((): ()) -> Self {
        Self(None)
    }
}

impl From<ApplyResponse> for () {
    fn from(_: ApplyResponse) -> Self {}
}

/// A log entry's content: an encoded `quorate_core` entry. Cheap to clone.
///
/// openraft's trait bounds ask for serde; neither disk nor wire uses it.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub struct EntryBytes(pub Bytes);

impl From<Vec<u8>> for EntryBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<EntryBytes> for Vec<u8> {
    fn from(entry: EntryBytes) -> Self {
        entry.0.into()
    }
}

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryBytes({} bytes)", self.0.len())
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A member as the membership names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Random id of the member's data directory; a wiped directory is another one.
    pub incarnation: [u8; 16],
    /// Where other nodes reach it, `host:port`.
    pub raft: String,
    /// Where clients reach it, `tcp://host:port`.
    pub client: String,
    /// Where operators reach it, `host:port`.
    pub admin: String,
    /// Its configured name: what version-1 clients know it by.
    pub name: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raft)
    }
}
