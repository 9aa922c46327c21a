//! One call: outcomes, every class of trap, fuel, memory, and what the operator is told.

use std::sync::Arc;

use quorate_core::module::{Export, ModuleLimits, Modules as _, Outcome, Trap};
use quorate_engine::{Config, Diagnostic, Engine, Fuel, INSTANCES_MAX, LOG_LINES_MAX, LogLevel};

use crate::common::probe::{ABORT, DATA, LOG, PUT, Probe};
use crate::common::{
    Collected, ENGINE, FUEL, apply, apply_function, instance, load, module, pair, probe, response,
    run, trap, writes,
};

#[test]
fn input_arrives_and_the_response_leaves() {
    // The outcome is what stands before the input: one byte 0, and the input.
    let wat = apply(
        "(i64.or (i64.shl (i64.const 1023) (i64.const 32))
                 (i64.extend_i32_u (i32.add (local.get $length) (i32.const 1))))",
    );
    let ran = instance(&wat)
        .call(Export::Apply, b"hello", FUEL, &mut writes())
        .unwrap();
    assert_eq!(response(&ran), b"hello");
    assert!(!ran.spent);
    assert!(ran.fuel > 0 && ran.fuel < 100, "{}", ran.fuel);
}

#[test]
fn application_error_has_code_and_payload() {
    let body = format!(
        "(data (i32.const 64) \"\\01\\02\\00\\00\\00why\") {}",
        apply_function(&pair(64, 8))
    );
    let ran = run(&module(&body));
    let error = Outcome::ApplicationError {
        code: 2,
        payload: b"why".to_vec(),
    };
    assert_eq!(ran.outcome, Ok(error));
    assert!(!ran.spent);
}

/// FAULTS 56.
#[test]
fn bad_outcomes_trap() {
    for (pointer, length) in [
        (0, 0),
        (65_536, 1),
        (65_535, 2),
        (0, u32::MAX),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
        (1, 65_536),
    ] {
        assert_eq!(
            trap(&apply(&pair(pointer, length))),
            Trap::BadOutcome,
            "{pointer} {length}"
        );
    }
    for (bytes, length) in [("\\02", 1), ("\\ff", 1), ("\\01\\00\\00\\00", 4)] {
        let body = format!(
            "(data (i32.const 64) \"{bytes}\") {}",
            apply_function(&pair(64, length))
        );
        assert_eq!(trap(&module(&body)), Trap::BadOutcome, "{bytes}");
    }
}

/// FAULTS 47.
#[test]
fn response_over_its_limit_traps() {
    let wat = |bytes: u32| {
        let memory = "(memory (export \"memory\") 32 32)";
        crate::common::parts("", memory, &apply_function(&pair(0, bytes)))
    };
    assert_eq!(response(&run(&wat(1 + (1 << 20)))).len(), 1 << 20);
    assert_eq!(trap(&wat(2 + (1 << 20))), Trap::ResponseLimit);
}

#[test]
fn wasm_traps_are_one_class() {
    for body in [
        "unreachable",
        "(i64.load (i32.const 65535))",
        "(i64.div_u (i64.const 1) (i64.const 0))",
        "(i64.div_s (i64.const 0x8000000000000000) (i64.const -1))",
        "(i64.trunc_f64_s (f64.const nan))",
        "(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2)) (i64.const 0)",
    ] {
        assert_eq!(trap(&apply(body)), Trap::Wasm, "{body}");
    }
    for element in ["(i32.const 0)", "(i32.const 1)", "(i32.const 2)"] {
        let body = format!(
            "(table 2 funcref) (elem (i32.const 1) $apply) {}",
            apply_function(&format!("(call_indirect {element}) (i64.const 0)"))
        );
        assert_eq!(trap(&module(&body)), Trap::Wasm, "{element}");
    }
}

/// FAULTS 51.
#[test]
fn infinite_loop_ends_when_fuel_does() {
    let wat = apply("(loop $again (br $again)) unreachable");
    for fuel in [0, 1, 1_000, 10_000_000] {
        let ran = instance(&wat)
            .call(Export::Apply, b"", fuel, &mut writes())
            .unwrap();
        assert_eq!(
            (ran.outcome, ran.fuel, ran.spent),
            (Err(Trap::OutOfFuel), fuel, true)
        );
    }
}

