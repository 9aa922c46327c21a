//! The rules once more, written plainly: what `core` must agree with after every entry.
//!
//! No overlays, no records, no references: sessions are structs, and an operation of the module runs
//! on a copy of its data that is thrown away when it fails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_core::limits::Limits;
use quorate_core::module::Trap;
use quorate_core::query::tag;
use quorate_core::result::{EndReason, OperationResult, Refusal, Response};
use quorate_protocol::{Generation, RequestId};

use crate::support::module::seen;
use crate::support::script::{Action, actions};
use crate::support::{id, refused};

/// What a record of a response, and one of a request, counts beside its payload.
const RESPONSE_RECORD: u64 = 40;
const REQUEST_RECORD: u64 = 64;

#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    pub(crate) is_consecutive: bool,
    pub(crate) generation: u64,
    pub(crate) last: u64,
    pub(crate) mark: u64,
    /// Payload (none: void), index and response.
    pub(crate) cache: BTreeMap<u64, (Option<Vec<u8>>, u64, Response)>,
    pub(crate) outbox: VecDeque<(u64, Vec<u8>)>,
    pub(crate) requests: u64,
    pub(crate) creation_key: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) limits: Limits,
    pub(crate) index: u64,
    pub(crate) sessions: BTreeMap<u8, Session>,
    pub(crate) data: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Due time and payload.
    pub(crate) timers: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    pub(crate) hook_failures: u64,
    pub(crate) ended: Vec<(u8, EndReason)>,
    /// Whether the instance has served a call; a fresh one is made for each entry.
    has_served: bool,
    fuel: u64,
    responses: u64,
    to_end: VecDeque<(u8, EndReason)>,
    is_ending: bool,
    /// A migration in steps, until everything that waits for its end was told.
    pub(crate) migration: Option<Pending>,
}

/// A migration that is under way.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The data as the steps so far leave it; `data` is as it was before.
    after: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Session, tag, and what the hook notes down.
    waiting: VecDeque<(u8, u8, Vec<u8>)>,
}

/// What a call of the module wants to happen.
struct Done {
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    effects: Vec<Action>,
}

enum Event<'a> {
    Command(&'a [u8]),
    Timer(&'a [u8], &'a [u8]),
    /// Tag, and what the hook notes down.
    Hook(u8, Vec<u8>),
}

impl Model {
    pub(crate) fn new(limits: Limits, index: u64) -> Self {
        Self {
            limits,
            index,
            ..Self::default()
        }
    }

    pub(crate) fn begin_entry(&mut self) {
        self.index += 1;
        self.has_served = false;
        self.fuel = 0;
        self.responses = 0;
        self.ended.clear();
    }

    fn budget_is_used(&self) -> bool {
        self.fuel > 3 * self.limits.module.fuel_per_command || self.responses_are_used()
    }

    fn responses_are_used(&self) -> bool {
        self.responses > 3 * self.limits.module.response_bytes_max
    }

    pub(crate) fn create(&mut self, session: u8, key: u8, is_consecutive: bool) -> OperationResult {
        let made = |sessions: &BTreeMap<u8, Session>, session: u8| OperationResult::Created {
            session: id(session),
            generation: Generation(sessions[&session].generation),
            timeout_ms: 90_000,
        };
        let same_key = |(_, other): &(&u8, &mut Session)| key != 0 && other.creation_key == key;
        if let Some((existing, found)) = self.sessions.iter_mut().find(same_key) {
            found.generation += 1;
            let existing = *existing;
            return made(&self.sessions, existing);
        }
        if self.migration.is_some() {
            return refused(Refusal::Migrating);
        }
        if self.sessions.len() as u64 >= self.limits.sessions_max {
            return refused(Refusal::TooManySessions);
        }
        if self.budget_is_used() || self.sessions.contains_key(&session) {
            return refused(Refusal::Overloaded);
        }
        let fresh = Session {
            is_consecutive,
            generation: 1,
            creation_key: key,
            ..Session::default()
        };
        self.sessions.insert(session, fresh);
        let hook = Event::Hook(tag::SESSION_CREATED, vec![0; 4]);
        let (response, done) = self.call(Some(session), &hook);
        let Some(done) = done else {
            self.sessions.remove(&session);
            return OperationResult::Rejected(response);
        };
        let result = made(&self.sessions, session);
        self.settle(Some(session), done);
        result
    }

    pub(crate) fn continue_session(&mut self, session: u8) -> OperationResult {
        let Some(found) = self.sessions.get_mut(&session) else {
            return refused(Refusal::NoSession);
        };
        found.generation += 1;
        OperationResult::Continued {
            generation: Generation(found.generation),
            last_executed: RequestId(found.last),
            lowest_pending: RequestId(found.mark),
            timeout_ms: 90_000,
        }
    }

