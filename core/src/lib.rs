//! The replicated state machine of Quorate: `(state, entry) -> writes, responses, effects`.
//!
//! Pure: no clock, no randomness, no file, no socket, no thread, no wasm. What time it is arrives in
//! the entry; what the state is, through [`state::Read`]; what the module does, through [`module`].

pub mod apply;
mod before;
pub mod codec;
pub mod context;
pub mod entry;
pub mod keys;
pub mod library;
pub mod limits;
pub mod memory;
pub mod meter;
pub mod module;
pub mod overlay;
pub mod query;
pub mod records;
pub mod result;
pub mod snapshot;
pub mod state;
