//! The rules of admission.

use quorate_core::module::{Manifest, ModuleLimits, Rejected};
use wasmparser::{ExternalKind, FuncType, TypeRef, ValType};

use super::reject;
use super::shape::{Place, Segment, Shape, holds_functions, is_mutable_i32};
use crate::config::{MEMORY_BYTES_CEILING, TABLE_ELEMENTS_MAX};
use crate::imports::{NAMESPACE, Returns, SIGNATURES};
use crate::program::EXPORTS;

/// Most functions, imported ones counted.
pub const FUNCTIONS_MAX: usize = 20_000;
/// Most function types.
pub const TYPES_MAX: usize = 10_000;
/// Most parameters, and most results, of a function or block.
pub const PARAMETERS_MAX: usize = 128;
/// Largest body of one function, in bytes: compiling takes more than linear time in it.
pub const BODY_BYTES_MAX: usize = 512 << 10;
/// Most locals of one function.
pub const LOCALS_MAX: u32 = 8_192;
/// Most targets of one `br_table`.
pub const BRANCH_TARGETS_MAX: u32 = 8_192;
/// Most locals, parameters counted, times blocks, loops and ifs of one function: where control flow
/// meets the compiler may have to join every local, and so much takes it seconds and 150 MB.
pub const JOINS_MAX: usize = 64 << 10;
/// The same, of all functions together.
pub const JOINS_TOTAL_MAX: usize = 2 << 20;
/// Most globals.
pub const GLOBALS_MAX: usize = 10_000;
/// Most exports.
pub const EXPORTS_MAX: usize = 10_000;
/// Most segments of data.
pub const DATA_SEGMENTS_MAX: usize = 10_000;
/// Most segments of elements.
pub const ELEMENT_SEGMENTS_MAX: usize = 10_000;
/// Largest shadow stack, in bytes.
pub const SHADOW_STACK_BYTES_MAX: u32 = 256 << 10;

const PAGE_BYTES: u64 = 64 << 10;
const ABI_EXPORT: &str = "quorate_abi_v1";
const RESERVED_EXPORTS: &str = "quorate_";

type Verdict = Result<(), Rejected>;

pub(super) fn check(shape: &Shape<'_>, limits: &ModuleLimits) -> Verdict {
    sizes(shape)?;
    imports(shape)?;
    if shape.starts {
        return Err(reject(
            "module-start",
            "the module has a start function; put its work into quorate_init",
        ));
    }
    exports(shape)?;
    memory(shape, limits)?;
    table(shape)?;
    shadow_stack(shape)
}

/// The exports that the manifest's claims need.
pub(super) fn check_manifest(shape: &Shape<'_>, manifest: &Manifest) -> Verdict {
    for (versions, field, export) in [
        (&manifest.migrates_from, "migrates-from", "quorate_migrate"),
        (
            &manifest.migrates_down_to,
            "migrates-down-to",
            "quorate_migrate_down",
        ),
    ] {
        if !versions.is_empty() && shape.export(export).is_none() {
            return Err(reject(
                "module-export",
                format!("the manifest has {field}, but the module does not export {export}"),
            ));
        }
    }
    Ok(())
}

fn sizes(shape: &Shape<'_>) -> Verdict {
    let parameters = shape
        .types
        .iter()
        .map(|ty| ty.params().len().max(ty.results().len()))
        .max()
        .unwrap_or(0);
    for (what, size, max) in [
        ("functions", shape.functions.len(), FUNCTIONS_MAX),
        ("types", shape.types.len(), TYPES_MAX),
        (
            "parameters or results of one type",
            parameters,
            PARAMETERS_MAX,
        ),
        ("globals", shape.globals.len(), GLOBALS_MAX),
        ("exports", shape.exports.len(), EXPORTS_MAX),
        ("data segments", shape.data.len(), DATA_SEGMENTS_MAX),
        (
            "element segments",
            shape.elements.len(),
            ELEMENT_SEGMENTS_MAX,
        ),
        (
            "bytes in one function",
            shape.body_bytes_max,
            BODY_BYTES_MAX,
        ),
        (
            "locals in one function",
            shape.locals_max as usize,
            LOCALS_MAX as usize,
        ),
        (
            "targets of one br_table",
            shape.branch_targets_max as usize,
            BRANCH_TARGETS_MAX as usize,
        ),
        (
            "locals times blocks in one function",
            shape.joins_max,
            JOINS_MAX,
        ),
        (
            "locals times blocks in all functions",
            shape.joins,
            JOINS_TOTAL_MAX,
        ),
    ] {
        if size > max {
            return Err(reject(
                "module-limit",
                format!("the module has {size} {what}, {max} are allowed"),
            ));
        }
    }
    Ok(())
}