    fn fence(&self, session: u8, generation: u64) -> Result<&Session, Refusal> {
        let found = self.sessions.get(&session).ok_or(Refusal::NoSession)?;
        match found.generation == generation {
            true => Ok(found),
            false => Err(Refusal::Fenced),
        }
    }

    pub(crate) fn close(&mut self, session: u8, generation: u64) -> OperationResult {
        match self.fence(session, generation) {
            Err(refusal) => refused(refusal),
            Ok(_) => {
                self.end(session, EndReason::ClosedByClient);
                OperationResult::Ended(EndReason::ClosedByClient)
            }
        }
    }

    pub(crate) fn expire(&mut self, session: u8, generation: u64) -> OperationResult {
        if self.fence(session, generation).is_err() {
            return refused(Refusal::Superseded);
        }
        if self.budget_is_used() {
            return refused(Refusal::Overloaded);
        }
        self.end(session, EndReason::Expired);
        OperationResult::Ended(EndReason::Expired)
    }

    /// `payload` is `None` for a void id.
    pub(crate) fn command(
        &mut self,
        (session, generation): (u8, u64),
        request: u64,
        lowest_pending: u64,
        payload: Option<&[u8]>,
    ) -> OperationResult {
        let evicted = match self.admit((session, generation), request, lowest_pending, payload) {
            Ok(evicted) => evicted,
            Err(result) => return result,
        };
        let found = self.sessions.get_mut(&session).unwrap();
        found.cache.retain(|id, _| !evicted.contains(id));
        found.mark = found.mark.max(lowest_pending.min(request));
        found.last = found.last.max(request);
        let (response, done) = match payload {
            Some(payload) => self.call(Some(session), &Event::Command(payload)),
            None => (Response::Void, None),
        };
        let cached = (payload.map(<[u8]>::to_vec), self.index, response.clone());
        self.sessions
            .get_mut(&session)
            .unwrap()
            .cache
            .insert(request, cached);
        if let Some(done) = done {
            self.settle(Some(session), done);
        }
        OperationResult::Responded {
            index: self.index,
            response,
        }
    }

    /// What leaves the cache, or what is answered instead.
    fn admit(
        &mut self,
        (session, generation): (u8, u64),
        request: u64,
        lowest_pending: u64,
        payload: Option<&[u8]>,
    ) -> Result<BTreeSet<u64>, OperationResult> {
        let found = self.fence(session, generation).map_err(refused)?.clone();
        if let Some((cached, index, response)) = found.cache.get(&request) {
            let conflicts = cached.is_some() && payload.is_some() && cached.as_deref() != payload;
            if conflicts {
                return Err(refused(Refusal::Conflict));
            }
            if self.responses_are_used() {
                return Err(refused(Refusal::Overloaded));
            }
            self.responses += size(response);
            return Err(OperationResult::Responded {
                index: *index,
                response: response.clone(),
            });
        }
        if request < found.mark {
            return Err(refused(Refusal::Evicted));
        }
        if found.is_consecutive && request != found.last + 1 {
            return Err(refused(Refusal::OutOfOrder {
                expected: RequestId(found.last + 1),
            }));
        }
        if payload.is_some() && self.migration.is_some() {
            return Err(refused(Refusal::Migrating));
        }
        if self.budget_is_used() {
            return Err(refused(Refusal::Overloaded));
        }
        let mark = lowest_pending.min(request);
        let stays: Vec<_> = found.cache.range(mark..).collect();
        let bytes: u64 = stays
            .iter()
            .map(|(_, (_, _, response))| size(response))
            .sum();
        if stays.len() as u64 >= u64::from(self.limits.cached_responses_max)
            || bytes >= self.limits.cached_bytes_max
        {
            return Err(refused(Refusal::Overloaded));
        }
        Ok(found.cache.range(..mark).map(|(id, _)| *id).collect())
    }

    pub(crate) fn acknowledge(
        &mut self,
        session: u8,
        generation: u64,
        up_to: u64,
    ) -> OperationResult {
        if let Err(refusal) = self.fence(session, generation) {
            return refused(refusal);
        }
        let found = self.sessions.get_mut(&session).unwrap();
        let up_to = up_to.min(found.requests);
        let before = found.outbox.len();
        found.outbox.retain(|(id, _)| *id > up_to);
        if found.outbox.len() < before {
            let note = up_to.to_le_bytes().to_vec();
            self.hook(Some(session), &Event::Hook(tag::REQUEST_ACKNOWLEDGED, note));
        }
        OperationResult::Acknowledged {
            up_to: RequestId(up_to),
        }
    }

