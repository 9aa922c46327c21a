//! What is read from the state beside applying entries: the leader's tables, outboxes, queries.

use std::sync::Arc;

use quorate_protocol::{Generation, RequestId, SessionId};

use crate::apply::read;
use crate::before::StateBefore;
use crate::keys;
use crate::limits::{CORE_LEVEL, Limits};
use crate::module::{Manifest, ModuleHash, Modules};
use crate::records::{
    ActiveModule, Levels, Meta, Migration, OutboxEntry, Profile, Progress, Record,
};
use crate::state::{Fault, Order, Read, Value, Visit};

pub use crate::apply::MIGRATION_STEPS_MAX;
pub use crate::apply::invoke::{HEADER_BYTES, Header, input, limited_step, tag};

/// Replicated time, rolling hash, number of sessions.
///
/// # Errors
/// As every function here: a [`Fault`] if the state cannot be read.
pub fn meta(state: &dyn Read) -> Result<Meta, Fault> {
    Ok(read(state, keys::META)?.unwrap_or_default())
}

/// The replicated limits in force.
///
/// # Errors
/// A [`Fault`].
pub fn limits(state: &dyn Read) -> Result<Limits, Fault> {
    Ok(read(state, keys::LIMITS)?.unwrap_or_default())
}

/// The levels in force.
///
/// # Errors
/// A [`Fault`].
pub fn levels(state: &dyn Read) -> Result<Levels, Fault> {
    Ok(read(state, keys::LEVELS)?.unwrap_or_default())
}

/// The newest levels that this binary knows.
pub fn levels_known(modules: &dyn Modules) -> Levels {
    Levels {
        core: CORE_LEVEL,
        engine: modules.level_max(),
    }
}

/// Whether this binary can go on with a cluster at these levels.
///
/// # Errors
/// A [`Fault`] that says which levels it knows, if it cannot.
pub fn supports(levels: Levels, modules: &dyn Modules) -> Result<(), Fault> {
    let known = levels_known(modules);
    if levels.core <= known.core && levels.engine <= known.engine {
        return Ok(());
    }
    Err(Fault::new(format!(
        "the cluster is at core level {} and engine level {}, and this binary knows them up to {} and \
         {}: it needs a newer one",
        levels.core, levels.engine, known.core, known.engine
    )))
}

/// The genesis mark, if genesis is complete.
///
/// # Errors
/// A [`Fault`].
pub fn genesis_mark(state: &dyn Read) -> Result<Option<Value>, Fault> {
    state.get(keys::GENESIS)
}

/// The module in force.
///
/// # Errors
/// A [`Fault`].
pub fn active_module(state: &dyn Read) -> Result<Option<ActiveModule>, Fault> {
    read(state, keys::ACTIVE)
}

/// A migration in steps that is under way.
///
/// # Errors
/// A [`Fault`].
pub fn migration(state: &dyn Read) -> Result<Option<Migration>, Fault> {
    crate::apply::migration_under_way(state)
}

/// Where the range of the newest checkpoint ended: the next one begins there. Empty: with the first
/// key.
///
/// # Errors
/// A [`Fault`].
pub fn checkpoint_end(state: &dyn Read) -> Result<Vec<u8>, Fault> {
    let end = state.get(keys::CHECKPOINT_END)?;
    Ok(end.map_or_else(Vec::new, |end| end.to_vec()))
}

/// What queries see of `state`: while a migration changes the module's data, the state as it was
/// before, which the module in force can read.
///
/// # Errors
/// A [`Fault`].
pub fn visible(state: Arc<dyn Read>) -> Result<Arc<dyn Read>, Fault> {
    Ok(match migration(&*state)? {
        Some(migration) if migration.hides_changes() => Arc::new(StateBefore(state)),
        _ => state,
    })
}

