//! Upgrades, natively.

use quorate_guest::prelude::*;
use quorate_sim::{NotActivated, Sim, StartError};

use crate::probe::{Command, NOTE, Probe, REFUSED};

/// Later versions of the probe, that only have migrations.
macro_rules! version {
    ($name:ident, $version:literal, from: $from:expr, down: $down:expr, |$cx:ident, $argument:ident| $migrate:expr) => {
        struct $name;

        impl Module for $name {
            const STATE_VERSION: u32 = $version;
            const MIGRATES_FROM: &'static [u32] = $from;
            const MIGRATES_DOWN_TO: &'static [u32] = $down;
            type Codec = Json;
            type Command = ();
            type Response = ();
            type Query = ();
            type Answer = String;
            type Request = ();

            fn command(_: &mut Context<Self>, (): ()) -> Result<()> {
                Ok(())
            }

            fn query(cx: &ReadContext, (): ()) -> Result<String> {
                Ok(NOTE.get(cx)?.unwrap_or_default())
            }

            fn migrate($cx: &mut Context<Self>, _: u32, $argument: &[u8]) -> Result<()> {
                $migrate
            }

            /// The argument says how it ends.
            fn migrate_down(cx: &mut Context<Self>, to: u32, argument: &[u8]) -> Result<()> {
                let note = NOTE.get(cx)?.unwrap_or_default();
                NOTE.set(cx, &format!("{note}, back to {to}"))?;
                match argument {
                    b"refuse" => Err(Error::new(REFUSED, "no way back")),
                    b"panic" => panic!("out of bread"),
                    _ => Ok(()),
                }
            }
        }

        export_module!($name, name: "probe");
    };
}

version!(Two, 2, from: &[1], down: &[1], |cx, argument| {
    let note = NOTE.get(cx)?.unwrap_or_default();
    let argument = String::from_utf8_lossy(argument);
    NOTE.set(cx, &format!("{note}, migrated by {argument}"))
});
version!(Refuses, 2, from: &[1], down: &[], |cx, _argument| {
    NOTE.set(cx, &"never".into())?;
    Err(Error::new(REFUSED, "not this one"))
});
version!(Panics, 2, from: &[1], down: &[], |cx, _argument| {
    NOTE.set(cx, &"never".into())?;
    panic!("out of cheese")
});
version!(FromNowhere, 3, from: &[], down: &[], |_cx, _argument| Ok(()));

fn noted() -> Sim<Probe> {
    let mut sim = Sim::native::<Probe>();
    let session = sim.session(&[]);
    sim.call(session, Command::Note("first".into())).unwrap();
    sim
}

#[test]
fn a_migration_turns_the_state_into_the_next_versions_and_back() {
    let sim = noted();
    let session = sim.sessions()[0];
    let mut sim = sim.upgrade_to::<Two>(b"hand").unwrap();
    assert_eq!(sim.query(()).unwrap(), "first, migrated by hand");
    // The session goes on.
    sim.call(session, ()).unwrap();
    let mut sim = sim.upgrade_to::<Probe>(b"").unwrap();
    let answer = sim.query(()).unwrap();
    assert_eq!(answer, "first, migrated by hand, back to 1");
    assert_eq!(sim.requests(session), ["welcome"]);
}

