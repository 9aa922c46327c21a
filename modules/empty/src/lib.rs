//! A module that does nothing yet.
//!
//! Its command is `"nothing"`, its query `null`; both answer `null`.

use quorate_guest::prelude::*;

/// The state machine. What it remembers goes to the store, through `Item`, `Map` and `Set`.
#[derive(Debug)]
pub struct Machine;

/// What a client asks to be done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Changes nothing.
    Nothing,
}

impl Module for Machine {
    const STATE_VERSION: u32 = 1;
    type Codec = Json;
    type Command = Command;
    type Response = ();
    type Query = ();
    type Answer = ();
    type Request = ();

    fn command(_: &mut Context<Self>, command: Command) -> Result<()> {
        match command {
            Command::Nothing => Ok(()),
        }
    }

    fn query(_: &ReadContext, (): ()) -> Result<()> {
        Ok(())
    }
}

export_module!(Machine, name: "empty");
