//! Agreement on the log: openraft, and everything that names its types.

pub mod encoding;
mod handle;
mod log_storage;
pub mod machine;
pub mod me;
pub mod network;
pub mod rpc;
pub mod runtime;
pub mod types;

pub use handle::{
    Clocks, Consensus, Failure, Leadership, NotConfirmed, ProposeError, Status, Stopped, Succession,
};