/// Loads the module in force, if there is one, so that it can be instantiated; and the one that a
/// migration leads to. What a node does with a state that it has not made itself.
///
/// # Errors
/// A [`Fault`] if this node cannot, or the state is of a level that it does not know.
pub fn load_active(state: &dyn Read, modules: &dyn Modules) -> Result<Option<Manifest>, Fault> {
    supports(levels(state)?, modules)?;
    if let Some(migration) = migration(state)? {
        load_module(state, modules, migration.next.hash)?;
    }
    match active_module(state)? {
        Some(active) => load_module(state, modules, active.hash).map(Some),
        None => Ok(None),
    }
}

/// Loads a module whose chunks are in the state.
///
/// # Errors
/// A [`Fault`] if this node cannot.
pub fn load_module(
    state: &dyn Read,
    modules: &dyn Modules,
    hash: ModuleHash,
) -> Result<Manifest, Fault> {
    crate::apply::activation::load(state, modules, hash, &limits(state)?)
}

/// A session's profile and progress.
///
/// # Errors
/// A [`Fault`].
pub fn session(state: &dyn Read, session: SessionId) -> Result<Option<(Profile, Progress)>, Fault> {
    let profile = read(state, &keys::profile(session))?;
    let progress = read(state, &keys::progress(session))?;
    Ok(profile.zip(progress))
}

/// What a new leader needs to know of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSummary {
    /// Its timeout in milliseconds.
    pub timeout_ms: u32,
    /// Of its newest connection.
    pub generation: Generation,
}

/// Every session, in order of id.
///
/// # Errors
/// A [`Fault`].
pub fn session_summaries(state: &dyn Read) -> Result<Vec<(SessionId, SessionSummary)>, Fault> {
    let mut timeouts = Vec::new();
    profiles(state, None, &mut |session, profile, _| {
        timeouts.push((session, profile.timeout_ms));
        Visit::More
    })?;
    timeouts
        .into_iter()
        .map(|(session, timeout_ms)| {
            let generation = progress(state, session)?.generation;
            let summary = SessionSummary {
                timeout_ms,
                generation,
            };
            Ok((session, summary))
        })
        .collect()
}

/// Some sessions, in order of id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// With what each was created, and how far it has come.
    pub sessions: Vec<(SessionId, Profile, Progress)>,
    /// Where the next page begins: after this session. `None` if there is none.
    pub next: Option<SessionId>,
}

/// The sessions that come after `after` in order of id, at most `count`; the last one may bring the
/// profiles' bytes above `bytes_max`.
///
/// # Errors
/// A [`Fault`].
pub fn sessions(
    state: &dyn Read,
    after: Option<SessionId>,
    count: usize,
    bytes_max: usize,
) -> Result<Page, Fault> {
    let (mut found, mut bytes, mut next) = (Vec::new(), 0, None);
    profiles(state, after, &mut |session, profile, length| {
        if found.len() >= count || bytes >= bytes_max {
            next = found.last().map(|(last, _)| *last);
            return Visit::Stop;
        }
        bytes += length;
        found.push((session, profile));
        Visit::More
    })?;
    let sessions = found
        .into_iter()
        .map(|(session, profile)| Ok((session, profile, progress(state, session)?)))
        .collect::<Result<_, Fault>>()?;
    Ok(Page { sessions, next })
}

/// Visits the profiles after `after`, with the bytes of each, in order of id.
fn profiles(
    state: &dyn Read,
    after: Option<SessionId>,
    visit: &mut dyn FnMut(SessionId, Profile, usize) -> Visit,
) -> Result<(), Fault> {
    let (mut start, end) = keys::profiles();
    if let Some(after) = after {
        start = keys::profile(after);
        // The smallest key above it.
        start.push(0);
    }
    let mut damaged = None;
    state.scan(
        &start,
        Some(&end),
        Order::Ascending,
        &mut |key, value| match (keys::session_of_profile(key), Profile::from_bytes(value)) {
            (Some(session), Ok(profile)) => visit(session, profile, value.len()),
            _ => {
                let text = format!("the record {key:02x?} cannot be decoded");
                damaged = Some(Fault::new(text));
                Visit::Stop
            }
        },
    )?;
    damaged.map_or(Ok(()), Err)
}

