;; Keeps records of a fixed size, in two versions of the state. What is in capitals and braces is filled in.
;;
;; A command is the bytes of records, a key and a value each, which are put. A migration goes over
;; all keys that begin with the letter a, in their order, and either changes the first byte of each
;; value, or deletes the key and puts the value under one that begins with b. Its argument is how many
;; keys one call may rewrite, u32; a call that has come so far wants another one, and its cursor is
;; the last key.
;;
;; Input at 65536: the header of 62 bytes, then the tag's fields. The first key of a scan is put
;; together at 1024, its end is at 1536, outcomes are put together at 2048. Scans write to 2097152.
(module
  (import "quorate" "store_put" (func $put (param i32 i32 i32 i32)))
  (import "quorate" "store_delete" (func $delete (param i32 i32)))
  (import "quorate" "store_scan"
    (func $scan (param i32 i32 i32 i32 i32 i32 i32 i32) (result i64)))
  (memory (export "memory") 64 64)
  (data (i32.const 1024) "a")
  (data (i32.const 1536) "b")
  (@custom "quorate_manifest" "{MANIFEST}")

  (func (export "quorate_abi_v1"))
  (func (export "quorate_alloc") (param i32) (result i32) (i32.const 65536))

  ;; An outcome of this first byte, with so many bytes after it.
  (func $outcome (param $first i32) (param $length i64) (result i64)
    (i32.store8 (i32.const 2048) (local.get $first))
    (i64.or (i64.shl (i64.const 2048) (i64.const 32))
      (i64.add (local.get $length) (i64.const 1))))

  (func (export "quorate_apply") (param $input i32) (param $length i32) (result i64)
    (local $at i32) (local $end i32)
    (local.set $at (i32.add (local.get $input) (i32.const 62)))
    (local.set $end (i32.add (local.get $input) (local.get $length)))
    ;; An event other than a command is none of its business.
    (if (i32.eq (i32.load8_u offset=53 (local.get $input)) (i32.const 1))
      (then
        (loop $next
          (if (i32.lt_u (local.get $at) (local.get $end))
            (then
              (call $put (local.get $at) (i32.const {KEY})
                (i32.add (local.get $at) (i32.const {KEY})) (i32.const {VALUE}))
              (local.set $at (i32.add (local.get $at) (i32.const {RECORD})))
              (br $next))))))
    (call $outcome (i32.const 0) (i64.const 0)))

  ;; Rewrites one record as a scan wrote it: two lengths of 4 bytes, key, value.
  (func $rewrite (param $at i32)
    (local $key i32) (local $value i32)
    (local.set $key (i32.add (local.get $at) (i32.const 8)))
    (local.set $value (i32.add (local.get $key) (i32.const {KEY})))
    {REWRITE}
    (call $put (local.get $key) (i32.const {KEY}) (local.get $value) (i32.const {VALUE})))

  ;; The first key of the next scan is the smallest one above the last key, which is at $key.
  (func $after (param $key i32)
    (memory.copy (i32.const 1024) (local.get $key) (i32.const {KEY}))
    (i32.store8 (i32.const {AFTER}) (i32.const 0)))

  (func (export "quorate_migrate") (param $input i32) (param $length i32) (result i64)
    (local $start i32) (local $left i32) (local $entries i32) (local $at i32)
    ;; The argument comes last, whether or not there is a cursor before it.
    (local.set $left (i32.load
      (i32.sub (i32.add (local.get $input) (local.get $length)) (i32.const 4))))
    (local.set $start (i32.const 1))
    (if (i32.eq (i32.load8_u offset=53 (local.get $input)) (i32.const 9))
      (then
        (call $after (i32.add (local.get $input) (i32.const 78)))
        (local.set $start (i32.const {KEY_AND_ZERO}))))
    (loop $again
      (local.set $entries (i32.wrap_i64
        (call $scan (i32.const 1024) (local.get $start) (i32.const 1536) (i32.const 1)
          (i32.const 0) (local.get $left) (i32.const 2097152) (i32.const 2097152))))
      (if (i32.eqz (local.get $entries))
        (then (return (call $outcome (i32.const 0) (i64.const 0)))))
      (local.set $left (i32.sub (local.get $left) (local.get $entries)))
      (local.set $at (i32.const 2097152))
      (loop $next
        (local.set $entries (i32.sub (local.get $entries) (i32.const 1)))
        (if (i32.eqz (local.get $entries))
          (then (call $after (i32.add (local.get $at) (i32.const 8)))))
        (call $rewrite (local.get $at))
        (local.set $at (i32.add (local.get $at) (i32.const {SCANNED})))
        (br_if $next (local.get $entries)))
      (local.set $start (i32.const {KEY_AND_ZERO}))
      (br_if $again (local.get $left)))
    (memory.copy (i32.const 2049) (i32.const 1024) (i32.const {KEY}))
    (call $outcome (i32.const 2) (i64.const {KEY}))))
