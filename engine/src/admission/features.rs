//! Validation with the features of the engine level, and which proposal a module needs beyond them.

use quorate_core::module::Rejected;
use wasmparser::{Validator, WasmFeatures};

use super::reject;

/// What a module may use; `config` gives wasmtime the same.
const LEVEL: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::FLOATS);

/// Proposals by the name their users know. Some need others; a pair stands for that.
const PROPOSALS: [(&str, WasmFeatures); 13] = [
    ("SIMD", WasmFeatures::SIMD),
    (
        "relaxed SIMD",
        WasmFeatures::SIMD.union(WasmFeatures::RELAXED_SIMD),
    ),
    ("threads", WasmFeatures::THREADS),
    ("64-bit memory", WasmFeatures::MEMORY64),
    ("multiple memories", WasmFeatures::MULTI_MEMORY),
    ("tail calls", WasmFeatures::TAIL_CALL),
    (
        "extended constant expressions",
        WasmFeatures::EXTENDED_CONST,
    ),
    ("external references", WasmFeatures::GC_TYPES),
    (
        "function references",
        WasmFeatures::FUNCTION_REFERENCES.union(WasmFeatures::GC_TYPES),
    ),
    (
        "garbage collection",
        WasmFeatures::GC
            .union(WasmFeatures::GC_TYPES)
            .union(WasmFeatures::FUNCTION_REFERENCES),
    ),
    (
        "exceptions",
        WasmFeatures::EXCEPTIONS
            .union(WasmFeatures::LEGACY_EXCEPTIONS)
            .union(WasmFeatures::GC_TYPES),
    ),
    ("wide arithmetic", WasmFeatures::WIDE_ARITHMETIC),
    ("custom page sizes", WasmFeatures::CUSTOM_PAGE_SIZES),
];

/// Whether `code` is a valid module of the level.
///
/// # Errors
/// `module-feature` if it is valid with a proposal that is switched off, `module-invalid` otherwise.
pub(super) fn validate(code: &[u8]) -> Result<(), Rejected> {
    let Err(error) = validate_with(code, LEVEL) else {
        return Ok(());
    };
    for (name, features) in PROPOSALS {
        if validate_with(code, LEVEL.union(features)).is_ok() {
            return Err(reject(
                "module-feature",
                format!("the module needs {name}, which is switched off: {error}"),
            ));
        }
    }
    if validate_with(code, WasmFeatures::all()).is_ok() {
        return Err(reject(
            "module-feature",
            format!("the module needs proposals that are switched off: {error}"),
        ));
    }
    Err(reject(
        "module-invalid",
        format!("not a valid module: {error}"),
    ))
}

fn validate_with(code: &[u8], features: WasmFeatures) -> Result<(), wasmparser::Error> {
    Validator::new_with_features(features)
        .validate_all(code)
        .map(|_| ())
}
