//! Makes this node fail at an operation of a test's choice. Only in builds with debug assertions.
//!
//! `QUORATE_FAILPOINT` is `WHAT:TEXT`: a call for an entry whose input contains TEXT panics, fails with
//! a fault of the host, or never returns. `wrong:TEXT` is not about calls: a value that is stored with
//! TEXT in it, or in its key, is stored wrong, with a checksum that does not tell.

use std::sync::Arc;

use quorate_core::context::Context;
use quorate_core::module::{
    Export, Instance, Manifest, ModuleHash, ModuleLimits, Modules, Ran, Rejected,
};
use quorate_core::state::Fault;

/// The environment variable.
const VARIABLE: &str = "QUORATE_FAILPOINT";

#[derive(Debug, Clone, Copy)]
enum What {
    Panic,
    Fault,
    Hang,
}

#[derive(Debug, Clone)]
struct Failpoint {
    what: What,
    text: Arc<str>,
}

/// `modules`, or a failpoint before them.
pub(super) fn from_environment(modules: Arc<dyn Modules>) -> Result<Arc<dyn Modules>, Fault> {
    let Ok(asked) = std::env::var(VARIABLE) else {
        return Ok(modules);
    };
    let unknown = || {
        Fault::new(format!(
            "{VARIABLE} is {asked:?}, not panic|fault|hang|wrong:TEXT"
        ))
    };
    let (what, text) = asked.split_once(':').ok_or_else(unknown)?;
    if what == "wrong" {
        tracing::warn!(asked, "this node has a failpoint");
        return Ok(modules);
    }
    let what = match what {
        "panic" => What::Panic,
        "fault" => What::Fault,
        "hang" => What::Hang,
        _ => return Err(unknown()),
    };
    tracing::warn!(asked, "this node has a failpoint");
    let failpoint = Failpoint {
        what,
        text: text.into(),
    };
    Ok(Arc::new(Failing { modules, failpoint }))
}

/// What is stored wrong.
pub(super) fn wrong_value() -> Option<Vec<u8>> {
    let asked = std::env::var(VARIABLE).ok()?;
    Some(asked.strip_prefix("wrong:")?.as_bytes().to_vec())
}

#[derive(Debug)]
struct Failing {
    modules: Arc<dyn Modules>,
    failpoint: Failpoint,
}

impl Modules for Failing {
    fn load(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.modules.load(hash, code, limits)
    }

    fn load_ahead(
        &self,
        hash: ModuleHash,
        code: &[u8],
        limits: &ModuleLimits,
    ) -> Result<Result<Manifest, Rejected>, Fault> {
        self.modules.load_ahead(hash, code, limits)
    }

    fn is_loaded(&self, hash: ModuleHash) -> bool {
        self.modules.is_loaded(hash)
    }

    fn level_max(&self) -> u32 {
        self.modules.level_max()
    }

    fn instantiate(
        &self,
        hash: ModuleHash,
        limits: &ModuleLimits,
    ) -> Result<Box<dyn Instance>, Fault> {
        Ok(Box::new(FailingInstance {
            instance: self.modules.instantiate(hash, limits)?,
            failpoint: self.failpoint.clone(),
        }))
    }
}

#[derive(Debug)]
struct FailingInstance {
    instance: Box<dyn Instance>,
    failpoint: Failpoint,
}

impl Instance for FailingInstance {
    fn call(
        &mut self,
        export: Export,
        input: &[u8],
        fuel: u64,
        context: &mut Context,
    ) -> Result<Ran, Fault> {
        let text = self.failpoint.text.as_bytes();
        if !text.is_empty() && input.windows(text.len()).any(|window| window == text) {
            match self.failpoint.what {
                What::Panic => panic!("the failpoint"),
                What::Fault => return Err(Fault::new("the failpoint")),
                What::Hang => {
                    tracing::warn!("the failpoint hangs");
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
        self.instance.call(export, input, fuel, context)
    }
}