fn imports(shape: &Shape<'_>) -> Verdict {
    for (module, name, ty) in &shape.imports {
        let bad = |why: &str| {
            Err(reject(
                "module-import",
                format!("the module imports {module}.{name}{why}"),
            ))
        };
        if *module != NAMESPACE {
            return bad(match *module {
                "wasi_snapshot_preview1" | "wasi_unstable" => {
                    ": there is no WASI; build for wasm32-unknown-unknown"
                }
                _ => ", which is not part of the ABI",
            });
        }
        let Some((_, parameters, returns)) = SIGNATURES.iter().find(|(known, ..)| known == name)
        else {
            return bad(", which is not part of the ABI");
        };
        let TypeRef::Func(index) = ty else {
            return bad(", which is a function, as something else");
        };
        let is_right = shape
            .types
            .get(*index as usize)
            .is_some_and(|ty| has_type(ty, *parameters, *returns));
        if !is_right {
            return bad(" with another type than the ABI's");
        }
    }
    Ok(())
}

fn exports(shape: &Shape<'_>) -> Verdict {
    if shape.export(ABI_EXPORT).is_none() {
        let other = shape
            .exports
            .iter()
            .find(|(name, ..)| name.starts_with("quorate_abi_"));
        let detail = match other {
            Some((name, ..)) => format!("the module exports {name}, this host needs {ABI_EXPORT}"),
            None => format!("the module does not export {ABI_EXPORT}; is it made with the SDK?"),
        };
        return Err(reject("module-abi", detail));
    }
    function_export(shape, ABI_EXPORT, 0, Returns::Nothing)?;
    function_export(shape, "quorate_alloc", 1, Returns::I32)?;
    if shape.export("quorate_apply").is_none() {
        return Err(missing("quorate_apply"));
    }
    for (_, name) in EXPORTS {
        if shape.export(name).is_some() {
            function_export(shape, name, 2, Returns::I64)?;
        }
    }
    let from_json = shape.export("quorate_payload_from_json").is_some();
    let to_json = shape.export("quorate_payload_to_json").is_some();
    if from_json != to_json {
        return Err(reject(
            "module-export",
            "of quorate_payload_from_json and quorate_payload_to_json the module exports only one",
        ));
    }
    // A misspelt hook would otherwise silently never run.
    for (name, ..) in &shape.exports {
        let is_known = *name == "quorate_alloc"
            || name.starts_with("quorate_abi_v")
            || EXPORTS.iter().any(|(_, known)| known == name);
        if name.starts_with(RESERVED_EXPORTS) && !is_known {
            return Err(reject(
                "module-export",
                format!("the module exports {name}, which is not part of the ABI"),
            ));
        }
    }
    Ok(())
}

fn function_export(shape: &Shape<'_>, name: &str, parameters: usize, returns: Returns) -> Verdict {
    let Some((kind, index)) = shape.export(name) else {
        return Err(missing(name));
    };
    let is_right = kind == ExternalKind::Func
        && shape
            .function_type(index)
            .is_some_and(|ty| has_type(ty, parameters, returns));
    if is_right {
        Ok(())
    } else {
        Err(reject(
            "module-export",
            format!("the module's export {name} has another type than the ABI's"),
        ))
    }
}

fn missing(name: &str) -> Rejected {
    reject(
        "module-export",
        format!("the module does not export {name}"),
    )
}

