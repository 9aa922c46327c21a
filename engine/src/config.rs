//! How wasmtime is configured: engine level 1.
//!
//! Results of guest code, its fuel and where its stack ends depend on what is set here, so nodes run
//! a log together only at one level. Everything that wasmtime would choose by its own defaults and
//! that a guest can notice is set explicitly.

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use crate::cost;

/// The engine level that this crate implements: configuration, cost tables and fixed limits.
pub const LEVEL: u32 = 1;

/// Native stack that guest code may use, in bytes.
pub const WASM_STACK_BYTES: usize = 2 << 20;
/// Native stack that a call needs in all: the guest's, and the host's functions below it.
pub const CALL_STACK_BYTES: usize = WASM_STACK_BYTES + (1 << 20);
/// Stack that threads which call modules should have, in bytes: enough for a call and all that is
/// above it. A call on a thread with less runs on a thread made for it.
pub const THREAD_STACK_BYTES: usize = 16 << 20;
/// Largest guest memory that any setting of a cluster can allow, in bytes.
pub const MEMORY_BYTES_CEILING: u64 = 1 << 30;
/// Most elements of a module's table.
pub const TABLE_ELEMENTS_MAX: u32 = 20_000;
/// Most instances alive at once for operations, in one engine.
pub const INSTANCES_MAX: u32 = 64;

/// Metadata of an instance, in bytes: enough for a module at every limit of admission.
const INSTANCE_BYTES_MAX: usize = 2 << 20;
/// Memory that a slot keeps for its next instance instead of returning it to the system.
const KEEP_RESIDENT_BYTES: usize = 4 << 20;
/// Frames of a backtrace for the operator.
const BACKTRACE_FRAMES: usize = 32;

/// For operations of the log: deterministic, bounded by fuel.
pub(crate) fn operations() -> Config {
    let mut config = common(INSTANCES_MAX);
    config.consume_fuel(true).operator_cost(cost::operators());
    config
}

/// For queries: bounded by wall-clock time, in ticks of an epoch that the host advances.
pub(crate) fn queries(instances_max: u32) -> Config {
    let mut config = common(instances_max);
    config.consume_fuel(false).epoch_interruption(true);
    config
}

fn common(instances_max: u32) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .memory_may_move(false)
        .memory_init_cow(true)
        .parallel_compilation(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES))
        // Otherwise an environment variable decides.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances_max)));
    proposals(&mut config);
    config
}

/// On is what rustc and clang emit by default for `wasm32-unknown-unknown`; off is what is not
/// deterministic, not needed, or not yet stable.
///
/// Threads, GC types and exceptions are not compiled in and have no switch. Neither have reference
/// types, which are on, and function references, which admission refuses.
fn proposals(config: &mut Config) {
    config
        .wasm_multi_value(true)
        .wasm_bulk_memory(true)
        .wasm_simd(false)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_extended_const(false)
        .wasm_gc(false)
        .wasm_stack_switching(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .wasm_shared_everything_threads(false);
}

fn pool(instances_max: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances_max)
        .total_memories(instances_max)
        .total_tables(instances_max)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .max_memory_size(MEMORY_BYTES_CEILING as usize)
        .table_elements(TABLE_ELEMENTS_MAX as usize)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        // Where the kernel has it (Linux 6.7): resets only the pages that were touched.
        .pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What wasmtime says of a configuration. Results depend on it: a change here is a new level.
    #[test]
    fn facts_of_level_1_are_pinned() {
        for (config, has_fuel) in [(operations(), true), (queries(1), false)] {
            let facts = format!("{config:?}");
            let proposals: Vec<&str> = facts
                .split(", ")
                .filter_map(|fact| {
                    let fact = fact.strip_prefix("Config { ").unwrap_or(fact);
                    fact.strip_prefix("wasm_")?.strip_suffix(": true")
                })
                .collect();
            assert_eq!(
                proposals,
                [
                    "mutable_global",
                    "saturating_float_to_int",
                    "sign_extension",
                    "reference_types",
                    "multi_value",
                    "bulk_memory",
                    "floats",
                    "function_references",
                    "call_indirect_overlong",
                    "bulk_memory_opt",
                ]
            );
            for fact in [
                String::from("strategy: Some(Cranelift)"),
                r#""enable_nan_canonicalization": ("true""#.into(),
                r#""opt_level": ("speed""#.into(),
                format!("consume_fuel: {has_fuel}"),
                "relaxed_simd_deterministic: true".into(),
                "memory_may_move: false".into(),
            ] {
                assert!(facts.contains(&fact), "{fact}");
            }
        }
    }

    /// Besides what admission refuses, by a parser of its own.
    #[test]
    fn engines_refuse_every_proposal_that_is_off() {
        for config in [operations(), queries(1)] {
            let engine = wasmtime::Engine::new(&config).expect("a valid configuration");
            for (proposal, wat) in [
                ("SIMD", "(module (func (drop (v128.const i64x2 0 0))))"),
                ("threads", "(module (memory 1 1 shared))"),
                ("64-bit memory", "(module (memory i64 1 1))"),
                ("multiple memories", "(module (memory 1 1) (memory 1 1))"),
                ("tail calls", "(module (func $f (return_call $f)))"),
                (
                    "extended constant expressions",
                    "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
                ),
                ("external references", "(module (func (param externref)))"),
                ("garbage collection", "(module (type (struct)))"),
                ("exceptions", "(module (tag $e) (func (throw $e)))"),
                (
                    "wide arithmetic",
                    "(module (func (result i64 i64)
                         (i64.mul_wide_u (i64.const 1) (i64.const 2))))",
                ),
                ("custom page sizes", "(module (memory 1 1 (pagesize 1)))"),
            ] {
                let code = wat::parse_str(wat).expect("valid text");
                assert!(
                    wasmtime::Module::validate(&engine, &code).is_err(),
                    "{proposal}"
                );
            }
        }
    }
}
