//! What must be equal on every node: outcomes and fuel. A change here is a new engine level.

use quorate_core::module::{Export, ModuleLimits, Modules as _, Outcome, Ran, Trap};
use quorate_engine::{Config, Engine};

use crate::common::probe::{DATA, DELETE_RANGE, GET, OUT, PUT, SCAN, input};
use crate::common::{
    FUEL, MapState, apply, apply_function, load, module, pair, probe, writes_over,
};

/// Name, module, input; outcome and fuel at level 1.
fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
    let float = apply(&format!(
        "(i32.store8 (i32.const 64) (i32.const 0))
         (f64.store (i32.const 65) (f64.div (f64.const 0) (f64.const 0)))
         (f64.store (i32.const 73) (f64.add (f64.const nan:0x8000000000123) (f64.const 1)))
         (f32.store (i32.const 81) (f32.sqrt (f32.const -1))) {}",
        pair(64, 21)
    ));
    let bulk = apply(&format!(
        "(memory.fill (i32.const 0) (i32.const 0) (i32.const 4096))
         (memory.copy (i32.const 4096) (i32.const 0) (i32.const 4096))
         (drop (memory.grow (i32.const 3))) {}",
        pair(0, 1)
    ));
    let calls = module(&format!(
        "{} (func $f (param i32) (result i32) (if (result i32) (local.get 0)
             (then (i32.add (call $f (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
             (else (i32.const 0))))",
        apply_function(&format!("(drop (call $f (i32.const 1000))) {}", pair(0, 1)))
    ));
    let mut corpus = vec![
        ("empty", apply(&pair(0, 1)), vec![]),
        ("NaN bits", float, vec![]),
        ("bulk memory", bulk, vec![]),
        ("calls", calls, vec![]),
        ("loop", apply("(loop $l (br $l)) unreachable"), vec![]),
        ("unreachable", apply("unreachable"), vec![]),
    ];
    for (name, operation, parameters, data) in [
        ("get", GET, vec![DATA, 1, OUT, 8], "a"),
        ("put", PUT, vec![DATA, 1, DATA + 1, 5], "kvalue"),
        ("scan", SCAN, vec![DATA, 0, DATA, 0, 0, 10, OUT, 100], ""),
        ("delete range", DELETE_RANGE, vec![DATA, 0, DATA, 0, 2], ""),
    ] {
        let input = input(operation, &parameters, 8, data.as_bytes());
        corpus.push((name, probe::WAT.to_owned(), input));
    }
    corpus
}

fn run(engine: &Engine, wat: &str, input: &[u8]) -> Ran {
    let state = MapState::of(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let hash = load(engine, wat);
    let mut instance = engine.instantiate(hash, &ModuleLimits::default()).unwrap();
    instance
        .call(Export::Apply, input, FUEL / 100, &mut writes_over(state))
        .unwrap()
}

#[test]
fn two_engines_give_equal_outcomes_and_fuel() {
    let engines = [0, 1].map(|_| Engine::new(Config::default()).unwrap());
    for (name, wat, input) in corpus() {
        let [one, other] = engines.each_ref().map(|engine| run(engine, &wat, &input));
        assert_eq!(one, other, "{name}");
    }
}

/// The fuel-and-trap corpus of level 1: a release that changes a number here raises the level.
#[test]
fn fuel_of_level_1_is_pinned() {
    let engine = Engine::new(Config::default()).unwrap();
    let found: Vec<_> = corpus()
        .into_iter()
        .map(|(name, wat, input)| {
            let ran = run(&engine, &wat, &input);
            (name, ran.outcome.err(), ran.fuel)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("empty", None, 4),
            ("NaN bits", None, 39),
            ("bulk memory", None, 9243),
            ("calls", None, 13_014),
            ("loop", Some(Trap::OutOfFuel), 10_000_000),
            ("unreachable", Some(Trap::Wasm), 3),
            ("get", None, 1085),
            ("put", None, 1090),
            ("scan", None, 3641),
            ("delete range", None, 5099),
        ]
    );
}

#[test]
fn not_a_number_has_one_representation() {
    let engine = Engine::new(Config::default()).unwrap();
    let (_, wat, input) = corpus().remove(1);
    let expected = [
        &f64::from_bits(0x7ff8_0000_0000_0000).to_le_bytes()[..],
        &f64::from_bits(0x7ff8_0000_0000_0000).to_le_bytes(),
        &f32::from_bits(0x7fc0_0000).to_le_bytes(),
    ];
    let ran = run(&engine, &wat, &input);
    assert_eq!(ran.outcome, Ok(Outcome::Success(expected.concat())));
}