#[test]
fn a_migration_that_fails_says_why_and_leaves_everything_as_it_was() {
    let mut sim = noted();
    let (state, snapshot) = (sim.state(), sim.machine().snapshot().unwrap());

    let failed = sim.upgrade_to::<Refuses>(b"").unwrap_err();
    assert_eq!(
        failed.to_string(),
        "the upgrade fails: the migration answered error 7: not this one"
    );
    let failed = failed.sim.upgrade_to::<Panics>(b"").unwrap_err();
    let text = failed.to_string();
    assert!(
        text.starts_with("the upgrade fails: the migration trapped: panicked (panicked at ")
            && text.ends_with(": out of cheese)"),
        "{text}"
    );
    let failed = failed.sim.upgrade_to::<FromNowhere>(b"").unwrap_err();
    let StartError::NotActivated { slug, why, .. } = &failed.why else {
        panic!("{failed}");
    };
    assert_eq!(*slug, "module-state-version");
    assert_eq!(**why, NotActivated::NoMigration { from: 1, to: 3 });

    let mut sim = failed.sim;
    assert_eq!(sim.state(), state);
    let keys = |snapshot: &[u8]| {
        // All but what every entry changes: index, time and hash.
        snapshot.len()
    };
    let after = sim.machine().snapshot().unwrap();
    assert_eq!(keys(&after), keys(&snapshot));
    let session = sim.sessions()[0];
    sim.call(session, Command::Note("on we go".into())).unwrap();
    assert_eq!(sim.query(()).unwrap(), "on we go");
}

#[test]
fn a_way_down_that_fails_says_why_and_leaves_everything_as_it_was() {
    let sim = noted();
    let session = sim.sessions()[0];
    let sim = sim.upgrade_to::<Two>(b"hand").unwrap();
    let state = sim.state();
    let failed = sim.upgrade_to::<Probe>(b"refuse").unwrap_err();
    assert_eq!(
        failed.to_string(),
        "the upgrade fails: the migration answered error 7: no way back"
    );
    let failed = failed.sim.upgrade_to::<Probe>(b"panic").unwrap_err();
    let text = failed.to_string();
    assert!(
        text.starts_with("the upgrade fails: the migration trapped: panicked (panicked at ")
            && text.ends_with(": out of bread)"),
        "{text}"
    );
    let mut sim = failed.sim;
    assert_eq!(sim.state(), state);
    // The module that it would have led away from serves on.
    sim.call(session, ()).unwrap();
    assert_eq!(sim.query(()).unwrap(), "first, migrated by hand");
    let mut sim = sim.upgrade_to::<Probe>(b"").unwrap();
    let answer = sim.query(()).unwrap();
    assert_eq!(answer, "first, migrated by hand, back to 1");
}

#[test]
fn a_snapshot_goes_on_where_it_was_made() {
    let mut sim = noted();
    let session = sim.sessions()[0];
    sim.call(session, Command::Timer("t".into(), 60)).unwrap();
    let again = sim.call(session, Command::Random);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.snapshot");
    std::fs::write(&file, sim.machine().snapshot().unwrap()).unwrap();

    let mut restored = Sim::builder().native_from_snapshot::<Probe>(&file).unwrap();
    assert_eq!(restored.state(), sim.state());
    assert_eq!(restored.time(), sim.time());
    assert_eq!(restored.sessions(), [session]);
    assert_eq!(restored.requests(session), ["welcome"]);
    // Its client comes back, and goes on with its ids.
    assert_ne!(restored.call(session, Command::Random), again);
    restored.advance(std::time::Duration::from_secs(61));
    assert_eq!(
        restored.state().len(),
        sim.state().len() + 1,
        "the timer fired"
    );
    let other = restored.session(&[]);
    assert_ne!(other, session);

    let mut bytes = std::fs::read(&file).unwrap();
    for at in [40, bytes.len() / 2, bytes.len() - 1] {
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let refused = Sim::builder()
            .native_from_snapshot::<Probe>(&file)
            .unwrap_err();
        assert!(matches!(refused, StartError::Snapshot(_)), "{refused}");
        bytes[at] ^= 1;
    }
    std::fs::write(&file, &bytes).unwrap();
    let refused = Sim::builder()
        .native_from_snapshot::<Two>(&file)
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the snapshot is refused: the module in force is probe with state version 1, this one is \
         probe with 2"
    );
}

#[test]
fn init_has_its_argument_and_one_that_fails_is_named() {
    let sim = Sim::builder().argument("hello").native::<Probe>();
    assert_eq!(sim.unwrap().query(()).unwrap(), "hello");
    let refused = Sim::builder().argument("refuse").native::<Probe>();
    assert_eq!(
        refused.unwrap_err().to_string(),
        "quorate_init answered error 7: refused"
    );
}
