//! Compiled modules: the counter in C beside the one in Rust, upgrades, fuel, and what a node would refuse.

#![cfg(feature = "wasm")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use quorate_sim::script::{self, ScriptError, ScriptReport};
use quorate_sim::{Machine, Sim, StartError, Trap};

fn prebuilt(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../modules/prebuilt/{module}.wasm"))
}

fn run(machine: &mut Machine, script: &str) -> Result<ScriptReport, Box<ScriptError>> {
    let folder = prebuilt("none");
    script::run(machine, script, folder.parent().unwrap(), &mut |_| ())
}

/// A module in text. `STATE` is its state version and what it migrates from, `APPLY` the body of `quorate_apply`, `MORE` other exports.
/// It has memory for inputs at 4096, and an empty success at 8.
fn wat(state: &str, apply: &str, more: &str) -> Vec<u8> {
    let text = r#"(module
      (import "quorate" "store_put" (func $put (param i32 i32 i32 i32)))
      (import "quorate" "store_get" (func $get (param i32 i32 i32 i32) (result i64)))
      (memory (export "memory") 4 16)
      (data (i32.const 16) "key")
      (global $calls (mut i64) (i64.const 0))
      (func (export "quorate_abi_v1"))
      (func (export "quorate_alloc") (param i32) (result i32) (i32.const 4096))
      (func $success (result i64) (i64.or (i64.shl (i64.const 8) (i64.const 32)) (i64.const 1)))
      (func (export "quorate_apply") (param i32 i32) (result i64) APPLY (call $success))
      MORE
      (@custom "quorate_manifest"
        "{\"name\":\"text\",\"version\":\"0.1.0\",\"abi\":1,\"state-version\":STATE,\"codec\":\"raw\"}"))"#;
    let text = text
        .replace("STATE", state)
        .replace("APPLY", apply)
        .replace("MORE", more);
    wat::parse_str(text).unwrap()
}

/// Stores the tag of its input.
const STORES: &str =
    "(call $put (i32.const 16) (i32.const 3) (i32.add (local.get 0) (i32.const 53)) (i32.const 1))";

#[test]
fn the_counter_in_c_passes_the_script_of_the_one_in_rust() {
    let counter = prebuilt("counter");
    let script = counter.parent().unwrap().join("../counter/behaviour.jsonl");
    let script = fs::read_to_string(script).unwrap();
    let mut hashes = Vec::new();
    for module in ["counter", "counter-c"] {
        let code = fs::read(prebuilt(module)).unwrap();
        let mut machine = Sim::code(&code).unwrap().into_machine();
        let report = run(&mut machine, &script).unwrap_or_else(|error| panic!("{module}: {error}"));
        assert!(report.calls >= 20, "{report:?}");
        hashes.push(machine.data());
    }
    assert_eq!(hashes[0], hashes[1], "they store the same bytes");
}

#[test]
fn the_counter_in_c_takes_over_the_state_of_the_one_in_rust() {
    let code = |module| fs::read(prebuilt(module)).unwrap();
    let mut machine = Sim::code(&code("counter")).unwrap().into_machine();
    run(
        &mut machine,
        r#"{"session":{"name":"a"}}
           {"command":{"by":"a","payload":{"json":{"add":40}},"expect":{"json":40}}}
           {"upgrade":{"file":"counter-c.wasm"}}
           {"command":{"by":"a","payload":{"json":{"add":2}},"expect":{"json":42}}}
           {"command":{"by":"a","payload":{"hex":"7b22616464223a2d317d"},"expect":{"error":{"code":1,"message":"malformed command"}}}}
           {"upgrade":{"file":"counter.wasm"}}
           {"query":{"payload":{"json":null},"expect":{"json":42}}}
           {"upgrade":{"file":"kv.wasm","fails":true}}
           {"query":{"payload":{"json":null},"expect":{"json":42}}}"#,
    )
    .unwrap();
}

#[test]
fn the_counter_in_c_is_the_counter_at_its_borders() {
    let mut both: Vec<Machine> = ["counter", "counter-c"]
        .map(|module| {
            Sim::code(&fs::read(prebuilt(module)).unwrap())
                .unwrap()
                .into_machine()
        })
        .into();
    let sessions: Vec<_> = both
        .iter_mut()
        .map(|machine| {
            machine
                .create_session(&Default::default(), None)
                .unwrap()
                .unwrap()
        })
        .collect();
    for command in [
        "{\"add\":18446744073709551615}",
        "{\"add\":1}",
        "\"reset\"",
        " { \"add\" : 7 } ",
        "\n\"reset\"\t",
        "{\"add\":007}",
        "{\"add\":-1}",
        "{\"add\":1.0}",
        "{\"add\":1e3}",
        "{\"add\":18446744073709551616}",
        "{\"add\":99999999999999999999999}",
        "{\"add\":}",
        "{\"add\":1",
        "{\"add\":1}}",
        "{\"add\":1,\"add\":2}",
        "{\"Add\":1}",
        "{}",
        "[]",
        "\"reset",
        "\"resets\"",
        "null",
        "5",
        "",
    ] {
        let outcomes: Vec<Result<Vec<u8>, ()>> = both
            .iter_mut()
            .zip(&sessions)
            .map(|(machine, session)| {
                let told = machine.command(*session, command.as_bytes()).unwrap();
                told.map_err(|failure| assert!(failure.code().is_some(), "{command}: {failure}"))
            })
            .collect();
        assert_eq!(outcomes[0], outcomes[1], "{command:?}");
        assert_eq!(both[0].data(), both[1].data(), "{command:?}");
    }
}