    pub(crate) fn fire(&mut self, key: &[u8], due_us: u64) -> OperationResult {
        match self.timers.get(key) {
            Some((due, _)) if *due == due_us => {}
            _ => return refused(Refusal::Superseded),
        }
        if self.migration.is_some() {
            return refused(Refusal::Migrating);
        }
        if self.budget_is_used() {
            return refused(Refusal::Overloaded);
        }
        let (_, payload) = self.timers.remove(key).unwrap();
        self.hook(None, &Event::Timer(key, &payload));
        OperationResult::Fired
    }

    fn end(&mut self, session: u8, reason: EndReason) {
        self.to_end.push_back((session, reason));
        if self.is_ending {
            return;
        }
        self.is_ending = true;
        while let Some((session, reason)) = self.to_end.pop_front() {
            if self.sessions.remove(&session).is_some() {
                self.ended.push((session, reason));
                let note = [&[reason as u8][..], &[0; 4]].concat();
                self.hook(Some(session), &Event::Hook(tag::SESSION_EXPIRED, note));
            }
        }
        self.is_ending = false;
    }

    /// The first step of a migration, which wants more.
    pub(crate) fn begin_migration(&mut self, step: &[u8]) -> Result<(), Response> {
        self.migration = Some(Pending {
            after: self.data.clone(),
            ..Pending::default()
        });
        let done = self.migrate(step);
        if done.is_err() {
            self.migration = None;
        }
        done
    }

    /// A step of a migration, over what the ones before left.
    pub(crate) fn migrate(&mut self, step: &[u8]) -> Result<(), Response> {
        let pending = self.migration.as_mut().unwrap();
        let before = std::mem::replace(&mut self.data, std::mem::take(&mut pending.after));
        let (response, done) = self.call(None, &Event::Command(step));
        self.has_served = false;
        self.data = before;
        match done {
            None => Err(response),
            Some(done) => {
                assert!(done.effects.is_empty());
                self.migration.as_mut().unwrap().after = done.data;
                Ok(())
            }
        }
    }

    /// The last step was done.
    pub(crate) fn complete(&mut self) {
        let pending = self.migration.as_mut().unwrap();
        self.data = std::mem::take(&mut pending.after);
    }

    /// Tells the module what happened meanwhile, as far as the budget goes; whether that is all.
    pub(crate) fn tell(&mut self) -> bool {
        let mut pending = self.migration.take().unwrap();
        while let Some((session, tag, note)) = pending.waiting.front().cloned() {
            if self.budget_is_used() {
                break;
            }
            pending.waiting.pop_front();
            // What a hook ends is told after what waits already.
            self.migration = Some(pending);
            self.call_hook(Some(session), &Event::Hook(tag, note));
            pending = self.migration.take().unwrap();
        }
        let is_all = pending.waiting.is_empty();
        self.migration = (!is_all).then_some(pending);
        is_all
    }

    fn hook(&mut self, session: Option<u8>, event: &Event<'_>) {
        let Some(pending) = &mut self.migration else {
            return self.call_hook(session, event);
        };
        let Event::Hook(tag, note) = event else {
            panic!("a timer fires during a migration");
        };
        let session = session.unwrap();
        let is_same = |(waiting, other, _): &&mut (u8, u8, Vec<u8>)| {
            *tag == tag::REQUEST_ACKNOWLEDGED && other == tag && *waiting == session
        };
        match pending.waiting.iter_mut().find(is_same) {
            Some((_, _, earlier)) => *earlier = note.clone(),
            None => pending.waiting.push_back((session, *tag, note.clone())),
        }
    }

    fn call_hook(&mut self, session: Option<u8>, event: &Event<'_>) {
        let four = 4;
        let is_over = self.fuel > four * self.limits.module.fuel_per_command
            || self.responses > four * self.limits.module.response_bytes_max;
        let done = match is_over {
            true => None,
            false => self.call(session, event).1,
        };
        match done {
            Some(done) => self.settle(session, done),
            None => self.hook_failures += 1,
        }
    }

    /// Runs the module, a second time if a neighbour may have made it trap.
    fn call(&mut self, session: Option<u8>, event: &Event<'_>) -> (Response, Option<Done>) {
        let had_neighbour = self.has_served;
        let (mut response, mut done) = self.attempt(session, event);
        if matches!(response, Response::Trapped(_)) && had_neighbour {
            (response, done) = self.attempt(session, event);
        }
        self.responses += size(&response);
        (response, done)
    }

