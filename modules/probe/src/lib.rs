//! What the simulation of whole clusters runs: a module whose state tells what took effect, when, and how often.
//!
//! Each command has a number of its own in the whole run. The module keeps, for each number, how often a command of it
//! took effect and where in the log; so what clients were told can be compared with what happened.

use std::time::Duration;

use quorate_guest::prelude::*;

/// The probe.
#[derive(Debug)]
pub struct Probe;

/// What took effect, by the command's number.
const EXECUTED: Map<u64, Execution> = Map::new("executed");
const TOTAL: Item<u64> = Item::new("total");
const REGISTERS: Map<u32, u64> = Map::new("registers");
const SUBSCRIBERS: Set<SessionId> = Set::new("subscribers");
/// How many broadcasts there were.
const BROADCASTS: Item<u64> = Item::new("broadcasts");
/// The timers that fired, by the number of the command that set them.
const FIRED: Map<u64, Firing> = Map::new("fired");
/// Room that nobody reads.
const FILLING: Map<u64, String> = Map::new("filling");
/// The state version that the data was last migrated to; nothing: it never was.
const LAYOUT: Item<u32> = Item::new("layout");
/// The sessions that ended.
const ENDED: Set<SessionId> = Set::new("ended");

/// A command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// Its number.
    pub number: u64,
    /// What it does.
    pub action: Action,
}

/// What a command does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Adds to the total; answers it.
    Add(u64),
    /// Sets a register; answers what it held.
    Put(u32, u64),
    /// Sets a register if it holds the first value (0: nothing); answers what it held.
    Swap(u32, u64, u64),
    /// Tells this session of every later broadcast; answers how many there were.
    Subscribe,
    /// Tells every subscriber the number of this broadcast; answers it.
    Broadcast,
    /// Sets a timer, in milliseconds from now.
    Timer(u64),
    /// Writes and emits, and then traps.
    Trap,
    /// Writes and emits, and then answers an error.
    Fail,
    /// Writes so many bytes.
    Fill(u32),
}

/// A command that took effect.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Execution {
    /// How often.
    pub times: u32,
    /// The entry.
    pub index: u64,
    /// Its place in the entry.
    pub position: u32,
    /// The state version that this entry was last migrated to; 0: it never was.
    pub layout: u32,
}

/// A timer that fired.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Firing {
    /// Microseconds of replicated time that it was set to.
    pub due: u64,
    /// Microseconds of replicated time when it fired.
    pub at: u64,
    /// How often.
    pub times: u32,
}

/// What clients ask to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// The total.
    Total,
    /// What a register holds; 0: nothing.
    Register(u32),
    /// What took effect, from this number on, a page of it.
    Executed(u64),
    /// Which timers fired.
    Fired,
    /// The state version that the data was last migrated to; 0: it never was.
    Layout,
}

/// What they are answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A number.
    Number(u64),
    /// A page of what took effect.
    Executed(Vec<(u64, Execution)>),
    /// Which timers fired.
    Fired(Vec<(u64, Firing)>),
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// A broadcast, by its number.
    Broadcast(u64),
    /// What nobody must ever be told: the command that sent it failed.
    Never,
}

/// Entries in a page.
const PAGE: usize = 256;
/// The application error of [`Action::Fail`], and of a migration that is told to fail.
const FAILED: u32 = 1;
/// Entries in a step of a migration: so few that there are many.
const STEP: u32 = 8;
/// A migration with this argument fails once it is done with the first entries.
const FAILS: &[u8] = b"fails";

impl Module for Probe {
    const STATE_VERSION: u32 = 1;
    type Codec = Json;
    type Command = Command;
    type Response = u64;
    type Query = Query;
    type Answer = Answer;
    type Request = Request;

    fn command(cx: &mut Context<Self>, command: Command) -> Result<u64> {
        let Command { number, action } = command;
        let executed = EXECUTED.get(cx, &number)?.unwrap_or_default();
        let executed = Execution {
            times: executed.times + 1,
            index: cx.log_index(),
            position: cx.position(),
            layout: LAYOUT.get(cx)?.unwrap_or(0),
        };
        EXECUTED.insert(cx, &number, &executed)?;
        act(cx, number, action)
    }

