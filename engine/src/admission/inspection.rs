//! What a module is and asks for, whether or not it is admitted: for its author.

use quorate_core::module::Rejected;
use wasmparser::{ExternalKind, FuncType, TypeRef, ValType, Validator, WasmFeatures};

use super::shape::{self, Shape};
use super::{is_module, is_whole, reject, rules};

/// Bytes of a page of memory.
const PAGE_BYTES: u64 = 64 << 10;

/// The outside of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What it imports, as `module.name`, in its order.
    pub imports: Vec<Function>,
    /// What it exports, in its order.
    pub exports: Vec<Function>,
    /// Functions of its own.
    pub functions: usize,
    /// What its memory begins with, in bytes; 0 if it has none.
    pub memory_bytes: u64,
    /// What its memory may grow to, in bytes.
    pub memory_bytes_max: Option<u64>,
    /// Its stack in memory, in bytes, where that can be told.
    pub shadow_stack_bytes: Option<u32>,
    /// Data that it brings along, in bytes.
    pub data_bytes: u64,
    /// Its manifest as it is written: JSON, if it is as it must be.
    pub manifest: Option<Vec<u8>>,
}

/// A name and, for a function, its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The name; no control characters.
    pub name: String,
    /// For people: `(i32, i32) -> i64`, or what it is if it is no function.
    pub ty: String,
}

/// Reads what `code` is, without running or compiling it.
///
/// # Errors
/// Why it is no core module: [`Rejected`] with the slug that admission gives.
pub fn inspect(code: &[u8]) -> Result<Inspection, Rejected> {
    is_module(code)?;
    is_whole(code)?;
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(code)
        .map_err(|error| reject("module-invalid", format!("not a valid module: {error}")))?;
    let shape = shape::read(code)?;
    Ok(inspection(&shape))
}

fn inspection(shape: &Shape<'_>) -> Inspection {
    let imported = shape.imports.iter().filter(|(_, _, ty)| is_function(ty));
    let memory = shape.memories.first();
    // Two of them are none that could be meant.
    let manifest = match shape.manifests[..] {
        [manifest] => Some(manifest.to_vec()),
        _ => None,
    };
    let exports = shape.exports.iter().map(|(name, kind, index)| Function {
        name: name.escape_debug().to_string(),
        ty: match kind {
            ExternalKind::Func => shape
                .function_type(*index)
                .map_or_else(|| "function".to_owned(), shown),
            other => format!("{other:?}").to_lowercase(),
        },
    });
    let imports = shape.imports.iter().map(|(module, name, ty)| Function {
        name: format!("{module}.{name}").escape_debug().to_string(),
        ty: match ty {
            TypeRef::Func(index) => shape
                .types
                .get(*index as usize)
                .map_or_else(|| "function".to_owned(), shown),
            TypeRef::Memory(_) => "memory".to_owned(),
            TypeRef::Table(_) => "table".to_owned(),
            TypeRef::Global(_) => "global".to_owned(),
            _ => "other".to_owned(),
        },
    });
    Inspection {
        imports: imports.collect(),
        exports: exports.collect(),
        functions: shape.functions.len() - imported.count(),
        memory_bytes: memory.map_or(0, |memory| memory.initial.saturating_mul(PAGE_BYTES)),
        memory_bytes_max: memory
            .and_then(|memory| memory.maximum)
            .map(|pages| pages.saturating_mul(PAGE_BYTES)),
        shadow_stack_bytes: rules::shadow_stack_bytes(shape),
        data_bytes: shape.data.iter().map(|segment| segment.length).sum(),
        manifest,
    }
}

fn is_function(ty: &TypeRef) -> bool {
    matches!(ty, TypeRef::Func(_))
}

fn shown(ty: &FuncType) -> String {
    let list = |types: &[ValType]| {
        let types: Vec<_> = types.iter().map(ValType::to_string).collect();
        types.join(", ")
    };
    match ty.results() {
        [] => format!("({})", list(ty.params())),
        results => format!("({}) -> {}", list(ty.params()), list(results)),
    }
}