fn progress(state: &dyn Read, session: SessionId) -> Result<Progress, Fault> {
    let progress = read(state, &keys::progress(session))?;
    progress.ok_or_else(|| Fault::new(format!("session {session} lacks its progress")))
}

/// A request to a client, as its outbox holds it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its id in the session.
    pub id: RequestId,
    /// Replicated time at which it was emitted, microseconds since the Unix epoch.
    pub created_us: u64,
    /// What it carries.
    pub payload: Value,
}

/// The requests in a session's outbox from `first` on, at most `count`; the last one may exceed
/// `bytes_max`.
///
/// # Errors
/// A [`Fault`].
pub fn outbox(
    state: &dyn Read,
    session: SessionId,
    first: RequestId,
    count: usize,
    bytes_max: usize,
) -> Result<Vec<Request>, Fault> {
    let mut requests = Vec::new();
    let mut bytes = 0;
    let mut id = first;
    while requests.len() < count && bytes < bytes_max {
        let Some(entry) = read::<OutboxEntry>(state, &keys::outbox(session, id))? else {
            break;
        };
        let (index, position, number) = entry.payload;
        let Some(payload) = state.get(&keys::payload(index, position, number))? else {
            return Err(Fault::new(format!(
                "the payload of request {id} of {session} is missing"
            )));
        };
        bytes += payload.len();
        requests.push(Request {
            id,
            created_us: entry.created_us,
            payload,
        });
        id = RequestId(id.0 + 1);
    }
    Ok(requests)
}

/// A timer that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTimer {
    /// When it was set to fire.
    pub due_us: u64,
    /// Its key.
    pub key: Vec<u8>,
}

/// The timers due at or before `now_us`, at most `count`, earliest first.
///
/// # Errors
/// A [`Fault`].
pub fn due_timers(state: &dyn Read, now_us: u64, count: usize) -> Result<Vec<DueTimer>, Fault> {
    let mut timers = Vec::new();
    if count > 0 {
        let (start, end) = keys::timers_before(now_us.saturating_add(1));
        state.scan(&start, Some(&end), Order::Ascending, &mut |key, _| {
            if let Some((due_us, key)) = keys::timer_of(key) {
                timers.push(DueTimer {
                    due_us,
                    key: key.to_vec(),
                });
            }
            if timers.len() < count {
                Visit::More
            } else {
                Visit::Stop
            }
        })?;
    }
    Ok(timers)
}

/// When the earliest timer is due, in microseconds of replicated time.
///
/// # Errors
/// A [`Fault`].
pub fn next_timer(state: &dyn Read) -> Result<Option<u64>, Fault> {
    Ok(due_timers(state, u64::MAX - 1, 1)?
        .first()
        .map(|timer| timer.due_us))
}

/// What answers queries over one view: the module in force and its limits.
#[derive(Debug, Clone)]
pub struct Queried {
    /// The module in force.
    pub module: ModuleHash,
    /// The replicated limits.
    pub limits: Limits,
    header: Header,
}

impl Queried {
    /// Over `state`, whose newest entry is `index`. `None` if no module is in force.
    ///
    /// # Errors
    /// A [`Fault`].
    pub fn of(state: &dyn Read, index: u64) -> Result<Option<Self>, Fault> {
        let Some(active) = active_module(state)? else {
            return Ok(None);
        };
        let header = Header {
            time_us: meta(state)?.time_us,
            index,
            ..Header::default()
        };
        Ok(Some(Self {
            module: active.hash,
            limits: limits(state)?,
            header,
        }))
    }

    /// The input of `quorate_query` for a query with this payload.
    pub fn input(&self, session: Option<SessionId>, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            session,
            ..self.header
        };
        input(&header, tag::QUERY, |input| {
            input.extend_from_slice(payload)
        })
    }
}