    fn attempt(&mut self, session: Option<u8>, event: &Event<'_>) -> (Response, Option<Done>) {
        let mut run = Run {
            data: self.data.clone(),
            effects: Vec::new(),
            said: Vec::new(),
            has_neighbour: self.has_served,
            fuel: 1,
            limits: &self.limits,
            is_spent: false,
        };
        let ended = run.event(session, event);
        let is_large = run.said.len() as u64 > self.limits.module.response_bytes_max;
        self.fuel += run.fuel;
        let response = match ended {
            Err(trap) => Response::Trapped(trap),
            Ok(_) if is_large => Response::Trapped(Trap::ResponseLimit),
            Ok(None) => Response::Success(run.said),
            Ok(Some(code)) => Response::ApplicationError {
                code,
                payload: run.said,
            },
        };
        let done = matches!(response, Response::Success(_)).then_some(Done {
            data: run.data,
            effects: run.effects,
        });
        self.has_served = !run.is_spent && !matches!(response, Response::Trapped(_));
        (response, done)
    }

    fn settle(&mut self, about: Option<u8>, done: Done) {
        self.data = done.data;
        for effect in done.effects {
            match effect {
                Action::Request(sessions, payload) => self.request(&sessions, &payload),
                Action::RequestSelf(payload) => {
                    let sessions: Vec<_> = about.into_iter().collect();
                    self.request(&sessions, &payload);
                }
                Action::SetTimer(due, key, payload) => {
                    self.timers.insert(key, (due, payload));
                }
                Action::CancelTimer(key) => {
                    self.timers.remove(&key);
                }
                Action::Close(session) => self.end(session, EndReason::ClosedByModule),
                other => panic!("{other:?} is no effect"),
            }
        }
    }

    fn request(&mut self, sessions: &[u8], payload: &[u8]) {
        let mut slow = Vec::new();
        for session in sessions.iter().collect::<BTreeSet<_>>() {
            let Some(found) = self.sessions.get_mut(session) else {
                continue;
            };
            found.requests += 1;
            found.outbox.push_back((found.requests, payload.to_vec()));
            let bytes: u64 = found
                .outbox
                .iter()
                .map(|(_, payload)| payload.len() as u64 + REQUEST_RECORD)
                .sum();
            if found.outbox.len() > self.limits.outbox_requests_max as usize
                || bytes > self.limits.outbox_bytes_max
            {
                slow.push(*session);
            }
        }
        for session in slow {
            self.end(session, EndReason::Slow);
        }
    }
}

fn size(response: &Response) -> u64 {
    RESPONSE_RECORD
        + match response {
            Response::Success(payload) | Response::ApplicationError { payload, .. } => {
                payload.len() as u64
            }
            Response::Trapped(_) | Response::Void => 0,
        }
}

struct Run<'a> {
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    effects: Vec<Action>,
    said: Vec<u8>,
    has_neighbour: bool,
    fuel: u64,
    limits: &'a Limits,
    is_spent: bool,
}

impl Run<'_> {
    fn event(&mut self, session: Option<u8>, event: &Event<'_>) -> Result<Option<u32>, Trap> {
        match event {
            Event::Command(payload) => self.actions(payload),
            Event::Timer(key, payload) => {
                self.data.insert([b"fired/", *key].concat(), Vec::new());
                self.actions(payload)
            }
            Event::Hook(tag, note) => {
                self.data.insert(seen(*tag, session.unwrap()), note.clone());
                let hook = self.data.get(format!("hook/{tag}").as_bytes()).cloned();
                self.actions(&hook.unwrap_or_default())
            }
        }
    }

    fn actions(&mut self, payload: &[u8]) -> Result<Option<u32>, Trap> {
        for action in actions(payload) {
            match action {
                Action::Put(key, value) => drop(self.data.insert(key, value)),
                Action::PutZeros(key, n) => drop(self.data.insert(key, vec![0; n as usize])),
                Action::Delete(key) => drop(self.data.remove(&key)),
                Action::Get(key) => match self.data.get(&key) {
                    Some(value) => self.said.extend(value),
                    None => self.said.push(b'-'),
                },
                Action::Scan(limit) => {
                    let keys = self.data.keys().take(limit as usize);
                    self.said.extend(keys.flatten());
                }
                Action::Say(text) => self.said.extend(text),
                Action::SayZeros(count) => self.said.extend(vec![0; count as usize]),
                Action::Fail(code) => return Ok(Some(code)),
                Action::Trap(trap) => return Err(trap),
                Action::TrapIfNeighbour if self.has_neighbour => return Err(Trap::Wasm),
                Action::SwellIfNeighbour if self.has_neighbour => {
                    let large = self.limits.module.response_bytes_max as usize + 1;
                    self.said.resize(large, 0);
                }
                Action::TrapIfNeighbour | Action::SwellIfNeighbour => {}
                Action::Spend => self.is_spent = true,
                Action::Burn(fuel) => {
                    self.fuel += fuel;
                    if self.fuel > self.limits.module.fuel_per_command {
                        return Err(Trap::OutOfFuel);
                    }
                }
                effect => self.effects.push(effect),
            }
        }
        Ok(None)
    }
}
