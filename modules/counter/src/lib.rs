//! A counter: the smallest useful module.
//!
//! `{"add":5}` and `"reset"` are its commands; both answer the new value. The query `null` answers the value.

use quorate_guest::prelude::*;

/// The counter.
#[derive(Debug)]
pub struct Counter;

const VALUE: Item<u64> = Item::new("value");

/// What a client asks of the counter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Adds a number. The value stays at 2^64 - 1 once it is there.
    Add(u64),
    /// Begins again at 0.
    Reset,
}

impl Module for Counter {
    const STATE_VERSION: u32 = 1;
    type Codec = Json;
    type Command = Command;
    type Response = u64;
    type Query = ();
    type Answer = u64;
    type Request = ();

    fn command(cx: &mut Context<Self>, command: Command) -> Result<u64> {
        let value = match command {
            Command::Add(n) => VALUE.get(cx)?.unwrap_or(0).saturating_add(n),
            Command::Reset => 0,
        };
        VALUE.set(cx, &value)?;
        Ok(value)
    }

    fn query(cx: &ReadContext, (): ()) -> Result<u64> {
        Ok(VALUE.get(cx)?.unwrap_or(0))
    }
}

export_module!(Counter, name: "counter");
