//! The admin listener: health, metrics, status, hashes and payloads as JSON, over HTTP.
//!
//! For operators and their tools; clients have no use for it. Only what is asked for with POST, but for
//! `/v1/view`, changes anything. What it tells comes from an [`AdminSource`]. Ids and indexes are strings
//! in JSON, since many readers round large numbers.
//!
//! | path | |
//! |---|---|
//! | `GET /metrics` | OpenMetrics text |
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz[?verbose]` | 200 if the node can serve, else 503; a line per check |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/hash[?index=N][&wait-ms=M]` | [`HashAt`], at the newest index or at N |
//! | `POST /v1/view` | a [`ViewRequest`]; a [`ViewAnswer`] |
//! | `GET /v1/sessions[?after=ID][&limit=N]` | [`SessionPage`], in order of id |
//! | `GET /v1/sessions/ID` | [`Session`] |
//! | `POST /v1/sessions/ID/close` | [`Closed`]; on a node that does not lead `not-leader`, with the leader's address |
//! | `GET /v1/limits` | [`LimitsInForce`] |
//! | `POST /v1/limits` | [`LimitChanges`]; [`LimitsInForce`] once they are set, only on the leader |
//! | `GET /v1/modules` | [`ModuleOverview`] |
//! | `POST /v1/modules` | a module's bytes; [`ModuleUploaded`]; only on the leader, as what follows |
//! | `POST /v1/modules/HASH/activate` | a [`ModuleWish`]; [`ModuleInForce`] |
//! | `POST /v1/modules/plan[?mode=MODE][&argument-bytes=N]` | a module's bytes, and the argument's; [`ModulePlan`] |
//! | `GET /v1/modules/log[?after=N][&since-us=T][&module=HASH][&wait-ms=M][&limit=N]` | [`ModuleLines`] of this node |
//! | `POST /v1/snapshots` | [`SnapshotBegun`]: a snapshot of this node's state |
//! | `GET /v1/snapshots/ID` | how far it is |
//! | `GET /v1/snapshots/ID/N` | its chunk N, as bytes |
//! | `DELETE /v1/snapshots/ID` | ends it |
//! | `POST /v1/repair/skip` | a [`Skip`]; the same, with its entry |
//!
//! Every error is `{"error":{"code","message","hint","leader"}}`; the last two may be absent.

mod api;
mod limits;
mod module_routes;
mod modules;
mod repair;
mod routes;
mod server;
mod session_routes;
mod sessions;
mod snapshots;

pub use api::{
    AdminSource, ApiError, Check, CheckpointStatus, ErrorBody, HashAt, Member, ModuleStatus,
    PayloadKind, Role, Status, ViewAnswer, ViewError, ViewRequest, hex, text, unhex,
};
pub use limits::{LimitChanges, LimitInForce, LimitsError, LimitsInForce};
pub use modules::{
    ARGUMENT_BYTES_MAX, Difference, KeptModule, ModuleActivation, ModuleInForce, ModuleLine,
    ModuleLines, ModuleMigration, ModuleOverview, ModulePlan, ModuleRefused, ModuleSource,
    ModuleUploaded, ModuleWish, PlannedMigration, PlannedReplay, module_hash,
};
pub use repair::{Extent, Poison, Skip, SkipRefused};
pub use server::{Admin, CONNECTIONS_MAX};
pub(crate) use sessions::not_leader;
pub use sessions::{Closed, Live, PAGE_SESSIONS_MAX, Session, SessionError, SessionPage};
pub use snapshots::{SnapshotBegun, SnapshotError, SnapshotSource};

#[cfg(test)]
mod admin_test;
