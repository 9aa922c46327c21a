//! Migrations in steps, over the host in this process.

#![allow(clippy::unwrap_used, reason = "tests")]

use quorate_guest::native::{Failure, Native, Trap};
use quorate_guest::prelude::*;

/// Turns numbers into texts, `argument` of them in each step.
struct Texts;

const NUMBERS: Map<u32, u64> = Map::new("numbers");
const TEXTS: Map<u32, String> = Map::new("texts");
const POISON: u64 = 13;

impl Module for Texts {
    const STATE_VERSION: u32 = 2;
    const MIGRATES_FROM: &'static [u32] = &[1];
    const MIGRATES_DOWN_TO: &'static [u32] = &[1];
    type Codec = Json;
    type Command = (u32, u64);
    type Response = ();
    type Query = u32;
    type Answer = Option<String>;
    type Request = ();

    fn command(cx: &mut Context<Self>, (key, number): (u32, u64)) -> Result<()> {
        NUMBERS.insert(cx, &key, &number)
    }

    fn query(cx: &ReadContext, key: u32) -> Result<Option<String>> {
        TEXTS.get(cx, &key)
    }

    fn migrate_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {
        assert_eq!((step.from, step.to), (1, 2));
        assert_eq!(step.number == 0, step.cursor.is_empty());
        let limit = u32::from(step.argument[0]);
        NUMBERS.migrate_step(cx, step, limit, |cx, key, number| {
            if number == POISON {
                return Err(Error::new(7, "unlucky"));
            }
            NUMBERS.remove(cx, &key)?;
            TEXTS.insert(cx, &key, &number.to_string())
        })
    }

    fn migrate_down_step(cx: &mut Context<Self>, step: MigrationStep<'_>) -> Result<Progress> {
        cx.set_timer("later", cx.time(), b"");
        Ok(match step.argument {
            [] => Progress::Done,
            _ => Progress::More(step.argument.to_vec()),
        })
    }
}

fn filled(numbers: u32) -> Native<Texts> {
    let mut host = Native::new();
    let session = host.create_session(&[]).unwrap();
    for key in 0..numbers {
        host.command(session, &(key, u64::from(key) + 100)).unwrap();
    }
    host
}

#[test]
fn each_entry_is_migrated_once_whatever_the_size_of_a_step() {
    // The last step finds nothing left.
    for (limit, further) in [(1, 25), (7, 4), (25, 1), (200, 1)] {
        let mut host = filled(25);
        assert_eq!(host.migrate(1, &[limit]), Ok(further));
        assert_eq!(host.state().len(), 25);
        for key in 0..25 {
            assert_eq!(host.query(&key).unwrap(), Some((key + 100).to_string()));
        }
    }
    assert_eq!(filled(0).migrate(1, &[1]), Ok(0));
}

#[test]
fn failure_of_a_step_undoes_all_of_them() {
    let mut host = filled(20);
    let session = host.sessions().next().unwrap();
    host.command(session, &(17, POISON)).unwrap();
    let before = host.state().clone();
    let failed = host.migrate(1, &[3]);
    assert!(matches!(failed, Err(Failure::Error(error)) if error.code() == 7));
    assert_eq!(host.state(), &before);
}

#[test]
fn only_the_last_step_may_emit_and_cursors_are_limited() {
    let mut host = filled(1);
    assert_eq!(host.migrate_down(1, b""), Ok(0));
    let not_allowed = Err(Failure::Trap(Trap::NotAllowed));
    assert_eq!(host.migrate_down(1, b"c"), not_allowed);
    let too_long = Err(Failure::Trap(Trap::ResponseLimit));
    assert_eq!(host.migrate_down(1, &[0; 4097]), too_long);
}
