//! The comparison finds what differs, and the shipped modules' scripts run.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use crate::behaviour::compare;

const MODULES: [&str; 3] = ["counter", "kv", "work-queue"];

fn shipped(module: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../modules/prebuilt");
    fs::read(format!("{folder}/{module}.wasm")).unwrap()
}

fn script(module: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../modules");
    fs::read_to_string(format!("{folder}/{module}/behaviour.jsonl")).unwrap()
}

const SCRIPT: &str = r#"
# A module without JSON.
{"session":{"name":"a"}}
{"command":{"by":"a","payload":{"hex":"00ff"}}}
"#;

/// Writes `value` under `k`, cancels `timer`, answers `response`, whatever it is called for.
fn module(value: char, timer: char, response: &str) -> Vec<u8> {
    let pair = 48_u64 << 32 | (response.len() as u64 + 1);
    let manifest = r#"{"name":"test","version":"0.1.0","abi":1,"state-version":1,"codec":"raw"}"#;
    let manifest = manifest.replace('"', "\\\"");
    let wat = format!(
        "(module
           (import \"quorate\" \"store_put\" (func $put (param i32 i32 i32 i32)))
           (import \"quorate\" \"emit\" (func $emit (param i32 i32)))
           (memory (export \"memory\") 1 1024)
           (func (export \"quorate_abi_v1\"))
           (func (export \"quorate_alloc\") (param i32) (result i32) (i32.const 4096))
           (func $run (export \"quorate_apply\") (param i32 i32) (result i64)
             (call $put (i32.const 16) (i32.const 1) (i32.const 17) (i32.const 1))
             (call $emit (i32.const 32) (i32.const 2))
             (i64.const {pair}))
           (export \"quorate_init\" (func $run))
           (data (i32.const 16) \"k{value}\")
           (data (i32.const 32) \"\\03{timer}\")
           (data (i32.const 48) \"\\00{response}\")
           (@custom \"quorate_manifest\" \"{manifest}\"))"
    );
    wat::parse_str(wat).unwrap()
}

#[track_caller]
fn difference(new: &[u8]) -> String {
    let old = module('v', 't', "ok");
    let error = compare(SCRIPT, &old, new).unwrap_err();
    format!("{error:#}")
}

#[test]
fn equal_builds_are_equal_in_every_call() {
    let build = module('v', 't', "ok");
    // Installation, session, command, and the attempt to show its response.
    assert_eq!(compare(SCRIPT, &build, &build).unwrap(), 4);
}

#[test]
fn another_write_effect_or_response_is_found() {
    for (new, shown) in [
        (module('w', 't', "ok"), r#"write "k" Some("w")"#),
        (module('v', 'u', "ok"), "CancelTimer"),
        (module('v', 't', "no"), r#"success "no""#),
    ] {
        let difference = difference(&new);
        assert!(difference.contains("the builds differ"), "{difference}");
        assert!(difference.contains(shown), "{difference}");
    }
}

#[test]
fn a_step_that_ends_otherwise_than_the_script_says_is_found() {
    let build = module('v', 't', "ok");
    let script = r#"{"session":{"name":"a","fails":true}}"#;
    let error = compare(script, &build, &build).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with("line 1: "), "{error}");
    assert!(error.contains("not in ApplicationError"), "{error}");
    for script in [
        "{}",
        r#"{"command":{"by":"nobody","payload":{"hex":"00"}}}"#,
    ] {
        assert!(compare(script, &build, &build).is_err(), "{script}");
    }
}

/// Without building anything: the scripts fit the modules that ship, and two different modules are told apart.
#[test]
fn shipped_modules_pass_their_own_scripts() {
    for module in MODULES {
        let code = shipped(module);
        let calls = compare(&script(module), &code, &code).unwrap();
        assert!(calls >= 20, "{module}: {calls} calls");
    }
    let (counter, kv) = (shipped("counter"), shipped("kv"));
    assert!(compare(&script("counter"), &counter, &kv).is_err());
}

/// 32 jobs of the largest size, all in one hand: they go there in one operation, and on to another in one.
#[test]
fn the_largest_hand_out_of_the_work_queue_is_within_an_operations_limits() {
    let payload = "\\u0000".repeat(((256 << 10) - 2) / 6);
    let submit = format!(
        "{{\"command\":{{\"by\":\"client\",\"payload\":{{\"json\":{{\"submit\":\
         {{\"capability\":\"a\",\"version\":\"b\",\"payload\":\"{payload}\"}}}}}}}}}}\n"
    );
    let worker = |name| {
        format!(
            "{{\"session\":{{\"name\":\"{name}\",\"capabilities\":\
             {{\"a\":\"b\",\"work-slots\":\"32\"}}}}}}\n"
        )
    };
    let script = format!(
        "{{\"session\":{{\"name\":\"client\"}}}}\n{}{}{}{{\"end\":{{\"name\":\"first\",\"reason\":1}}}}\n\
         {{\"query\":{{\"payload\":{{\"json\":\"totals\"}}}}}}\n",
        submit.repeat(32),
        worker("first"),
        worker("second"),
    );
    let code = shipped("work-queue");
    compare(&script, &code, &code).unwrap();
}
