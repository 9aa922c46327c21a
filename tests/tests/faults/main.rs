//! What goes wrong around a cluster of real processes, and what must come of it. One binary for all,
//! so that they link once; a module for each kind of fault.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crash;
mod modules;
mod peers;
