//! Modules that do what they must not, each found.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_guest::prelude::*;
use quorate_sim::{Checks, Problem, Sim};

/// A module of one command, which takes and answers a number.
macro_rules! module {
    ($name:ident, $codec:ty, |$cx:ident, $number:ident| $body:expr) => {
        struct $name;

        impl Module for $name {
            const STATE_VERSION: u32 = 1;
            type Codec = $codec;
            type Command = u64;
            type Response = u64;
            type Query = ();
            type Answer = u64;
            type Request = ();

            fn command($cx: &mut Context<Self>, $number: u64) -> Result<u64> {
                $body
            }

            fn query(_: &ReadContext, (): ()) -> Result<u64> {
                Ok(0)
            }
        }

        export_module!($name, name: "wrong");
    };
}

const STORED: Item<Vec<u64>> = Item::new("stored");

module!(Remembers, Json, |_cx, number| {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    Ok(number + CALLS.fetch_add(1, Ordering::Relaxed))
});

module!(GoesThroughAHashMap, Json, |cx, number| {
    let map: HashMap<u64, ()> = (0..number).map(|number| (number, ())).collect();
    STORED.set(cx, &map.into_keys().collect())?;
    Ok(0)
});

module!(SendsSomethingElse, Json, |cx, number| {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    cx.set_timer("t", cx.time(), &[calls as u8]);
    Ok(number)
});

/// Loses the lowest bit.
struct Halves;

impl quorate_guest::CodecName for Halves {
    const NAME: &'static str = "raw";
}

impl<T: Serialize + serde::de::DeserializeOwned> Codec<T> for Halves {
    fn encode(value: &T) -> Result<Vec<u8>> {
        let mut bytes = Json::encode(value)?;
        if let Some(last) = bytes.last_mut().filter(|last| last.is_ascii_digit()) {
            *last -= (*last - b'0') % 2;
        }
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<T, Malformed> {
        let mut bytes = bytes.to_vec();
        if let Some(last) = bytes.last_mut().filter(|last| last.is_ascii_digit()) {
            *last = b'0' + (b'9' - *last).min(8);
        }
        Json::decode(&bytes)
    }
}

module!(HasAnotherCodec, Halves, |_cx, number| Ok(number));

/// A number that loses its lowest bit when it is decoded.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "u64")]
struct Even(u64);

impl From<u64> for Even {
    fn from(number: u64) -> Self {
        Self(number & !1)
    }
}

/// Everything but its commands may lose something: it answers and sends what it is told to.
struct Loses;

/// What a query is answered.
const ANSWER: Item<u64> = Item::new("answer");

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Tell {
    Respond(u64),
    Send(u64),
    Answer(u64),
}

impl Module for Loses {
    const STATE_VERSION: u32 = 1;
    type Codec = Json;
    type Command = Tell;
    type Response = Even;
    type Query = Even;
    type Answer = Even;
    type Request = Even;

    fn command(cx: &mut Context<Self>, command: Tell) -> Result<Even> {
        match command {
            Tell::Respond(number) => return Ok(Even(number)),
            Tell::Send(number) => {
                let caller = cx.session().expect("a command has a session");
                cx.send(caller, &Even(number))?;
            }
            Tell::Answer(number) => ANSWER.set(cx, &number)?,
        }
        Ok(Even(0))
    }

    fn query(cx: &ReadContext, _: Even) -> Result<Even> {
        Ok(Even(ANSWER.get(cx)?.unwrap_or(0)))
    }
}

export_module!(Loses, name: "loses");

/// Counts its queries, and says how many there were.
struct CountsQueries;

impl Module for CountsQueries {
    const STATE_VERSION: u32 = 1;
    type Codec = Json;
    type Command = ();
    type Response = ();
    type Query = ();
    type Answer = u64;
    type Request = ();

    fn command(_: &mut Context<Self>, (): ()) -> Result<()> {
        Ok(())
    }

    fn query(_: &ReadContext, (): ()) -> Result<u64> {
        static QUERIES: AtomicU64 = AtomicU64::new(0);
        Ok(QUERIES.fetch_add(1, Ordering::Relaxed))
    }
}

export_module!(CountsQueries, name: "counts-queries");

/// Answers a command, which is a number in decimal, with as many bytes.
struct SaysMuch;

impl Module for SaysMuch {
    const STATE_VERSION: u32 = 1;
    type Codec = Raw;
    type Command = String;
    type Response = Vec<u8>;
    type Query = ();
    type Answer = ();
    type Request = ();

    fn command(_: &mut Context<Self>, command: String) -> Result<Vec<u8>> {
        Ok(vec![0; command.parse().unwrap()])
    }