#[test]
fn host_call_that_cannot_be_paid_is_out_of_fuel_and_does_nothing() {
    let mut probe = Probe::new(writes());
    let input = probe::input(PUT, &[DATA, 1, DATA, 1], 0, b"k");
    let ran = probe
        .instance
        .call(Export::Apply, &input, 500, &mut probe.context)
        .unwrap();
    assert_eq!((ran.outcome, ran.fuel), (Err(Trap::OutOfFuel), 500));
    assert_eq!(probe.context.writes().count(), 0);
}

/// FAULTS 53. The threads of tests have 2 MiB, less than a guest may use; a smaller one besides.
#[test]
fn unbounded_recursion_traps_on_any_thread() {
    let body = format!(
        "{} (func $down (param i64) (result i64)
             (i64.add (call $down (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))",
        apply_function("(call $down (i64.const 0))")
    );
    let wat = module(&body);
    let first = run(&wat);
    assert_eq!(first.outcome, Err(Trap::StackOverflow));
    let on_thread = |stack_bytes: usize| {
        let wat = wat.clone();
        let thread = std::thread::Builder::new().stack_size(stack_bytes);
        thread.spawn(move || run(&wat)).unwrap().join().unwrap()
    };
    load(&ENGINE, &wat);
    assert_eq!(on_thread(512 << 10), first);
    assert_eq!(on_thread(16 << 20), first);
}

#[test]
fn recursion_in_memory_traps_below_address_zero() {
    let body = format!(
        "(global $sp (mut i32) (i32.const 4096)) (data (i32.const 4096) \"x\") {}
         (func $down (global.set $sp (i32.sub (global.get $sp) (i32.const 512)))
             (i32.store (global.get $sp) (i32.const 1)) (call $down))",
        apply_function("(call $down) (i64.const 0)")
    );
    assert_eq!(trap(&module(&body)), Trap::Wasm);
}

/// FAULTS 52: growth fails with -1 at the limit, the same everywhere, and the module goes on.
#[test]
fn memory_grow_bomb_ends_at_the_limit() {
    let body = "(local $pages i32)
        (loop $again
            (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then
                (local.set $pages (i32.add (local.get $pages) (i32.const 1)))
                (br $again))))
        (drop (memory.grow (i32.const 5)))
        (i32.store8 (i32.const 64) (i32.const 0))
        (i32.store (i32.const 65) (local.get $pages))";
    let ran = run(&apply(&format!("{body} {}", pair(64, 5))));
    assert_eq!(response(&ran), 1_023_u32.to_le_bytes());
    assert!(ran.spent, "an instance that grew is not used again");
}

#[test]
fn growth_ends_at_a_limit_lowered_since_admission() {
    let body = format!(
        "(i32.store8 (i32.const 64) (i32.const 0))
         (i32.store (i32.const 65) (memory.grow (i32.const 1))) {}",
        pair(64, 5)
    );
    let hash = load(&ENGINE, &apply(&body));
    let limits = ModuleLimits {
        memory_bytes_max: 64 << 10,
        ..ModuleLimits::default()
    };
    for (limits, result) in [(limits, -1_i32), (ModuleLimits::default(), 1)] {
        let mut instance = ENGINE.instantiate(hash, &limits).unwrap();
        let ran = instance
            .call(Export::Apply, b"", FUEL, &mut writes())
            .unwrap();
        assert_eq!(response(&ran), result.to_le_bytes());
        assert!(!ran.spent);
    }
}

#[test]
fn table_grow_bomb_ends_at_the_limit() {
    let body = format!(
        "(table $t 1 funcref) {}",
        apply_function(&format!(
            "(loop $again (br_if $again
                 (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))))
             (drop (table.grow $t (ref.null func) (i32.const 5)))
             (i32.store8 (i32.const 64) (i32.const 0))
             (i32.store (i32.const 65) (table.size $t)) {}",
            pair(64, 5)
        ))
    );
    assert_eq!(response(&run(&module(&body))), 20_000_u32.to_le_bytes());
}

