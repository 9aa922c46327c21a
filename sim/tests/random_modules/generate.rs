//! Random modules: of ten, one is anything at all; three have the ABI's imports and exports, with random functions
//! behind them; the others besides have an allocator and an outcome that are right, so that what random code does comes to
//! the state.

use arbitrary::Unstructured;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use wasm_encoder::{
    BlockType, CodeSection, CustomSection, Encode, ExportKind, ExportSection, Function,
    FunctionSection, Instruction, MemArg, RawSection, TypeSection, ValType,
};
use wasmparser::{Parser, Payload};

/// What a generator may take from.
const ENTROPY_BYTES: usize = 4096;
const MANIFEST: &[u8] =
    br#"{"name":"random","version":"0.1.0","abi":1,"state-version":1,"codec":"raw"}"#;

/// Every import of the ABI, in an order that the wrapper relies on, and the exports. `INIT` may be one more.
const SHAPE: &str = r#"(module
  (import "quorate" "store_put" (func (param i32 i32 i32 i32)))
  (import "quorate" "store_get" (func (param i32 i32 i32 i32) (result i64)))
  (import "quorate" "store_delete" (func (param i32 i32)))
  (import "quorate" "store_delete_range" (func (param i32 i32 i32 i32 i32) (result i32)))
  (import "quorate" "store_scan" (func (param i32 i32 i32 i32 i32 i32 i32 i32) (result i64)))
  (import "quorate" "emit" (func (param i32 i32)))
  (import "quorate" "log" (func (param i32 i32 i32)))
  (import "quorate" "abort" (func (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 2 16)
  (func (export "quorate_abi_v1"))
  (func (export "quorate_query") (param i32 i32) (result i64) unreachable)
  INIT
  APPLY)"#;

/// The index of `store_put`.
const STORE_PUT: u32 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Anything,
    Shaped,
    Wrapped,
}

/// The module of `seed`.
pub(crate) fn module(seed: u64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut entropy = vec![0; ENTROPY_BYTES];
    random.fill_bytes(&mut entropy);
    let kind = match seed % 10 {
        0 => Kind::Anything,
        1..=3 => Kind::Shaped,
        _ => Kind::Wrapped,
    };
    let mut input = Unstructured::new(&entropy);
    let generated = wasm_smith::Module::new(config(kind, seed), &mut input)
        .expect("there is enough to take from")
        .to_bytes();
    let generated = match kind {
        Kind::Wrapped => wrapped(&generated),
        _ => generated,
    };
    with_manifest(generated)
}

fn config(kind: Kind, seed: u64) -> wasm_smith::Config {
    if kind == Kind::Anything {
        return wasm_smith::Config::default();
    }
    let apply = match kind {
        Kind::Wrapped => r#"(func (export "body") (param i32 i32) (result i64) unreachable)"#,
        _ => {
            r#"(func (export "quorate_alloc") (param i32) (result i32) unreachable)
               (func (export "quorate_apply") (param i32 i32) (result i64) unreachable)"#
        }
    };
    let init = match seed % 5 {
        0 => r#"(func (export "quorate_init") (param i32 i32) (result i64) unreachable)"#,
        _ => "",
    };
    let shape = SHAPE.replace("INIT", init).replace("APPLY", apply);
    wasm_smith::Config {
        module_shape: Some(wat::parse_str(shape).unwrap()),
        allow_start_export: false,
        exceptions_enabled: false,
        gc_enabled: false,
        compact_imports_enabled: false,
        extended_const_enabled: false,
        memory64_enabled: false,
        // Now and then a proposal that admission must refuse.
        simd_enabled: seed % 16 == 5,
        relaxed_simd_enabled: false,
        tail_call_enabled: seed % 16 == 6,
        // With them come external references, which are refused.
        reference_types_enabled: seed % 16 == 7,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        max_data_segments: usize::from(seed % 4 == 1) * 4,
        max_element_segments: 2,
        max_table_elements: 1000,
        // Otherwise most random code soon traps; and segments always lie inside.
        disallow_traps: seed % 4 != 1,
        max_funcs: 24,
        max_instructions: 200,
        ..wasm_smith::Config::default()
    }
}

