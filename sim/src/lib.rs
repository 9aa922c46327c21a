//! Runs a module in a test: a node's state machine in this process, in virtual time.
//!
//! One test body runs over the module as Rust of this process ([`Sim::native`]) and over the compiled module by a
//! node's admission and engine ([`Sim::wasm`], feature `wasm`). In both cases core's own `apply` runs each operation as
//! an entry of the log: sessions, exactly-once commands, requests to clients, timers, limits and upgrades are a node's,
//! not an imitation. What is missing is the cluster around it: disks, networks, elections.
//!
//! Beside what a test asserts it is checked that the module does the same when it is asked again, in another instance
//! ([`Checks`]).
//!
//! ```
//! use std::time::Duration;
//! use quorate_guest::prelude::*;
//! use quorate_sim::Sim;
//!
//! /// Counts, and forgets what it counted an hour after the first.
//! struct Visits;
//!
//! const COUNT: Item<u64> = Item::new("count");
//!
//! impl Module for Visits {
//!     const STATE_VERSION: u32 = 1;
//!     type Codec = Json;
//!     type Command = ();
//!     type Response = u64;
//!     type Query = ();
//!     type Answer = u64;
//!     type Request = ();
//!
//!     fn command(cx: &mut Context<Self>, _: ()) -> Result<u64> {
//!         let count = COUNT.get(cx)?.unwrap_or(0) + 1;
//!         if count == 1 {
//!             let due = cx.time().after(Duration::from_secs(3600));
//!             cx.set_timer("forget", due, b"");
//!         }
//!         COUNT.set(cx, &count)?;
//!         Ok(count)
//!     }
//!
//!     fn query(cx: &ReadContext, _: ()) -> Result<u64> {
//!         Ok(COUNT.get(cx)?.unwrap_or(0))
//!     }
//!
//!     fn timer(cx: &mut Context<Self>, _: Timer<'_>) -> Result<()> {
//!         COUNT.remove(cx)
//!     }
//! }
//!
//! export_module!(Visits, name: "visits");
//!
//! fn counts_for_an_hour(mut sim: Sim<Visits>) {
//!     let bob = sim.session(&[]);
//!     assert_eq!(sim.call(bob, ()), Ok(1));
//!     assert_eq!(sim.call(bob, ()), Ok(2));
//!     // Sent again since the answer was lost: the same answer, and it is not counted.
//!     assert_eq!(sim.call_again(bob), Ok(2));
//!     assert_eq!(sim.query(()), Ok(2));
//!     sim.advance(Duration::from_secs(3601));
//!     assert_eq!(sim.query(()), Ok(0));
//! }
//!
//! counts_for_an_hour(Sim::native::<Visits>());
//! // counts_for_an_hour(Sim::wasm("target/.../visits.wasm")?);
//! ```

#![deny(missing_docs)]

mod both;
mod builder;
mod divergence;
mod failure;
mod library;
mod machine;
mod native;
mod notes;
mod recorder;
pub mod script;
mod sim;
#[cfg(feature = "wasm")]
mod wasm;

pub use builder::Builder;
pub use divergence::Divergence;
pub use failure::{Failure, ModuleError, Problem, StartError, Trapped};
pub use machine::{Checks, End, FailedHook, Fuel, Kind, Machine, Request, Told};
pub use sim::{Sim, Untyped, UpgradeFailed};

pub use quorate_core::limits::Limits;
pub use quorate_core::module::{Manifest, Trap};
pub use quorate_core::records::NotActivated;
pub use quorate_core::result::Refusal;