    fn query(_: &ReadContext, (): ()) -> Result<()> {
        Ok(())
    }
}

export_module!(SaysMuch, name: "says-much");

fn call<M>(number: u64) -> u64
where
    M: quorate_guest::native::Exported + Module<Command = u64, Response = u64>,
{
    let mut sim = Sim::native::<M>();
    let session = sim.session(&[]);
    sim.call(session, number).unwrap()
}

#[test]
#[should_panic(
    expected = "differ, in the command: the outcome\n   first: success \"7\"\n  second: success \"9\""
)]
fn a_response_that_depends_on_a_static() {
    call::<Remembers>(7);
}

#[test]
#[should_panic(expected = "the write of key \"stored\\x00\"")]
fn a_write_in_the_order_of_a_hash_map() {
    call::<GoesThroughAHashMap>(20);
}

#[test]
#[should_panic(expected = "effect 1\n   first: timer \"t\"")]
fn an_effect_that_depends_on_a_static() {
    call::<SendsSomethingElse>(1);
}

#[test]
#[should_panic(expected = "the codec does not keep the command \"2\": it becomes \"6\"")]
fn a_codec_that_loses_something() {
    call::<HasAnotherCodec>(3);
}

#[test]
fn what_the_codec_keeps_is_not_reported() {
    let mut sim = Sim::native::<Loses>();
    let session = sim.session(&[]);
    assert_eq!(sim.call(session, Tell::Respond(2)), Ok(Even(2)));
    sim.call(session, Tell::Send(4)).unwrap();
    assert_eq!(sim.requests(session), [Even(4)]);
    sim.call(session, Tell::Answer(6)).unwrap();
    assert_eq!(sim.query(Even(8)), Ok(Even(6)));
}

#[test]
#[should_panic(expected = "the codec does not keep the response \"3\": it becomes \"2\"")]
fn a_response_that_loses_something() {
    let mut sim = Sim::native::<Loses>();
    let session = sim.session(&[]);
    let _ = sim.call(session, Tell::Respond(3));
}

#[test]
#[should_panic(expected = "the codec does not keep the request \"5\": it becomes \"4\"")]
fn a_request_that_loses_something() {
    let mut sim = Sim::native::<Loses>();
    let session = sim.session(&[]);
    sim.call(session, Tell::Send(5)).unwrap();
    sim.requests(session);
}

#[test]
#[should_panic(expected = "the codec does not keep the query \"9\": it becomes \"8\"")]
fn a_query_that_loses_something() {
    let _ = Sim::native::<Loses>().query(Even(9));
}

#[test]
#[should_panic(expected = "the codec does not keep the answer \"7\": it becomes \"6\"")]
fn an_answer_that_loses_something() {
    let mut sim = Sim::native::<Loses>();
    let session = sim.session(&[]);
    sim.call(session, Tell::Answer(7)).unwrap();
    let _ = sim.query(Even(8));
}

#[test]
#[should_panic(expected = "two runs of a query differ, in the query: the outcome")]
fn an_answer_that_depends_on_a_static() {
    let _ = Sim::native::<CountsQueries>().query(());
}

/// With limits that no cluster takes, so that a response is kept which is too large for a snapshot.
#[test]
fn a_state_that_no_snapshot_holds_is_found_at_the_next_power_of_two() {
    let start = |snapshots| {
        let checks = Checks {
            snapshots,
            ..Checks::default()
        };
        let builder = Sim::builder().checks(checks);
        let builder = builder.limits(|limits| limits.module.response_bytes_max = 100 << 20);
        let mut sim = builder.native::<SaysMuch>().unwrap();
        let session = sim.session(&[]);
        sim.call(session, "0".to_owned()).unwrap();
        let response = sim.call(session, (65 << 20).to_string()).unwrap();
        assert_eq!(response.len(), 65 << 20);
        assert_eq!(sim.machine().index(), 7);
        (sim, session)
    };
    let (mut sim, session) = start(true);
    let found = sim.machine().command(session, b"0").unwrap_err();
    let Problem::Inconsistent(text) = &found else {
        panic!("{found}");
    };
    assert!(text.starts_with("a snapshot cannot be read: "), "{text}");
    let (mut sim, session) = start(false);
    sim.call(session, "0".to_owned()).unwrap();
}

#[test]
fn checks_that_are_turned_off_find_nothing() {
    let checks = Checks {
        twice: false,
        snapshots: false,
        codec: false,
    };
    let mut sim = Sim::builder().checks(checks).native::<Loses>().unwrap();
    let session = sim.session(&[]);
    assert_eq!(sim.call(session, Tell::Respond(3)), Ok(Even(2)));
    assert_eq!(sim.query(Even(9)), Ok(Even(0)));
    let counts = Sim::builder().checks(checks).native::<CountsQueries>();
    assert!(counts.unwrap().query(()).is_ok());
    let mut sim = Sim::builder()
        .checks(checks)
        .native::<GoesThroughAHashMap>()
        .unwrap();
    let session = sim.session(&[]);
    assert_eq!(sim.call(session, 20), Ok(0));
}
