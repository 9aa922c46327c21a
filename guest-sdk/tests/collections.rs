//! Collections beside the plain ones, and what migrations need: bounded pieces, moves, and upgrades that fail.

#![allow(clippy::unwrap_used, reason = "tests")]

use quorate_guest::native::{Failure, Native};
use quorate_guest::prelude::*;

const NUMBERS: Map<u32, u64> = Map::new("numbers");
const TEXTS: Map<u32, String, Postcard> = Map::new("numbers");
const NAMES: Set<String> = Set::new("names");
const MEMBERS: Set<String> = Set::new("members");
const OLD: Item<u64> = Item::new("old");
const NEW: Item<u64> = Item::new("new");
const IDS: Sequence = Sequence::new("ids");
const SESSIONS: Sessions = Sessions::new("sessions");

#[derive(Debug, Serialize, Deserialize)]
enum Command {
    Fill(u32),
    /// Rewrites numbers as texts, from a cursor, up to a limit.
    Rewrite(Vec<u8>, u32),
    Texts,
    Rename(u32),
    Names,
    MoveItem,
    GoOnAfter(u64),
    Next,
    With(String),
    Capabilities(SessionId),
    Forget(SessionId),
}

/// What a command answers: numbers and a text.
type Told = (Vec<u64>, String);

macro_rules! version {
    ($name:ident, $version:literal, $from:expr, $down:expr) => {
        #[derive(Debug)]
        struct $name;

        impl Module for $name {
            const STATE_VERSION: u32 = $version;
            const MIGRATES_FROM: &'static [u32] = $from;
            const MIGRATES_DOWN_TO: &'static [u32] = $down;
            type Codec = Json;
            type Command = Command;
            type Response = Told;
            type Query = ();
            type Answer = ();
            type Request = ();

            fn command(cx: &mut Context<Self>, command: Command) -> Result<Told> {
                run(cx, command)
            }

            fn query(_: &ReadContext, (): ()) -> Result<()> {
                Ok(())
            }

            fn session_created(
                cx: &mut Context<Self>,
                session: SessionId,
                capabilities: &Capabilities,
            ) -> Result<()> {
                SESSIONS.begin(cx, session, capabilities)
            }

            fn session_expired(
                cx: &mut Context<Self>,
                session: SessionId,
                _: SessionEnd,
                _: &Capabilities,
            ) -> Result<()> {
                SESSIONS.end(cx, session)
            }

            fn migrate(cx: &mut Context<Self>, _: u32, argument: &[u8]) -> Result<()> {
                NEW.set(cx, &$version)?;
                match argument {
                    b"fail" => Err(Error::new(1, "as asked")),
                    _ => Ok(()),
                }
            }

            fn migrate_down(cx: &mut Context<Self>, to: u32, _: &[u8]) -> Result<()> {
                NEW.set(cx, &to.into())
            }
        }
    };
}

version!(One, 1, &[], &[]);
version!(Two, 2, &[1], &[1]);
version!(Nine, 9, &[], &[]);

fn run<M: Module>(cx: &mut Context<M>, command: Command) -> Result<Told> {
    let mut numbers = Vec::new();
    let mut text = String::new();
    match command {
        Command::Fill(count) => {
            for n in 0..count {
                NUMBERS.insert(cx, &n, &u64::from(n))?;
                NAMES.insert(cx, &format!("n{n}"))?;
            }
            OLD.set(cx, &7)?;
        }
        Command::Rewrite(from, limit) => {
            let doubled = |key: &u32, value: u64| Ok(format!("{key}:{}", value * 2));
            let piece = TEXTS.migrate_values::<_, u64, Json>(cx, &from, limit, doubled)?;
            numbers.push(piece.entries.into());
            let next = piece.next.unwrap_or_default();
            numbers.extend(next.into_iter().map(u64::from));
        }
        Command::Texts => {
            let all: Result<Vec<_>> = TEXTS.range::<u32>(cx, ..).collect();
            let texts: Vec<_> = all?.into_iter().map(|(_, text)| text).collect();
            text = texts.join(" ");
        }
        Command::Rename(limit) => numbers.push(MEMBERS.move_from(cx, &NAMES, limit)?.into()),
        Command::Names => {
            for (set, label) in [(&NAMES, "names"), (&MEMBERS, "members")] {
                let names: Vec<String> = set.range::<String>(cx, ..).collect::<Result<_>>()?;
                text += &format!("{label} {}; ", names.join(" "));
            }
        }
        Command::MoveItem => {
            NEW.move_from(cx, &OLD)?;
            numbers.extend(OLD.get(cx)?);
            numbers.extend(NEW.get(cx)?);
        }
        Command::GoOnAfter(last) => IDS.go_on_after(cx, last)?,
        Command::Next => numbers.push(IDS.next(cx)?),
        Command::With(name) => {
            for found in SESSIONS.with(cx, &name) {
                let (session, value) = found?;
                text += &format!("{}={value} ", session.to_bytes()[15]);
            }
        }
        Command::Capabilities(session) => {
            text = format!("{:?}", SESSIONS.capabilities(cx, session)?);
        }
        Command::Forget(session) => SESSIONS.end(cx, session)?,
    }
    Ok((numbers, text))
}

fn start() -> (Native<One>, SessionId) {
    let mut host = Native::new();
    let session = host.create_session(&[("role", "test")]).unwrap();
    (host, session)
}

#[track_caller]
fn told(host: &mut Native<One>, session: SessionId, command: &Command) -> Told {
    host.command(session, command).unwrap()
}

