//! Modules that do what they must not, each found.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_guest::prelude::*;
use quorate_sim::{Checks, Sim};

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
fn checks_that_are_turned_off_find_nothing() {
    let checks = Checks {
        twice: false,
        snapshots: false,
        codec: false,
    };
    let mut sim = Sim::builder()
        .checks(checks)
        .native::<GoesThroughAHashMap>()
        .unwrap();
    let session = sim.session(&[]);
    assert_eq!(sim.call(session, 20), Ok(0));
}