fn has_type(ty: &FuncType, parameters: usize, returns: Returns) -> bool {
    let results: &[ValType] = match returns {
        Returns::Nothing => &[],
        Returns::I32 => &[ValType::I32],
        Returns::I64 => &[ValType::I64],
    };
    ty.params().len() == parameters
        && ty.params().iter().all(|ty| *ty == ValType::I32)
        && ty.results() == results
}

fn memory(shape: &Shape<'_>, limits: &ModuleLimits) -> Verdict {
    let bad = |detail: String| Err(reject("module-memory", detail));
    let [memory] = shape.memories.as_slice() else {
        return bad("the module must define one memory".into());
    };
    if shape.export("memory") != Some((ExternalKind::Memory, 0)) {
        return bad("the module does not export its memory as `memory`".into());
    }
    let allowed = limits.memory_bytes_max.min(MEMORY_BYTES_CEILING);
    let Some(maximum) = memory.maximum else {
        return bad(format!(
            "the module's memory has no maximum; link it with --max-memory={allowed} or less"
        ));
    };
    // Both are at most 65536 pages of 64 KiB: validated.
    let bytes = maximum * PAGE_BYTES;
    if bytes > allowed {
        return bad(format!(
            "the module's memory may grow to {bytes} bytes, the cluster allows {allowed}; link it \
             with --max-memory={allowed} or less"
        ));
    }
    segments(&shape.data, memory.initial * PAGE_BYTES, "data", "memory")
}

fn table(shape: &Shape<'_>) -> Verdict {
    let bad = |detail: String| Err(reject("module-table", detail));
    let table = match shape.tables.as_slice() {
        [] => None,
        [table] => Some(table),
        _ => return bad("the module has more than one table".into()),
    };
    let initial = table.map_or(0, |table| table.initial);
    if initial > u64::from(TABLE_ELEMENTS_MAX) {
        return bad(format!(
            "the module's table begins with {initial} elements, {TABLE_ELEMENTS_MAX} are allowed"
        ));
    }
    if table.is_some_and(|table| !holds_functions(table)) {
        return bad("the module's table holds something else than functions".into());
    }
    segments(&shape.elements, initial, "element", "table")
}

/// Segments that instantiation writes lie where there is room, so that it cannot trap.
fn segments(segments: &[Segment], room: u64, what: &str, whole: &str) -> Verdict {
    for (index, segment) in segments.iter().enumerate() {
        let problem = match segment.place {
            Place::At(offset) if u64::from(offset) + segment.length > room => {
                format!("lies outside the {whole}'s initial size")
            }
            Place::Computed => "has an offset that is not a constant".into(),
            Place::At(_) | Place::Passive => continue,
        };
        return Err(reject(
            "module-segment",
            format!("the module's {what} segment {index} {problem}"),
        ));
    }
    Ok(())
}

/// The size of the module's stack in its memory, where that can be told: by default the linker puts the stack first and
/// data after it, so that the stack's overflow is an access below address 0 and traps. How large it is then is where it
/// begins.
pub(super) fn shadow_stack_bytes(shape: &Shape<'_>) -> Option<u32> {
    let stack_pointer = shape
        .globals
        .iter()
        .find(|(ty, _)| is_mutable_i32(ty))
        .and_then(|(_, value)| *value)?
        .cast_unsigned();
    let first_data = shape
        .data
        .iter()
        .filter_map(|segment| match segment.place {
            Place::At(offset) => Some(offset),
            Place::Passive | Place::Computed => None,
        })
        .min();
    let data_follows = first_data.is_some_and(|offset| offset >= stack_pointer);
    data_follows.then_some(stack_pointer)
}

fn shadow_stack(shape: &Shape<'_>) -> Verdict {
    match shadow_stack_bytes(shape) {
        Some(bytes) if bytes > SHADOW_STACK_BYTES_MAX => Err(reject(
            "module-stack",
            format!(
                "the module's stack in memory has {bytes} bytes, {SHADOW_STACK_BYTES_MAX} are \
                 allowed; link it with -zstack-size=65536"
            ),
        )),
        _ => Ok(()),
    }
}
