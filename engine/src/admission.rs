//! Which modules may run: a verdict that is a function of a module's bytes and the replicated limits
//! alone, equal on every node of one engine level.
//!
//! The rules are those of docs/module-abi.md, and limits that keep compiling and instantiating
//! bounded: a module that passes cannot fail to be instantiated for a reason of its own.

mod features;
mod inspection;
mod manifest;
mod rules;
mod shape;

use quorate_core::module::{Manifest, ModuleLimits, Rejected};
use wasmparser::{Chunk, Parser, Payload};

pub use inspection::{Function, Inspection, inspect};
pub use manifest::MANIFEST_BYTES_MAX;
pub use rules::{
    BODY_BYTES_MAX, BRANCH_TARGETS_MAX, DATA_SEGMENTS_MAX, ELEMENT_SEGMENTS_MAX, EXPORTS_MAX,
    FUNCTIONS_MAX, GLOBALS_MAX, JOINS_MAX, JOINS_TOTAL_MAX, LOCALS_MAX, PARAMETERS_MAX,
    SHADOW_STACK_BYTES_MAX, TYPES_MAX,
};

/// Examines `code` without running or compiling it.
///
/// # Errors
/// Why it is not admitted: the first rule that it breaks.
pub(crate) fn examine(code: &[u8], limits: &ModuleLimits) -> Result<Manifest, Rejected> {
    if code.len() as u64 > limits.module_bytes_max {
        return Err(reject(
            "module-too-large",
            format!(
                "the module has {} bytes, the cluster allows {}",
                code.len(),
                limits.module_bytes_max
            ),
        ));
    }
    is_module(code)?;
    is_whole(code)?;
    features::validate(code)?;
    let shape = shape::read(code)?;
    rules::check(&shape, limits)?;
    let manifest = manifest::parse(&shape.manifests)?;
    rules::check_manifest(&shape, &manifest)?;
    Ok(manifest)
}

pub(crate) fn reject(code: &'static str, detail: impl Into<String>) -> Rejected {
    Rejected {
        code,
        detail: detail.into(),
    }
}

/// Names what is not a core module as what it is.
fn is_module(code: &[u8]) -> Result<(), Rejected> {
    if Parser::is_core_wasm(code) {
        return Ok(());
    }
    let (slug, detail) = if code.is_empty() {
        ("module-empty", "the file is empty")
    } else if Parser::is_component(code) {
        (
            "module-component",
            "this is a WebAssembly component; a core module is needed: build for \
             wasm32-unknown-unknown",
        )
    } else if is_text_format(code) {
        (
            "module-text",
            "this is WebAssembly text; convert it with `wasm-tools parse`",
        )
    } else if b"\0asm\x01\0\0\0".starts_with(code) {
        ("module-truncated", "the file ends within its header")
    } else if code.starts_with(b"\0asm") {
        (
            "module-not-wasm",
            "this is WebAssembly of an unknown version",
        )
    } else {
        (
            "module-not-wasm",
            "this is not WebAssembly: it does not begin with \\0asm",
        )
    };
    Err(reject(slug, detail))
}

fn is_text_format(code: &[u8]) -> bool {
    let start = code.trim_ascii_start();
    [b"(module".as_slice(), b"(;", b";;", b"(component"]
        .iter()
        .any(|opening| start.starts_with(opening))
}

fn truncated(code: &[u8]) -> Rejected {
    let detail = format!("the file ends too early, after {} bytes", code.len());
    reject("module-truncated", detail)
}

fn is_whole(code: &[u8]) -> Result<(), Rejected> {
    let mut parser = Parser::new(0);
    let mut rest = code;
    loop {
        // At the end of the bytes a header of a section is missing as well, so look for that first.
        let is_last = rest.is_empty();
        match parser.parse(rest, is_last) {
            Ok(Chunk::NeedMoreData(_)) => return Err(truncated(code)),
            // Within a section that is parsed as a whole.
            Err(error) if error.offset() >= code.len() as u64 => return Err(truncated(code)),
            Ok(Chunk::Parsed { consumed, payload }) => {
                if let Payload::End(_) = payload {
                    return Ok(());
                }
                rest = &rest[consumed..];
            }
            // The validator says it better.
            Err(_) => return Ok(()),
        }
    }
}