    fn query(cx: &ReadContext, query: Query) -> Result<Answer> {
        Ok(match query {
            Query::Total => Answer::Number(TOTAL.get(cx)?.unwrap_or(0)),
            Query::Register(register) => Answer::Number(REGISTERS.get(cx, &register)?.unwrap_or(0)),
            Query::Executed(from) => {
                let page = EXECUTED.range(cx, from..).take(PAGE);
                Answer::Executed(page.collect::<Result<_>>()?)
            }
            Query::Fired => Answer::Fired(FIRED.range(cx, 0..).collect::<Result<_>>()?),
            Query::Layout => Answer::Number(LAYOUT.get(cx)?.unwrap_or(0).into()),
        })
    }

    fn migrate_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {
        lay_out(cx, step)
    }

    fn migrate_down_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {
        lay_out(cx, step)
    }

    fn session_expired(
        cx: &mut Context<Self>,
        session: SessionId,
        _: SessionEnd,
        _: &Capabilities,
    ) -> Result<()> {
        SUBSCRIBERS.remove(cx, &session)?;
        ENDED.insert(cx, &session).map(drop)
    }

    fn timer(cx: &mut Context<Self>, timer: Timer<'_>) -> Result<()> {
        let number: [u8; 8] = timer.key.try_into().expect("a command's number");
        let number = u64::from_be_bytes(number);
        let times = FIRED.get(cx, &number)?.map_or(0, |firing| firing.times);
        let firing = Firing {
            due: timer.due.as_micros(),
            at: cx.time().as_micros(),
            times: times + 1,
        };
        FIRED.insert(cx, &number, &firing)
    }
}

export_module!(Probe, name: "probe");

fn act(cx: &mut Context<Probe>, number: u64, action: Action) -> Result<u64> {
    match action {
        Action::Add(amount) => {
            let total = TOTAL.get(cx)?.unwrap_or(0) + amount;
            TOTAL.set(cx, &total)?;
            Ok(total)
        }
        Action::Put(register, value) => {
            let held = REGISTERS.get(cx, &register)?.unwrap_or(0);
            REGISTERS.insert(cx, &register, &value)?;
            Ok(held)
        }
        Action::Swap(register, expected, value) => {
            let held = REGISTERS.get(cx, &register)?.unwrap_or(0);
            if held == expected {
                REGISTERS.insert(cx, &register, &value)?;
            }
            Ok(held)
        }
        Action::Subscribe => {
            let session = cx.session().expect("a command has a session");
            SUBSCRIBERS.insert(cx, &session)?;
            Ok(BROADCASTS.get(cx)?.unwrap_or(0))
        }
        Action::Broadcast => {
            let broadcast = BROADCASTS.get(cx)?.unwrap_or(0) + 1;
            BROADCASTS.set(cx, &broadcast)?;
            let subscribers: Vec<SessionId> = SUBSCRIBERS.range(cx, ..).collect::<Result<_>>()?;
            cx.send_to(&subscribers, &Request::Broadcast(broadcast))?;
            Ok(broadcast)
        }
        Action::Timer(in_ms) => {
            let due = cx.time().after(Duration::from_millis(in_ms));
            cx.set_timer(number.to_be_bytes(), due, &[]);
            Ok(due.as_micros())
        }
        Action::Trap => {
            spoil(cx)?;
            panic!("as the command asked");
        }
        Action::Fail => {
            spoil(cx)?;
            Err(Error::new(FAILED, "as the command asked"))
        }
        Action::Fill(bytes) => {
            FILLING.insert(cx, &number, &"x".repeat(bytes as usize))?;
            Ok(number)
        }
    }
}

/// Every entry says which state version it was migrated to. Which versions there are, the manifest says, which the
/// simulation writes.
fn lay_out(cx: &mut Context<Probe>, step: MigrationStep<'_>) -> Result<Progress> {
    let layout = step.to;
    let progress = EXECUTED.migrate_step(cx, step, STEP, |cx, number, executed| {
        EXECUTED.insert(cx, &number, &Execution { layout, ..executed })
    })?;
    if step.argument == FAILS && !step.cursor.is_empty() {
        return Err(Error::new(FAILED, "as its argument asked"));
    }
    if progress == Progress::Done {
        LAYOUT.set(cx, &layout)?;
    }
    Ok(progress)
}

/// What must be rolled back.
fn spoil(cx: &mut Context<Probe>) -> Result<()> {
    TOTAL.set(cx, &u64::MAX)?;
    BROADCASTS.set(cx, &u64::MAX)?;
    cx.set_timer(b"spoiled", cx.time(), &[]);
    let session = cx.session().expect("a command has a session");
    cx.send(session, &Request::Never)
}
