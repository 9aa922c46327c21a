//! Agreement on the log: openraft, and everything that names its types.

pub mod encoding;
mod log_storage;
pub mod runtime;
pub mod types;
