//! Agreement on the log: openraft, and everything that names its types.

pub mod encoding;
pub mod runtime;
pub mod types;
