//! `quorate module rollback`: a module in force again that was before.

use quorate_host::admin::{ModuleActivation, ModuleOverview};
use quorate_host::modules::Mode;
use tokio::time::Instant;

use super::module_deploy::{Outcome, Wish, look};
use super::module_list::resolve;
use crate::args::Options;
use crate::args::module::Rollback;
use crate::failure::{Failure, Slug};
use crate::leader::Leader;
use crate::output::Exit;
use crate::payload::handed;
use crate::progress::Progress;

pub(crate) async fn run(arguments: &Rollback, options: &Options) -> Result<Exit, Box<Failure>> {
    let argument = handed(arguments.argument.as_deref())?;
    let deadline = Instant::now() + options.timeout + arguments.readiness.wait;
    let mut leader = Leader::new(options, deadline);
    let before = look(&mut leader).await?;
    let hash = target(&before, arguments.module.as_deref())?;
    let known = known(&before, &hash)?;
    let progress = Progress::new(options);
    let wish = Wish {
        hash,
        mode: Mode::Upgrade,
        expected: before.in_force.clone(),
        argument: &argument,
        readiness: &arguments.readiness,
    };
    let in_force = wish.activate(&mut leader, &progress).await?;
    let module = (&*known.name, &*known.version, known.state_version);
    let mut outcome = Outcome::of(module, &in_force);
    outcome.everywhere(options, deadline, &progress).await?;
    outcome.tell(options)
}

fn target(before: &ModuleOverview, wanted: Option<&str>) -> Result<String, Box<Failure>> {
    match wanted {
        Some(wanted) => resolve(before, wanted),
        // What a migration leads away from is what it is rolled back to.
        None if before.migration.is_some() => before.in_force.clone().ok_or_else(nothing_before),
        None => before.previous.clone().ok_or_else(nothing_before),
    }
}

fn nothing_before() -> Box<Failure> {
    let text = "no other module was in force before this one";
    Failure::new(Exit::REFUSED, Slug::ModuleUnknown, text)
}

/// Only what was in force can be again by this.
fn known<'a>(before: &'a ModuleOverview, hash: &str) -> Result<&'a ModuleActivation, Box<Failure>> {
    let mut history = before.history.iter();
    let known = history.find(|activation| activation.hash == hash);
    known.ok_or_else(|| {
        let text = format!("module {hash} was never in force");
        Failure::new(Exit::REFUSED, Slug::ModuleUnknown, text)
            .hint("`quorate module deploy` its file")
    })
}