/// Growth is paid by what is asked for.
#[test]
fn absurd_growth_takes_all_fuel() {
    let memory = "(drop (memory.grow (i32.const -1))) (i64.const 0)";
    assert_eq!(trap(&apply(memory)), Trap::OutOfFuel);
    let table = "(drop (table.grow (ref.null func) (i32.const -1))) (i64.const 0)";
    let body = format!("(table 1 funcref) {}", apply_function(table));
    assert_eq!(trap(&module(&body)), Trap::OutOfFuel);
}

#[test]
fn allocation_that_fails_or_lies_traps() {
    let wat = apply(&pair(0, 1));
    for (alloc, input) in [
        ("0", &b""[..]),
        ("65536", b"x"),
        ("65535", b"xy"),
        ("-1", b"x"),
    ] {
        let wat = wat.replace("(i32.const 1024)", &format!("(i32.const {alloc})"));
        let ran = instance(&wat)
            .call(Export::Apply, input, FUEL, &mut writes())
            .unwrap();
        assert_eq!(ran.outcome, Err(Trap::AllocFailed), "{alloc}");
    }
}

#[test]
fn export_that_is_missing_is_said_so() {
    let mut instance = instance(&apply(&pair(0, 1)));
    let ran = instance
        .call(Export::Migrate, b"", FUEL, &mut writes())
        .unwrap();
    assert_eq!(ran.outcome, Err(Trap::NoSuchExport));
}

