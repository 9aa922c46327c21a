//! Modules whose instantiation runs code of wasmtime's: where what they begin with cannot be mapped.

use quorate_core::context::{Access, Context};
use quorate_core::module::{Export, ModuleLimits, Modules as _, Outcome};

use super::common::*;

/// It takes neither an operation's fuel nor a query's time, and cannot fail.
#[test]
fn what_a_module_begins_with_is_there_whatever_it_takes() {
    let memory = "(memory (export \"memory\") 600 1024)";
    for (what, begins_with) in [
        (
            "a passive segment of elements",
            "(elem funcref (ref.func $apply))",
        ),
        (
            "elements that are functions and none",
            "(table 9 funcref) (elem (i32.const 2) funcref (ref.null func) (ref.func $apply))",
        ),
        (
            "data at both ends of a memory",
            "(data (i32.const 8) \"x\") (data (i32.const 39000000) \"y\")",
        ),
    ] {
        let answers = format!(
            "(i32.store8 (i32.const 0) (i32.const 0))
             (i32.store8 (i32.const 1) (i32.load8_u (i32.const 8)))
             (i32.store8 (i32.const 2) (i32.load8_u (i32.const 39000000)))
             {}",
            pair(0, 3)
        );
        let query = answers.clone();
        let body = format!(
            "{begins_with} {} (func (export \"quorate_query\") (param i32 i32) (result i64) {query})",
            apply_function(&answers)
        );
        let wat = parts("", memory, &body);
        let data = match what.starts_with("data") {
            true => b"xy",
            false => b"\0\0",
        };
        let ran = run(&wat);
        assert_eq!(response(&ran), data, "{what}");

        let hash = load(&ENGINE, &wat);
        let limits = ModuleLimits::default();
        let mut context = Context::new(MapState::of(&[]), Access::Reads, limits.clone());
        let asked = ENGINE.call_query(hash, &limits, b"", &mut context, 1_000);
        let outcome = asked.unwrap().outcome;
        assert_eq!(outcome, Ok(Outcome::Success(data.to_vec())), "{what}");
        let mut instance = ENGINE.instantiate(hash, &limits).unwrap();
        let again = instance
            .call(Export::Apply, b"", FUEL, &mut writes())
            .unwrap();
        assert_eq!(
            (again.outcome, again.fuel),
            (ran.outcome, ran.fuel),
            "{what}"
        );
    }
}
