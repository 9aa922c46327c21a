//! A module whose code is its manifest and the scripts of its migrations, and whose payloads are
//! scripts.
//!
//! Hooks write what they were called with (`seen/TAG/SESSION`), then run the script under `hook/TAG`,
//! if there is one. A session with the capability `reject` or `trap` is refused so.

use std::sync::{Arc, Mutex};

use quorate_core::codec::{Reader, Writer};
use quorate_core::context::{CallError, Context};
use quorate_core::module::{
    Export, Instance, Manifest, ModuleHash, ModuleLimits, Modules, Outcome, Ran, Rejected, Trap,
};
use quorate_core::query::{HEADER_BYTES, tag};
use quorate_core::records::Record;
use quorate_core::state::{Fault, Order, Visit};
use sha2::{Digest, Sha256};

use super::script::{Action, actions, script};

/// What a module is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) manifest: Manifest,
    /// `None`: there is no such export.
    pub(crate) init: Option<Vec<Action>>,
    pub(crate) migrate: Vec<Action>,
    pub(crate) migrate_down: Vec<Action>,
    /// Makes it longer.
    pub(crate) padding: usize,
}

impl Code {
    pub(crate) fn new(version: &str, state_version: u32) -> Self {
        Self {
            manifest: Manifest {
                name: "scripted".to_owned(),
                version: version.to_owned(),
                state_version,
                migrates_from: Vec::new(),
                migrates_down_to: Vec::new(),
                codec: "raw".to_owned(),
            },
            init: None,
            migrate: Vec::new(),
            migrate_down: Vec::new(),
            padding: 0,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.bytes(&self.manifest.to_bytes());
        out.u8(u8::from(self.init.is_some()));
        out.bytes(&script(self.init.as_deref().unwrap_or_default()));
        out.bytes(&script(&self.migrate));
        out.bytes(&script(&self.migrate_down));
        out.raw(&vec![0; self.padding]);
        out.finish()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        let manifest = Manifest::from_bytes(input.bytes().ok()?).ok()?;
        let has_init = input.u8().ok()? == 1;
        let init = actions(input.bytes().ok()?);
        Some(Self {
            manifest,
            init: has_init.then_some(init),
            migrate: actions(input.bytes().ok()?),
            migrate_down: actions(input.bytes().ok()?),
            padding: input.rest().len(),
        })
    }

    pub(crate) fn hash(&self) -> ModuleHash {
        ModuleHash(Sha256::digest(self.to_bytes()).into())
    }
}

/// One call, as the module saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) module: ModuleHash,
    pub(crate) export: Export,
    pub(crate) input: Vec<u8>,
    /// Calls that the instance had served before.
    pub(crate) served: u32,
}

impl Call {
    pub(crate) fn tag(&self) -> u8 {
        self.input[53]
    }

    pub(crate) fn seed(&self) -> &[u8] {
        &self.input[20..36]
    }

    pub(crate) fn session(&self) -> Option<[u8; 16]> {
        (self.input[52] == 1).then(|| self.input[36..52].try_into().unwrap())
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.input[HEADER_BYTES..]
    }
}

/// Modules of scripts, with a record of every call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scripted {
    loaded: Arc<Mutex<Vec<(ModuleHash, Code)>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Scripted {
    /// The calls since this was last asked.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// As a node that starts again.
    pub(crate) fn unload(&self) {
        self.loaded.lock().unwrap().clear();
    }
}

impl Modules for Scripted {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        let rejected = |code: &'static str| {
            Ok(Err(Rejected {
                code,
                detail: String::new(),
            }))
        };
        if code.len() as u64 > limits.module_bytes_max {
            return rejected("module-size");
        }
        let Some(code) = Code::from_bytes(code) else {
            return rejected("module-invalid");
        };
        let manifest = code.manifest.clone();
        self.loaded.lock().unwrap().push((hash, code));
        Ok(Ok(manifest))
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        let loaded = self.loaded.lock().unwrap();
        loaded.iter().any(|(loaded, _)| *loaded == hash)
    }

    fn level_max(&self) -> u32 {
        3
    }

    fn instantiate(&self, hash: ModuleHash, _: &ModuleLimits) -> Result<Box<dyn Instance>, Fault> {
        let loaded = self.loaded.lock().unwrap();
        let (_, code) = loaded
            .iter()
            .find(|(loaded, _)| *loaded == hash)
            .ok_or_else(|| Fault::new(format!("module {hash} is not loaded")))?;
        Ok(Box::new(Running {
            hash,
            code: code.clone(),
            calls: Arc::clone(&self.calls),
            served: 0,
        }))
    }
}

