//! A module that migrates in steps, as text of wasm.
//!
//! A command `gK` answers the value of the one-byte key K, `pKvalue` sets it, `t` and a time sets a
//! timer. A query names a key. An event other than a command is noted under its session's id: its tag.
//! Step n of the migration sets the key of that number (from 0x80 on) to what it was called with: the
//! number, and the cursor, or a sign that there was none. The way down to the version before takes as
//! many steps, which do the same with another cursor and sign.

/// What to make of the text.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    pub version: u32,
    /// How many steps the migration from the version before takes.
    pub steps: u32,
    /// The step that traps.
    pub traps_at: Option<u32>,
}

/// First key that a migration sets.
pub const FIRST: u8 = 0x80;
/// What the first step and the others note on the way up.
pub const UP: [u8; 2] = *b"-c";
/// And on the way down.
pub const DOWN: [u8; 2] = *b"=d";

/// The module's bytes.
pub fn module(made: Steps) -> Vec<u8> {
    let Steps {
        version,
        steps,
        traps_at,
    } = made;
    let other = match version {
        1 => String::new(),
        _ => (version - 1).to_string(),
    };
    let manifest = format!(
        "{{\"name\":\"steps\",\"version\":\"{version}.0.{steps}\",\"abi\":1,\
         \"state-version\":{version},\"migrates-from\":[{other}],\
         \"migrates-down-to\":[{other}],\"codec\":\"raw\"}}"
    );
    let manifest = manifest.replace('"', "\\\"");
    let traps_at = traps_at.map_or(-1, |step| i64::from(step) as i32);
    let text = format!(
        r#"(module
  (import "quorate" "store_get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "quorate" "store_put" (func $put (param i32 i32 i32 i32)))
  (import "quorate" "emit" (func $emit (param i32 i32)))
  (memory (export "memory") 8 8)
  (global $top (mut i32) (i32.const 4096))
  (func (export "quorate_abi_v1"))
  (func (export "quorate_alloc") (param $length i32) (result i32)
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get $length))))
  ;; An outcome that succeeds, with so many bytes behind address 1025.
  (func $done (param $length i64) (result i64)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i64.or (i64.const 0x40000000000) (i64.add (local.get $length) (i64.const 1))))
  (func $found (param $key i32) (result i64)
    (local $length i64)
    (local.set $length
      (call $get (local.get $key) (i32.const 1) (i32.const 1025) (i32.const 1024)))
    (if (i64.lt_s (local.get $length) (i64.const 0)) (then (local.set $length (i64.const 0))))
    (call $done (local.get $length)))
  (func $timer (param $input i32) (result i64)
    (i32.store8 (i32.const 512) (i32.const 2))
    (i64.store (i32.const 513) (i64.load offset=63 (local.get $input)))
    (i32.store (i32.const 521) (i32.const 1))
    (i32.store8 (i32.const 525) (i32.const 116))
    (call $emit (i32.const 512) (i32.const 14))
    (call $done (i64.const 0)))
  (func (export "quorate_apply") (param $input i32) (param $length i32) (result i64)
    (local $what i32)
    (if (i32.ne (i32.load8_u offset=53 (local.get $input)) (i32.const 1))
      (then
        (call $put (i32.add (local.get $input) (i32.const 36)) (i32.const 16)
          (i32.add (local.get $input) (i32.const 53)) (i32.const 1))
        (return (call $done (i64.const 0)))))
    (local.set $what (i32.load8_u offset=62 (local.get $input)))
    (if (i32.eq (local.get $what) (i32.const 103))
      (then (return (call $found (i32.add (local.get $input) (i32.const 63))))))
    (if (i32.eq (local.get $what) (i32.const 116)) (then (return (call $timer (local.get $input)))))
    (call $put (i32.add (local.get $input) (i32.const 63)) (i32.const 1)
      (i32.add (local.get $input) (i32.const 64)) (i32.sub (local.get $length) (i32.const 64)))
    (call $done (i64.const 0)))
  (func (export "quorate_query") (param $input i32) (param $length i32) (result i64)
    (call $found (i32.add (local.get $input) (i32.const 62))))
  (func $step (param $input i32) (param $none i32) (param $cursor i32) (result i64)
    (local $number i32)
    (i32.store8 (i32.const 1101) (local.get $none))
    (if (i32.eq (i32.load8_u offset=53 (local.get $input)) (i32.const 9))
      (then
        (local.set $number (i32.load offset=70 (local.get $input)))
        (i32.store8 (i32.const 1101) (i32.load8_u offset=78 (local.get $input)))))
    (if (i32.eq (local.get $number) (i32.const {traps_at})) (then unreachable))
    (i32.store8 (i32.const 1100) (local.get $number))
    (i32.store8 (i32.const 1099) (i32.add (local.get $number) (i32.const {FIRST})))
    (call $put (i32.const 1099) (i32.const 1) (i32.const 1100) (i32.const 2))
    (if (i32.eq (local.get $number) (i32.const {last}))
      (then (return (call $done (i64.const 0)))))
    ;; More, with the cursor.
    (i32.store8 (i32.const 1024) (i32.const 2))
    (i32.store8 (i32.const 1025) (local.get $cursor))
    (i64.const 0x40000000002))
  (func (export "quorate_migrate") (param $input i32) (param $length i32) (result i64)
    (call $step (local.get $input) (i32.const {up_none}) (i32.const {up_cursor})))
  (func (export "quorate_migrate_down") (param $input i32) (param $length i32) (result i64)
    (call $step (local.get $input) (i32.const {down_none}) (i32.const {down_cursor})))
  (@custom "quorate_manifest" "{manifest}"))"#,
        last = steps.saturating_sub(1),
        up_none = UP[0],
        up_cursor = UP[1],
        down_none = DOWN[0],
        down_cursor = DOWN[1],
    );
    wat::parse_str(text).unwrap()
}