#[test]
fn every_export_is_called_by_its_name() {
    let exports = [
        (Export::Init, "init"),
        (Export::Query, "query"),
        (Export::Migrate, "migrate"),
        (Export::MigrateDown, "migrate_down"),
        (Export::PayloadFromJson, "payload_from_json"),
        (Export::PayloadToJson, "payload_to_json"),
    ];
    let mut body = apply_function(&pair(0, 1));
    for (number, (_, name)) in (1_u32..).zip(exports) {
        let address = 64 + 2 * number;
        body += &format!(
            "(data (i32.const {address}) \"\\00\\{number:02x}\")
             (func (export \"quorate_{name}\") (param i32 i32) (result i64) {})",
            pair(address, 2)
        );
    }
    let mut instance = instance(&module(&body));
    for (number, (export, _)) in (1_u8..).zip(exports) {
        let ran = instance.call(export, b"", FUEL, &mut writes()).unwrap();
        assert_eq!(response(&ran), [number]);
    }
}

/// FAULTS 58: dropping what was written is the caller's, who finds it in the context.
#[test]
fn context_comes_back_after_a_trap() {
    let mut probe = Probe::new(writes());
    probe.put("k", "v");
    let ran = probe.call(PUT, &[u32::MAX, 1, DATA, 1], 0, b"");
    assert_eq!(ran.outcome, Err(Trap::BadPointer));
    assert_eq!(probe.context.writes().count(), 1);
    probe.context.roll_back();
    assert_eq!(probe.context.writes().count(), 0);
    let again = probe
        .instance
        .call(Export::Apply, b"", FUEL, &mut probe.context);
    assert!(
        again.is_err(),
        "an instance that trapped is not called again"
    );
}

fn with_diagnostics() -> (Engine, Arc<Collected>) {
    let collected = Arc::new(Collected::default());
    let engine = Engine::new(Config::default()).unwrap();
    (engine.with_diagnostics(collected.clone()), collected)
}

#[test]
fn abort_traps_and_gives_its_message_to_the_operator() {
    let (engine, collected) = with_diagnostics();
    let hash = load(&engine, probe::WAT);
    let mut instance = engine.instantiate(hash, &ModuleLimits::default()).unwrap();
    let input = probe::input(ABORT, &[DATA, 4, DATA + 4, 6, 7], 0, b"oh\nnlib.rs");
    let ran = instance
        .call(Export::Apply, &input, FUEL, &mut writes())
        .unwrap();
    assert_eq!(ran.outcome, Err(Trap::Panicked));
    let found = collected.0.lock().unwrap();
    let [
        panicked,
        Diagnostic::Trapped {
            trap,
            export,
            backtrace,
            fuel,
        },
    ] = found.as_slice()
    else {
        panic!("{found:?}");
    };
    let expected = Diagnostic::Panicked {
        message: "oh\\u{a}n".into(),
        file: "lib.rs".into(),
        line: 7,
    };
    assert_eq!(*panicked, expected);
    assert_eq!((*trap, *export), (Trap::Panicked, Export::Apply));
    assert_eq!(backtrace, &["dispatch", "run"]);
    let (used, max) = (ran.fuel, FUEL);
    assert_eq!(*fuel, Some(Fuel { used, max }));
}

/// As at the genesis of a module without `quorate_init`.
#[test]
fn optional_export_that_is_left_out_is_not_reported_as_a_trap() {
    let (engine, collected) = with_diagnostics();
    let hash = load(&engine, &apply(&pair(0, 1)));
    let limits = ModuleLimits::default();
    let mut instance = engine.instantiate(hash, &limits).unwrap();
    let ran = instance
        .call(Export::Init, b"", FUEL, &mut writes())
        .unwrap();
    assert_eq!(ran.outcome, Err(Trap::NoSuchExport));
    assert_eq!(*collected.0.lock().unwrap(), []);
}

#[test]
fn log_lines_are_escaped_and_limited() {
    let (engine, collected) = with_diagnostics();
    let hash = load(&engine, probe::WAT);
    let mut instance = engine.instantiate(hash, &ModuleLimits::default()).unwrap();
    let input = probe::input(LOG, &[2, DATA, 5], 0, b"\x1b[31m");
    for _ in 0..LOG_LINES_MAX + 3 {
        instance
            .call(Export::Apply, &input, FUEL, &mut writes())
            .unwrap();
    }
    drop(instance);
    let found = collected.0.lock().unwrap();
    let line = Diagnostic::Logged {
        level: LogLevel::Warn,
        text: "\\u{1b}[31m".into(),
    };
    assert_eq!(found.len(), LOG_LINES_MAX as usize + 1);
    assert_eq!(found[0], line);
    assert_eq!(
        found.last(),
        Some(&Diagnostic::LogLinesDropped { lines: 3 })
    );
}

#[test]
fn one_instance_too_many_is_a_fault_until_one_is_dropped() {
    let engine = Engine::new(Config::default()).unwrap();
    let hash = load(&engine, &apply(&pair(0, 1)));
    let make = || engine.instantiate(hash, &ModuleLimits::default());
    let mut instances: Vec<_> = (0..INSTANCES_MAX).map(|_| make().unwrap()).collect();
    assert!(make().is_err());
    instances.pop();
    assert!(make().is_ok());
}

/// A slot that another instance left in disorder is as new.
#[test]
fn memory_of_an_earlier_instance_is_not_seen() {
    let wat = module(&format!(
        "(global $g (mut i32) (i32.const 7)) (data (i32.const 65) \"\\07\") {}",
        apply_function(&format!(
            "(i32.store8 (i32.const 64) (i32.const 0))
             (i32.store8 (i32.const 66) (i32.load8_u (i32.const 60000)))
             (i32.store8 (i32.const 67) (global.get $g))
             (i32.store8 (i32.const 68) (memory.size))
             (drop (memory.grow (i32.const 1)))
             (global.set $g (i32.const 9))
             (i32.store8 (i32.const 60000) (i32.const 9))
             (memory.copy (i32.const 100) (i32.const 65) (i32.const 1))
             (i32.store8 (i32.const 65) (i32.const 9))
             (i32.store8 (i32.const 65) (i32.load8_u (i32.const 100))) {}",
            pair(64, 5)
        ))
    ));
    let first = run(&wat);
    assert_eq!(response(&first), [7, 0, 7, 1]);
    for _ in 0..3 {
        assert_eq!(run(&wat), first);
    }
    let mut shared = instance(&wat);
    shared
        .call(Export::Apply, b"", FUEL, &mut writes())
        .unwrap();
    let second = shared
        .call(Export::Apply, b"", FUEL, &mut writes())
        .unwrap();
    assert_eq!(response(&second), [7, 9, 9, 2]);
}
