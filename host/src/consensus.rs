//! Agreement on the log: openraft, and everything that names its types.

pub mod types;
