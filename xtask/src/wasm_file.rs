//! What a host sees of a module before it runs it: imports, exports, memory, manifest.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail};
use wasmparser::{ConstExpr, Operator, Parser, Payload};

/// The custom section of the manifest.
const MANIFEST_SECTION: &str = "quorate_manifest";

/// The outside of a module. Two builds of one source by different compilers agree in it, unlike in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Functions and memories exported to the host, by name; what linkers add is left out.
    exports: BTreeSet<String>,
    imports: BTreeSet<String>,
    memory_pages_max: Option<u64>,
    /// Where the shadow stack begins, and so its size, since the linker puts it first.
    stack_bytes: Option<i32>,
    manifest: serde_json::Value,
}

impl Shape {
    /// Reads the outside of the module `code`.
    pub(crate) fn read(code: &[u8]) -> Result<Self> {
        let mut exports = BTreeSet::new();
        let mut imports = BTreeSet::new();
        let mut memory_pages_max = None;
        let mut stack_bytes = None;
        let mut manifest = None;
        for payload in Parser::new(0).parse_all(code) {
            match payload? {
                Payload::ExportSection(section) => {
                    for export in section {
                        let name = export?.name;
                        if name == "memory" || name.starts_with("quorate_") {
                            exports.insert(name.to_owned());
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        imports.insert(format!("{}.{}", import.module, import.name));
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        memory_pages_max = memory?.maximum;
                    }
                }
                Payload::GlobalSection(section) => {
                    for global in section {
                        let global = global?;
                        if stack_bytes.is_none() && global.ty.mutable {
                            stack_bytes = constant(&global.init_expr)?;
                        }
                    }
                }
                Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                    if manifest.is_some() {
                        bail!("two sections {MANIFEST_SECTION}");
                    }
                    manifest =
                        Some(serde_json::from_slice(section.data()).context("parse the manifest")?);
                }
                _ => {}
            }
        }
        Ok(Self {
            exports,
            imports,
            memory_pages_max,
            stack_bytes,
            manifest: manifest.with_context(|| format!("no section {MANIFEST_SECTION}"))?,
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  exports  {}", joined(&self.exports))?;
        writeln!(f, "  imports  {}", joined(&self.imports))?;
        match self.memory_pages_max {
            Some(pages) => writeln!(f, "  memory   at most {pages} pages")?,
            None => writeln!(f, "  memory   no maximum")?,
        }
        match self.stack_bytes {
            Some(bytes) => writeln!(f, "  stack    {bytes} bytes")?,
            None => writeln!(f, "  stack    none")?,
        }
        write!(f, "  manifest {}", self.manifest)
    }
}

fn constant(expression: &ConstExpr<'_>) -> Result<Option<i32>> {
    match expression.get_operators_reader().read()? {
        Operator::I32Const { value } => Ok(Some(value)),
        _ => Ok(None),
    }
}

fn joined(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}
