;; A module whose commands do what a module should not. A command is a letter and its argument.
;;
;; Input at 65536: the header of 62 bytes, then the letter at 65598, then the argument at 65599.
;; Outcomes are put together at 1024; 2048 and 4096 are scratch; 2 MiB on is zeros.
(module
  (import "quorate" "store_get" (func $get (param i32 i32 i32 i32) (result i64)))
  (import "quorate" "store_put" (func $put (param i32 i32 i32 i32)))
  (import "quorate" "store_delete" (func $delete (param i32 i32)))
  (import "quorate" "store_delete_range"
    (func $delete_range (param i32 i32 i32 i32 i32) (result i32)))
  (import "quorate" "store_scan"
    (func $scan (param i32 i32 i32 i32 i32 i32 i32 i32) (result i64)))
  (import "quorate" "emit" (func $emit (param i32 i32)))
  (import "quorate" "log" (func $log (param i32 i32 i32)))
  (import "quorate" "abort" (func $abort (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 64 1024)
  (table $table 1 1000000 funcref)
  ;; How many calls this instance has served: what an order that depends on history would show.
  (global $calls (mut i32) (i32.const 0))
  (data (i32.const 512) "\1b[31mred\0a\1b[2J")

  (func (export "quorate_abi_v1"))
  (func (export "quorate_alloc") (param i32) (result i32) (i32.const 65536))

  (func $argument (result i32) (i32.load (i32.const 65599)))

  ;; Success with the first bytes of this number.
  (func $number (param $value i64) (param $bytes i32) (result i64)
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i64.store (i32.const 1025) (local.get $value))
    (i64.or (i64.shl (i64.const 1024) (i64.const 32))
      (i64.extend_i32_u (i32.add (i32.const 1) (local.get $bytes)))))

  ;; a: adds 1 to the number under the key that the argument is.
  (func $add (param $length i32) (result i64)
    (if (i64.lt_s
          (call $get (i32.const 65599) (local.get $length) (i32.const 2048) (i32.const 8))
          (i64.const 0))
      (then (i64.store (i32.const 2048) (i64.const 0))))
    (i64.store (i32.const 2048) (i64.add (i64.load (i32.const 2048)) (i64.const 1)))
    (call $put (i32.const 65599) (local.get $length) (i32.const 2048) (i32.const 8))
    (call $number (i64.load (i32.const 2048)) (i32.const 8)))

  ;; r: recursion without an end.
  (func $down (param i64) (result i64)
    (i64.add (call $down (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))

  ;; m: all memory that there is; answers how many pages.
  (func $take_memory (result i64)
    (loop $again
      (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    (call $number (i64.extend_i32_u (memory.size)) (i32.const 4)))

  ;; T: the same with the table.
  (func $take_table (result i64)
    (loop $again
      (br_if $again (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
    (call $number (i64.extend_i32_u (table.size $table)) (i32.const 4)))

  ;; e: as many requests as the argument says to the session itself, each an effect of its own.
  (func $requests (result i64)
    (local $left i32)
    (local.set $left (call $argument))
    (i32.store8 (i32.const 4096) (i32.const 1))
    (i32.store (i32.const 4097) (i32.const 1))
    (memory.copy (i32.const 4101) (i32.const 65572) (i32.const 16))
    (loop $again
      (if (local.get $left)
        (then
          (call $emit (i32.const 4096) (i32.const 22))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $again))))
    (call $number (i64.const 0) (i32.const 0)))

  ;; E: one request to as many sessions as the argument says, none of which exists.
  (func $crowd (result i64)
    (local $left i32) (local $at i32)
    (drop (memory.grow (i32.const 300)))
    (local.set $left (call $argument))
    (local.set $at (i32.const 4194309))
    (i32.store8 (i32.const 4194304) (i32.const 1))
    (i32.store (i32.const 4194305) (local.get $left))
    (loop $again
      (if (local.get $left)
        (then
          (i32.store (local.get $at) (i32.mul (local.get $left) (i32.const 0x9e3779b1)))
          (i32.store offset=8 (local.get $at) (local.get $left))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $again))))
    (call $emit (i32.const 4194304) (i32.sub (local.get $at) (i32.const 4194304)))
    (call $number (i64.const 0) (i32.const 0)))

  ;; g: as many lines of 1 MiB of escape characters as the argument says.
  (func $chatter (result i64)
    (local $left i32)
    (local.set $left (call $argument))
    (memory.fill (i32.const 2097152) (i32.const 0x1b) (i32.const 1048576))
    (loop $again
      (if (local.get $left)
        (then
          (call $log (i32.const 1) (i32.const 2097152) (i32.const 1048576))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $again))))
    (call $number (i64.const 0) (i32.const 0)))

  ;; w: as many values of 1 MiB as the argument says.
  (func $write (result i64)
    (local $left i32)
    (local.set $left (call $argument))
    (loop $again
      (if (local.get $left)
        (then
          (i32.store (i32.const 2048) (local.get $left))
          (call $put (i32.const 2048) (i32.const 4) (i32.const 2097152) (i32.const 1048576))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $again))))
    (call $number (i64.const 0) (i32.const 0)))

  ;; s: hands the host what is not in memory. The argument is a number that says to which function and
  ;; for what, then the pointer, then the length.
  (func $stray (result i64)
    (local $what i32) (local $pointer i32) (local $length i32)
    (local.set $what (i32.load8_u (i32.const 65599)))
    (local.set $pointer (i32.load (i32.const 65600)))
    (local.set $length (i32.load (i32.const 65604)))
    (if (i32.eq (local.get $what) (i32.const 0))
      (then (drop (call $get
        (local.get $pointer) (local.get $length) (i32.const 2048) (i32.const 8)))))
    (if (i32.eq (local.get $what) (i32.const 1))
      (then (drop (call $get
        (i32.const 512) (i32.const 4) (local.get $pointer) (local.get $length)))))
    (if (i32.eq (local.get $what) (i32.const 2))
      (then (call $put
        (local.get $pointer) (local.get $length) (i32.const 2048) (i32.const 8))))
    (if (i32.eq (local.get $what) (i32.const 3))
      (then (call $put
        (i32.const 512) (i32.const 4) (local.get $pointer) (local.get $length))))
    (if (i32.eq (local.get $what) (i32.const 4))
      (then (call $delete (local.get $pointer) (local.get $length))))
    (if (i32.eq (local.get $what) (i32.const 5))
      (then (drop (call $delete_range
        (local.get $pointer) (local.get $length) (i32.const 0) (i32.const 0) (i32.const 9)))))
    (if (i32.eq (local.get $what) (i32.const 6))
      (then (drop (call $delete_range
        (i32.const 512) (i32.const 4) (local.get $pointer) (local.get $length) (i32.const 9)))))
    (if (i32.eq (local.get $what) (i32.const 7))
      (then (drop (call $scan
        (local.get $pointer) (local.get $length) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 9) (i32.const 4096) (i32.const 4096)))))
    (if (i32.eq (local.get $what) (i32.const 8))
      (then (drop (call $scan
        (i32.const 512) (i32.const 4) (local.get $pointer) (local.get $length)
        (i32.const 0) (i32.const 9) (i32.const 4096) (i32.const 4096)))))
    (if (i32.eq (local.get $what) (i32.const 9))
      (then (drop (call $scan
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 9) (local.get $pointer) (local.get $length)))))
    (if (i32.eq (local.get $what) (i32.const 10))
      (then (call $emit (local.get $pointer) (local.get $length))))
    (if (i32.eq (local.get $what) (i32.const 11))
      (then (call $log (i32.const 1) (local.get $pointer) (local.get $length))))
    (if (i32.eq (local.get $what) (i32.const 12))
      (then (call $abort
        (local.get $pointer) (local.get $length) (i32.const 512) (i32.const 4) (i32.const 7))))
    (if (i32.eq (local.get $what) (i32.const 13))
      (then (call $abort
        (i32.const 512) (i32.const 4) (local.get $pointer) (local.get $length) (i32.const 7))))
    (call $number (i64.const 0) (i32.const 0)))

  (func $is (param $letter i32) (result i32)
    (i32.eq (i32.load8_u (i32.const 65598)) (local.get $letter)))

  (func $command (param $length i32) (result i64)
    (if (call $is (i32.const 0x61)) (then (return (call $add (local.get $length)))))
    (if (call $is (i32.const 0x72)) (then (return (call $down (i64.const 0)))))
    (if (call $is (i32.const 0x6d)) (then (return (call $take_memory))))
    (if (call $is (i32.const 0x54)) (then (return (call $take_table))))
    (if (call $is (i32.const 0x65)) (then (return (call $requests))))
    (if (call $is (i32.const 0x45)) (then (return (call $crowd))))
    (if (call $is (i32.const 0x67)) (then (return (call $chatter))))
    (if (call $is (i32.const 0x77)) (then (return (call $write))))
    (if (call $is (i32.const 0x73)) (then (return (call $stray))))
    ;; p: the pair that the argument is.
    (if (call $is (i32.const 0x70)) (then (return (i64.load (i32.const 65599)))))
    ;; o: a response of 1 MiB and 1 byte.
    (if (call $is (i32.const 0x6f))
      (then (return (i64.const 0x0020000000100002))))
    ;; h: what this instance remembers; stored, so that it enters the state.
    (if (call $is (i32.const 0x68))
      (then
        (i32.store (i32.const 2048) (global.get $calls))
        (call $put (i32.const 65598) (i32.const 1) (i32.const 2048) (i32.const 4))
        (return (call $number (i64.extend_i32_u (global.get $calls)) (i32.const 4)))))
    ;; The others first write under the key that the argument is.
    (call $put (i32.const 65599) (local.get $length) (i32.const 65598) (i32.const 1))
    (if (call $is (i32.const 0x62))
      (then (call $abort (i32.const 512) (i32.const 13) (i32.const 512) (i32.const 13) (i32.const 7))))
    ;; l: for ever.
    (if (call $is (i32.const 0x6c)) (then (loop $again (br $again))))
    ;; t, and whatever has no meaning.
    unreachable)

  (func (export "quorate_apply") (param $pointer i32) (param $length i32) (result i64)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    ;; Other events than a command succeed.
    (if (i32.ne (i32.load8_u (i32.const 65589)) (i32.const 1))
      (then (return (call $number (i64.const 0) (i32.const 0)))))
    (call $command (i32.sub (local.get $length) (i32.const 63))))

  ;; The letter of a hook without an argument; 0: it succeeds.
  (global $unasked i32 (i32.const 0))

  ;; A hook does what the command does that its argument is, which begins and ends there. What succeeds
  ;; as a command is an error of the hook, with the answer's number as its code: nothing comes of it.
  (func $hook (param $begin i32) (param $end i32) (result i64)
    (local $length i32) (local $outcome i64)
    (local.set $length (i32.sub (local.get $end) (local.get $begin)))
    (if (i32.eqz (local.get $length))
      (then
        (if (i32.eqz (global.get $unasked))
          (then (return (call $number (i64.const 0) (i32.const 0)))))
        (i32.store8 (local.get $begin) (global.get $unasked))
        (local.set $length (i32.const 5))))
    (memory.copy (i32.const 65598) (local.get $begin) (local.get $length))
    (local.set $outcome (call $command (i32.sub (local.get $length) (i32.const 1))))
    ;; An outcome that is none, or is too long, stays what it is.
    (if (i32.or (call $is (i32.const 0x70)) (call $is (i32.const 0x6f)))
      (then (return (local.get $outcome))))
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i64.const 0x0000040000000005))

  ;; Only a later version's manifest says that there is something to migrate.
  (func (export "quorate_migrate") (param $pointer i32) (param $length i32) (result i64)
    (call $hook (i32.const 65606) (i32.add (i32.const 65536) (local.get $length))))

  (func (export "quorate_query") (param $pointer i32) (param $length i32) (result i64)
    (local $found i64)
    (if (call $is (i32.const 0x6c)) (then (loop $again (br $again))))
    (if (call $is (i32.const 0x77)) (then (return (call $write))))
    ;; The value's length, or -1.
    (local.set $found
      (call $get (i32.const 65599) (i32.sub (local.get $length) (i32.const 63))
        (i32.const 2048) (i32.const 8)))
    (call $number (local.get $found) (i32.const 8)))

  (@custom "quorate_manifest" "{\"name\":\"hostile\",\"version\":\"0.1.0\",\"abi\":1,\"state-version\":1,\"codec\":\"raw\"}"))