#[test]
fn a_migration_that_traps_leaves_every_key_as_it_was() {
    let mut sim = Sim::code(&wat("1", STORES, "")).unwrap();
    let session = sim.session(&[]);
    sim.call_bytes(session, b"").unwrap();
    let (state, keys) = (sim.state(), sim.machine().snapshot().unwrap().len());
    assert_eq!(state[&b"key"[..]], [1]);

    let migrates = |body: &str| {
        let export = format!(
            "(func (export \"quorate_migrate\") (param i32 i32) (result i64) {STORES} {body})"
        );
        wat("2,\\\"migrates-from\\\":[1]", STORES, &export)
    };
    for (body, text) in [
        ("unreachable", "the migration trapped: wasm-trap"),
        (
            "(loop br 0) unreachable",
            "the migration trapped: out-of-fuel",
        ),
        ("(i64.const -1)", "the migration trapped: bad-outcome"),
    ] {
        let failed = sim.upgrade_to_code::<()>(&migrates(body), b"").unwrap_err();
        assert!(failed.why.to_string().starts_with(text), "{failed}");
        sim = failed.sim;
        assert_eq!(sim.state(), state);
        assert_eq!(sim.machine().snapshot().unwrap().len(), keys);
    }
    let mut sim = sim
        .upgrade_to_code::<()>(&migrates("(call $success)"), b"")
        .unwrap();
    assert_eq!(sim.state()[&b"key"[..]], [8], "the tag of a migration");
    sim.call_bytes(session, b"").unwrap();
    assert_eq!(sim.state()[&b"key"[..]], [1]);
}

#[test]
fn what_no_node_would_take_is_refused_by_its_rule() {
    for (code, slug) in [
        (Vec::new(), "module-empty"),
        (b"(module)".to_vec(), "module-text"),
        (wat("0", "", ""), "module-manifest"),
        (wat::parse_str("(module (memory 1))").unwrap(), "module-abi"),
        (vec![0; 9 << 20], "module-too-large"),
    ] {
        match Sim::code(&code).unwrap_err() {
            StartError::NotActivated { slug: found, .. } => assert_eq!(found, slug),
            other => panic!("{other}"),
        }
    }
    let missing = Sim::wasm::<NoTypes>("/no/such/file").unwrap_err();
    assert!(matches!(missing, StartError::Read { .. }), "{missing}");
}

/// For where a module's types do not matter.
struct NoTypes;

impl quorate_guest::Module for NoTypes {
    const STATE_VERSION: u32 = 1;
    type Codec = quorate_guest::Json;
    type Command = ();
    type Response = ();
    type Query = ();
    type Answer = ();
    type Request = ();

    fn command(_: &mut quorate_guest::Context<Self>, (): ()) -> quorate_guest::Result<()> {
        Ok(())
    }

    fn query(_: &quorate_guest::ReadContext, (): ()) -> quorate_guest::Result<()> {
        Ok(())
    }
}

#[test]
#[should_panic(expected = "the write of key \"key\"")]
fn a_module_that_remembers_in_its_memory_is_found() {
    let remembers = "(global.set $calls (i64.add (global.get $calls) (i64.const 1)))
        (i64.store (i32.const 32) (global.get $calls))
        (call $put (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 8))";
    let mut sim = Sim::code(&wat("1", remembers, "")).unwrap();
    // Its hook for the session is the first call that would tell.
    sim.session(&[]);
}

#[test]
fn fuel_is_counted_and_a_loop_ends() {
    let code = wat(
        "1",
        "(if (i32.eq (local.get 1) (i32.const 63)) (then (loop (br 0))))",
        "",
    );
    let mut sim = Sim::builder()
        .limits(|limits| limits.module.fuel_per_command = 100_000)
        .code(&code)
        .unwrap();
    let session = sim.session(&[]);
    sim.call_bytes(session, b"").unwrap();
    let little = sim.fuel().latest;
    assert!((1..1000).contains(&little), "{little}");
    let failed = sim.call_bytes(session, b"x").unwrap_err();
    assert_eq!(failed.trap(), Some(Trap::OutOfFuel));
    assert_eq!(sim.fuel().most, 100_000);
    assert!(sim.fuel().total > 100_000);
}

/// Two builds that do not do the same: what `cargo xtask modules --check` is for.
#[test]
fn another_build_that_does_something_else_is_told_apart() {
    let other = STORES.replace("53", "52");
    let beside = Sim::builder().beside(wat("1", &other, ""));
    let mut machine = beside.code(&wat("1", STORES, "")).unwrap().into_machine();
    let error = run(&mut machine, r#"{"session":{"name":"a"}}"#).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("the hook for a created session: the write of key \"key\"\n   first: \"\\x02\"\n  second: \"\\x01\""),
        "{text}"
    );
}