#[test]
fn values_are_rewritten_piece_by_piece_and_each_once() {
    let (mut host, session) = start();
    told(&mut host, session, &Command::Fill(7));
    let (mut from, mut pieces) = (Vec::new(), Vec::new());
    loop {
        let (numbers, _) = told(&mut host, session, &Command::Rewrite(from, 3));
        pieces.push(numbers[0]);
        from = numbers[1..].iter().map(|byte| *byte as u8).collect();
        if from.is_empty() {
            break;
        }
    }
    assert_eq!(pieces, [3, 3, 1, 0]);
    let (_, texts) = told(&mut host, session, &Command::Texts);
    assert_eq!(texts, "0:0 1:2 2:4 3:6 4:8 5:10 6:12");
}

#[test]
fn a_value_of_another_type_than_the_migration_thinks_is_an_error_and_changes_nothing() {
    let (mut host, session) = start();
    told(&mut host, session, &Command::Fill(2));
    told(&mut host, session, &Command::Rewrite(Vec::new(), 9));
    let before = host.state().clone();
    match host.command(session, &Command::Rewrite(Vec::new(), 9)) {
        Err(Failure::Error(error)) => assert_eq!(error.code(), Error::MALFORMED_STATE),
        other => panic!("{other:?}"),
    }
    assert_eq!(*host.state(), before);
}

#[test]
fn a_collection_is_renamed_piece_by_piece() {
    let (mut host, session) = start();
    told(&mut host, session, &Command::Fill(3));
    let keys = host.state().len();
    assert_eq!(told(&mut host, session, &Command::Rename(2)).0, [2]);
    let (_, names) = told(&mut host, session, &Command::Names);
    assert_eq!(names, "names n2; members n0 n1; ");
    assert_eq!(told(&mut host, session, &Command::Rename(2)).0, [1]);
    assert_eq!(told(&mut host, session, &Command::Rename(2)).0, [0]);
    assert_eq!(
        told(&mut host, session, &Command::Names).1,
        "names ; members n0 n1 n2; "
    );
    assert_eq!(told(&mut host, session, &Command::MoveItem).0, [7]);
    assert_eq!(host.state().len(), keys);
}

#[test]
fn a_sequence_ends_at_the_last_number_and_says_so() {
    let (mut host, session) = start();
    assert_eq!(told(&mut host, session, &Command::Next).0, [1]);
    told(&mut host, session, &Command::GoOnAfter(u64::MAX - 1));
    assert_eq!(told(&mut host, session, &Command::Next).0, [u64::MAX]);
    match host.command(session, &Command::Next) {
        Err(Failure::Error(error)) => assert_eq!(error.code(), Error::SEQUENCE_EXHAUSTED),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sessions_are_found_by_capability_until_they_end() {
    let (mut host, session) = start();
    let other = host
        .create_session(&[("role", "b"), ("room", "x")])
        .unwrap();
    let third = host.create_session(&[("roles", "c")]).unwrap();
    let with = |name: &str| Command::With(name.to_owned());
    assert_eq!(told(&mut host, session, &with("role")).1, "1=test 2=b ");
    assert_eq!(told(&mut host, session, &with("room")).1, "2=x ");
    assert_eq!(told(&mut host, session, &with("rol")).1, "");
    let (_, shown) = told(&mut host, session, &Command::Capabilities(other));
    assert_eq!(shown, r#"Some({"role": "b", "room": "x"})"#);
    host.expire(other).unwrap();
    host.expire(third).unwrap();
    assert_eq!(told(&mut host, session, &with("role")).1, "1=test ");
    assert_eq!(
        told(&mut host, session, &Command::Capabilities(other)).1,
        "None"
    );
    told(&mut host, session, &Command::Forget(other));
    told(&mut host, session, &Command::Forget(session));
    assert!(host.state().is_empty());
}

#[test]
fn an_upgrade_migrates_or_leaves_the_host_as_it_was() {
    let (mut host, session) = start();
    told(&mut host, session, &Command::Fill(1));
    let before = host.state().clone();
    let (host, failure) = host.upgrade::<Two>(b"fail").unwrap_err();
    assert!(matches!(failure, Failure::Error(error) if error.code() == 1));
    assert_eq!(*host.state(), before);
    let (host, failure) = host.upgrade::<Nine>(b"").unwrap_err();
    assert!(matches!(failure, Failure::Error(error) if error.code() == Error::NO_MIGRATION));
    assert_eq!(*host.state(), before);

    let host = host.upgrade::<Two>(b"").unwrap();
    let stored = |host: &Native<Two>| host.state().get(&b"new\0"[..]).cloned();
    assert_eq!(stored(&host).as_deref(), Some(&b"2"[..]));
    let mut host = host.upgrade::<One>(b"").unwrap();
    assert_eq!(
        host.state().get(&b"new\0"[..]).map(Vec::as_slice),
        Some(&b"1"[..])
    );
    // Sessions live on.
    host.command(session, &Command::Texts).unwrap_err();
    assert_eq!(told(&mut host, session, &Command::Next).0, [1]);
}

#[test]
fn a_session_id_is_sixteen_bytes_in_postcard() {
    let id = SessionId::from_bytes([7; 16]);
    assert_eq!(Postcard::encode(&id).unwrap(), [7; 16]);
    assert_eq!(Postcard::decode(&[7; 16]), Ok(id));
    let cut: Result<SessionId, _> = Postcard::decode(&[7; 15]);
    assert!(cut.is_err());
    let long: Result<SessionId, _> = Postcard::decode(&[7; 17]);
    assert_eq!(long, Err(Malformed::new("1 bytes too many")));
}