/// The module with an allocator, and an `apply` that calls the random one, stores what it returned and left in memory,
/// and succeeds.
fn wrapped(module: &[u8]) -> Vec<u8> {
    let mut out = wasm_encoder::Module::new();
    let (mut types, mut functions, mut body) = (0, 0, None);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.expect("the generator's modules are valid");
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        let section = &module[range.start as usize..range.end as usize];
        let data = match &payload {
            Payload::TypeSection(reader) => {
                types = reader.count();
                let mut added = TypeSection::new();
                added.ty().function([ValType::I32], [ValType::I32]);
                added
                    .ty()
                    .function([ValType::I32, ValType::I32], [ValType::I64]);
                with_two_more(section, types, &added)
            }
            Payload::ImportSection(reader) => {
                functions = reader.count();
                section.to_vec()
            }
            Payload::FunctionSection(reader) => {
                functions += reader.count();
                let mut added = FunctionSection::new();
                added.function(types).function(types + 1);
                with_two_more(section, reader.count(), &added)
            }
            Payload::ExportSection(reader) => {
                let mut exports = reader.clone().into_iter().map(Result::unwrap);
                body = exports.find(|export| export.name == "body");
                let mut added = ExportSection::new();
                added.export("quorate_alloc", ExportKind::Func, functions);
                added.export("quorate_apply", ExportKind::Func, functions + 1);
                with_two_more(section, reader.count(), &added)
            }
            Payload::CodeSectionStart { count, .. } => {
                let body = body.expect("the shape has it").index;
                let mut added = CodeSection::new();
                added.function(&allocator()).function(&apply(body));
                with_two_more(section, *count, &added)
            }
            _ => section.to_vec(),
        };
        out.section(&RawSection { id, data: &data });
    }
    out.finish()
}

/// A section with the entries that it had, and the two of `added`.
fn with_two_more(section: &[u8], count: u32, added: &impl Encode) -> Vec<u8> {
    let mut data = Vec::new();
    (count + 2).encode(&mut data);
    data.extend_from_slice(entries(section));
    let mut bytes = Vec::new();
    added.encode(&mut bytes);
    // Behind the section's length is its count.
    data.extend_from_slice(entries(entries(&bytes)));
    data
}

/// What follows a number.
fn entries(section: &[u8]) -> &[u8] {
    let number = section.iter().position(|byte| byte & 0x80 == 0);
    &section[number.expect("a section begins with a number") + 1..]
}

/// Behind everything that `apply` uses.
const INPUT_AT: i32 = 16_384;
/// Where the random function's result is kept.
const RESULT_AT: i32 = 4_096;
/// The outcome: a zero, and 8 bytes of whatever is there.
const OUTCOME_AT: i32 = 8_192;
/// What is stored of the memory.
const STORED_BYTES: i32 = 2_048;

fn allocator() -> Function {
    let mut function = Function::new([]);
    function
        .instruction(&Instruction::I32Const(INPUT_AT))
        .instruction(&Instruction::End);
    function
}

fn apply(body: u32) -> Function {
    let at = |align| MemArg {
        offset: 0,
        align,
        target: Default::default(),
        ordering: None,
    };
    let tag = MemArg {
        offset: 53,
        ..at(0)
    };
    let mut function = Function::new([]);
    for instruction in [
        // Hooks succeed, so that sessions come to their commands.
        Instruction::I32Const(OUTCOME_AT),
        Instruction::I32Const(0),
        Instruction::I32Store8(at(0)),
        Instruction::LocalGet(0),
        Instruction::I32Load8U(tag),
        Instruction::I32Const(1),
        Instruction::I32Ne,
        Instruction::If(BlockType::Empty),
        Instruction::I64Const(i64::from(OUTCOME_AT) << 32 | 1),
        Instruction::Return,
        Instruction::End,
        Instruction::I32Const(RESULT_AT),
        Instruction::LocalGet(0),
        Instruction::LocalGet(1),
        Instruction::Call(body),
        Instruction::I64Store(at(3)),
        // Under the first byte of the result: the beginning of the memory, and the result again.
        Instruction::I32Const(RESULT_AT),
        Instruction::I32Const(1),
        Instruction::I32Const(0),
        Instruction::I32Const(STORED_BYTES),
        Instruction::Call(STORE_PUT),
        Instruction::I32Const(RESULT_AT + 1),
        Instruction::I32Const(2),
        Instruction::I32Const(RESULT_AT),
        Instruction::I32Const(8),
        Instruction::Call(STORE_PUT),
        Instruction::I32Const(OUTCOME_AT),
        Instruction::I32Const(0),
        Instruction::I32Store8(at(0)),
        Instruction::I64Const(i64::from(OUTCOME_AT) << 32 | 9),
        Instruction::End,
    ] {
        function.instruction(&instruction);
    }
    function
}

fn with_manifest(mut module: Vec<u8>) -> Vec<u8> {
    let section = CustomSection {
        name: "quorate_manifest".into(),
        data: MANIFEST.into(),
    };
    module.push(0);
    section.encode(&mut module);
    module
}
