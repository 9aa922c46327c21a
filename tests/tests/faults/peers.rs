//! Hostile peers at the client port of a node that serves well-behaved clients.
//!
//! Every test ends with what must hold for all of them: each command of the other clients was applied,
//! the node's memory grew by less than 64 MiB, it runs, and its log has no panic.

mod descriptors;
mod floods;
mod opening;
mod peer;
mod slow;
mod target;
mod traffic;
