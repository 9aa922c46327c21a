;; Calls the import that its input names, with the input's parameters, so that a test decides every
;; pointer and length.
;;
;; Input, at 1024: operation u32, eight parameters of 4 bytes, count of bytes to return u32, data (at 1064).
;; Outcome, at 16384: 0, the import's result as i64, and as many bytes as asked for from 16393 on.
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
  (memory (export "memory") 1 64)
  (func (export "quorate_abi_v1"))
  (func (export "quorate_alloc") (param i32) (result i32) (i32.const 1024))

  (func $arg (param $index i32) (result i32)
    (i32.load (i32.add (i32.const 1028) (i32.shl (local.get $index) (i32.const 2)))))

  (func $dispatch (result i64)
    (block $abort (block $log (block $emit (block $scan (block $delete_range
      (block $delete (block $put (block $get
        (br_table $get $put $delete $delete_range $scan $emit $log $abort
          (i32.load (i32.const 1024))))
      (return (call $get (call $arg (i32.const 0)) (call $arg (i32.const 1))
        (call $arg (i32.const 2)) (call $arg (i32.const 3)))))
      (call $put (call $arg (i32.const 0)) (call $arg (i32.const 1))
        (call $arg (i32.const 2)) (call $arg (i32.const 3)))
      (return (i64.const 0)))
      (call $delete (call $arg (i32.const 0)) (call $arg (i32.const 1)))
      (return (i64.const 0)))
      (return (i64.extend_i32_s (call $delete_range
        (call $arg (i32.const 0)) (call $arg (i32.const 1)) (call $arg (i32.const 2))
        (call $arg (i32.const 3)) (call $arg (i32.const 4))))))
      (return (call $scan (call $arg (i32.const 0)) (call $arg (i32.const 1))
        (call $arg (i32.const 2)) (call $arg (i32.const 3)) (call $arg (i32.const 4))
        (call $arg (i32.const 5)) (call $arg (i32.const 6)) (call $arg (i32.const 7)))))
      (call $emit (call $arg (i32.const 0)) (call $arg (i32.const 1)))
      (return (i64.const 0)))
      (call $log (call $arg (i32.const 0)) (call $arg (i32.const 1)) (call $arg (i32.const 2)))
      (return (i64.const 0)))
    (call $abort (call $arg (i32.const 0)) (call $arg (i32.const 1)) (call $arg (i32.const 2))
      (call $arg (i32.const 3)) (call $arg (i32.const 4)))
    (i64.const 0))

  (func $run (param i32 i32) (result i64)
    (i64.store (i32.const 16385) (call $dispatch))
    (i32.store8 (i32.const 16384) (i32.const 0))
    (i64.or (i64.shl (i64.const 16384) (i64.const 32))
      (i64.extend_i32_u (i32.add (i32.const 9) (i32.load (i32.const 1060))))))
  (export "quorate_apply" (func $run))
  (export "quorate_query" (func $run))
  (@custom "quorate_manifest" "{\"name\":\"probe\",\"version\":\"0.1.0\",\"abi\":1,\"state-version\":1,\"codec\":\"raw\"}"))