#[derive(Debug)]
struct Running {
    hash: ModuleHash,
    code: Code,
    calls: Arc<Mutex<Vec<Call>>>,
    served: u32,
}

impl Instance for Running {
    fn call(
        &mut self,
        export: Export,
        input: &[u8],
        fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault> {
        let call = Call {
            module: self.hash,
            export,
            input: input.to_vec(),
            served: self.served,
        };
        self.calls.lock().unwrap().push(call.clone());
        let mut run = Run {
            served: self.served,
            session: call.session(),
            fuel: 1,
            fuel_max: fuel,
            spent: false,
            said: Vec::new(),
            next_step: None,
            context,
        };
        self.served += 1;
        let ended = run.event(&self.code, &call);
        let outcome = match ended {
            Ok(None) if run.next_step.is_some() => {
                Ok(Outcome::More(run.next_step.take().unwrap_or_default()))
            }
            Ok(None) => Ok(Outcome::Success(std::mem::take(&mut run.said))),
            Ok(Some(code)) => Ok(Outcome::ApplicationError {
                code,
                payload: std::mem::take(&mut run.said),
            }),
            Err(CallError::Trap(trap)) => Err(trap),
            Err(CallError::Fault(fault)) => return Err(fault),
        };
        Ok(Ran {
            spent: run.spent || outcome.is_err(),
            outcome,
            fuel: run.fuel,
        })
    }
}

struct Run<'a> {
    served: u32,
    session: Option<[u8; 16]>,
    fuel: u64,
    fuel_max: u64,
    spent: bool,
    said: Vec<u8>,
    /// The cursor of the step that comes next.
    next_step: Option<Vec<u8>>,
    context: &'a mut Context,
}

impl Run<'_> {
    /// `Some`: an application error of this code.
    fn event(&mut self, code: &Code, call: &Call) -> Result<Option<u32>, CallError> {
        match (call.export, call.tag()) {
            (Export::Init, _) => match &code.init {
                Some(init) => self.run(init),
                None => Err(Trap::NoSuchExport.into()),
            },
            (Export::Migrate, tag) => self.migrate(&code.migrate, tag, call.body()),
            (Export::MigrateDown, tag) => self.migrate(&code.migrate_down, tag, call.body()),
            (Export::Apply, tag::COMMAND) => self.run(&actions(call.body())),
            (Export::Apply, tag::TIMER) => {
                let (length, rest) = call.body()[8..].split_first_chunk().unwrap();
                let (key, payload) = rest.split_at(u32::from_le_bytes(*length) as usize);
                self.context.put(&[b"fired/", key].concat(), b"")?;
                self.run(&actions(payload))
            }
            (Export::Apply, hook) => self.hook(hook, call.body()),
            (export, _) => panic!("{export:?} is not called by entries"),
        }
    }

    /// Its cursors are the number of the next step, twice.
    fn migrate(
        &mut self,
        script: &[Action],
        tag: u8,
        body: &[u8],
    ) -> Result<Option<u32>, CallError> {
        let number = match tag {
            tag::MIGRATE => 0,
            _ => {
                let fields = body[8..].first_chunk::<10>().unwrap();
                assert_eq!(fields[4..8], 2_u32.to_le_bytes());
                assert_eq!(fields[8..], [fields[0]; 2], "the cursor is the step's own");
                fields[0]
            }
        };
        let mut steps = script.split(|action| *action == Action::Next);
        let step = steps.nth(number.into()).unwrap();
        let ended = self.run(step)?;
        if steps.next().is_some() {
            self.next_step = Some(vec![number + 1; 2]);
        }
        Ok(ended)
    }

    fn hook(&mut self, hook: u8, body: &[u8]) -> Result<Option<u32>, CallError> {
        if hook == tag::SESSION_CREATED {
            if body.windows(6).any(|text| text == b"reject") {
                self.context.put(b"rejected", b"")?;
                return Ok(Some(9));
            }
            if body.windows(4).any(|text| text == b"trap") {
                return Err(Trap::Wasm.into());
            }
        }
        let session = self.session.unwrap()[0];
        self.context.put(&seen(hook, session), body)?;
        let hook = self.context.get(format!("hook/{hook}").as_bytes())?;
        hook.map_or(Ok(None), |hook| self.run(&actions(&hook)))
    }

    fn run(&mut self, actions: &[Action]) -> Result<Option<u32>, CallError> {
        for action in actions {
            if let Some(code) = self.step(action)? {
                return Ok(Some(code));
            }
        }
        Ok(None)
    }

    fn step(&mut self, action: &Action) -> Result<Option<u32>, CallError> {
        match action {
            Action::Put(key, value) => self.context.put(key, value)?,
            Action::PutZeros(key, count) => self.context.put(key, &vec![0; *count as usize])?,
            Action::Delete(key) => self.context.delete(key)?,
            Action::Get(key) => match self.context.get(key)? {
                Some(value) => self.said.extend_from_slice(&value),
                None => self.said.push(b'-'),
            },
            Action::Scan(limit) => self.scan(*limit as usize)?,
            Action::Say(text) => self.said.extend_from_slice(text),
            Action::SayZeros(count) => self.said.resize(self.said.len() + *count as usize, 0),
            Action::Fail(code) => return Ok(Some(*code)),
            Action::Trap(trap) => return Err((*trap).into()),
            Action::TrapIfNeighbour if self.served > 0 => return Err(Trap::Wasm.into()),
            Action::SwellIfNeighbour if self.served > 0 => {
                let limit = self.context.limits().response_bytes_max as usize;
                self.said.resize(limit + 1, 0);
            }
            Action::TrapIfNeighbour | Action::SwellIfNeighbour => {}
            Action::Spend => self.spent = true,
            Action::Panic => panic!("the engine is broken"),
            Action::Next => panic!("only a migration has steps"),
            Action::More(cursor) => self.next_step = Some(cursor.clone()),
            Action::Burn(fuel) => {
                self.fuel += fuel;
                if self.fuel > self.fuel_max {
                    return Err(Trap::OutOfFuel.into());
                }
            }
            effect => self.context.emit(&encode_effect(effect, self.session))?,
        }
        Ok(None)
    }

    fn scan(&mut self, limit: usize) -> Result<(), CallError> {
        let mut keys = 0;
        let said = &mut self.said;
        self.context
            .scan(b"", None, Order::Ascending, &mut |key, _| {
                if keys == limit {
                    return Visit::Stop;
                }
                keys += 1;
                said.extend_from_slice(key);
                Visit::More
            })
    }
}

/// Where a hook writes that it was called.
pub(crate) fn seen(hook: u8, session: u8) -> Vec<u8> {
    format!("seen/{hook}/{session}").into_bytes()
}

fn encode_effect(effect: &Action, session: Option<[u8; 16]>) -> Vec<u8> {
    let request = |sessions: &[[u8; 16]], payload: &[u8]| {
        let count = (sessions.len() as u32).to_le_bytes();
        [&[1], &count[..], sessions.as_flattened(), payload].concat()
    };
    match effect {
        Action::Request(sessions, payload) => {
            let sessions: Vec<_> = sessions.iter().map(|session| [*session; 16]).collect();
            request(&sessions, payload)
        }
        Action::RequestSelf(payload) => request(session.as_slice(), payload),
        Action::SetTimer(due, key, payload) => {
            let length = (key.len() as u32).to_le_bytes();
            [&[2], &due.to_le_bytes()[..], &length, key, payload].concat()
        }
        Action::CancelTimer(key) => [&[3], &key[..]].concat(),
        Action::Close(session) => [&[4; 1], &[*session; 16][..]].concat(),
        other => panic!("{other:?} is no effect"),
    }
}
