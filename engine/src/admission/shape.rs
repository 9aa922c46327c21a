//! What a valid module consists of, as far as the rules ask.

use quorate_core::module::Rejected;
use wasmparser::{
    BlockType, CompositeInnerType, ConstExpr, DataKind, ElementItems, ElementKind, ExternalKind,
    FuncType, FunctionBody, GlobalType, MemoryType, Operator, Parser, Payload, RefType, TableType,
    TypeRef, ValType,
};

use super::manifest::MANIFEST_SECTION;
use super::reject;

#[derive(Debug, Default)]
pub(super) struct Shape<'a> {
    pub(super) types: Vec<FuncType>,
    pub(super) imports: Vec<(&'a str, &'a str, TypeRef)>,
    /// The type of every function, imported ones first.
    pub(super) functions: Vec<u32>,
    pub(super) tables: Vec<TableType>,
    pub(super) memories: Vec<MemoryType>,
    pub(super) globals: Vec<(GlobalType, Option<i32>)>,
    pub(super) exports: Vec<(&'a str, ExternalKind, u32)>,
    pub(super) starts: bool,
    pub(super) data: Vec<Segment>,
    pub(super) elements: Vec<Segment>,
    pub(super) body_bytes_max: usize,
    pub(super) locals_max: u32,
    pub(super) branch_targets_max: u32,
    /// Locals times blocks of one function: values that its compiler may have to bring together.
    pub(super) joins_max: usize,
    /// Of all functions together.
    pub(super) joins: usize,
    bodies: usize,
    pub(super) manifests: Vec<&'a [u8]>,
}

/// A segment of data or elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) place: Place,
    /// Bytes or elements.
    pub(super) length: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Written when code asks for it.
    Passive,
    /// Written by instantiation, here.
    At(u32),
    /// Written by instantiation, at something else than a constant.
    Computed,
}

/// Reads `code`, which is valid.
pub(super) fn read(code: &[u8]) -> Result<Shape<'_>, Rejected> {
    let mut shape = Shape::default();
    for payload in Parser::new(0).parse_all(code) {
        payload
            .and_then(|payload| shape.take(payload))
            .map_err(|error| reject("module-invalid", format!("not a valid module: {error}")))?;
    }
    Ok(shape)
}

impl<'a> Shape<'a> {
    fn take(&mut self, payload: Payload<'a>) -> Result<(), wasmparser::Error> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    self.types.extend(group?.into_types().filter_map(|ty| {
                        match ty.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        }
                    }));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    if let TypeRef::Func(ty) = import.ty {
                        self.functions.push(ty);
                    }
                    self.imports.push((import.module, import.name, import.ty));
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.functions.push(ty?);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    self.tables.push(table?.ty);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.memories.push(memory?);
                }
            }
            Payload::GlobalSection(section) => {
                for global in section {
                    let global = global?;
                    self.globals
                        .push((global.ty, constant_i32(&global.init_expr)?));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    self.exports.push((export.name, export.kind, export.index));
                }
            }
            Payload::StartSection { .. } => self.starts = true,
            Payload::DataSection(section) => {
                for data in section {
                    let data = data?;
                    let place = match data.kind {
                        DataKind::Passive => Place::Passive,
                        DataKind::Active { offset_expr, .. } => place(&offset_expr)?,
                    };
                    let length = data.data.len() as u64;
                    self.data.push(Segment { place, length });
                }
            }
            Payload::ElementSection(section) => {
                for element in section {
                    let element = element?;
                    let place = match element.kind {
                        ElementKind::Passive | ElementKind::Declared => Place::Passive,
                        ElementKind::Active { offset_expr, .. } => place(&offset_expr)?,
                    };
                    let length = match element.items {
                        ElementItems::Functions(items) => u64::from(items.count()),
                        ElementItems::Expressions(_, items) => u64::from(items.count()),
                    };
                    self.elements.push(Segment { place, length });
                }
            }
            Payload::CodeSectionEntry(body) => self.take_body(&body)?,
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                self.manifests.push(section.data());
            }
            _ => {}
        }
        Ok(())
    }

    fn take_body(&mut self, body: &FunctionBody<'_>) -> Result<(), wasmparser::Error> {
        self.body_bytes_max = self.body_bytes_max.max(body.as_bytes().len());
        let mut locals = 0_u32;
        for group in body.get_locals_reader()? {
            locals = locals.saturating_add(group?.0);
        }
        self.locals_max = self.locals_max.max(locals);
        let live = (locals as usize).saturating_add(self.parameters_of_next_body());
        let mut joins = 0_usize;
        for operator in body.get_operators_reader()? {
            match operator? {
                Operator::BrTable { targets } => {
                    self.branch_targets_max = self.branch_targets_max.max(targets.len());
                }
                Operator::Block { blockty }
                | Operator::Loop { blockty }
                | Operator::If { blockty } => {
                    joins = joins
                        .saturating_add(live)
                        .saturating_add(self.values(blockty));
                }
                _ => {}
            }
        }
        self.joins_max = self.joins_max.max(joins);
        self.joins = self.joins.saturating_add(joins);
        Ok(())
    }

    /// Parameters of the function whose body comes next.
    fn parameters_of_next_body(&mut self) -> usize {
        let is_function = |(_, _, ty): &&(_, _, TypeRef)| matches!(ty, TypeRef::Func(_));
        let imported = self.imports.iter().filter(is_function).count();
        let index = u32::try_from(imported + self.bodies).unwrap_or(u32::MAX);
        self.bodies += 1;
        self.function_type(index).map_or(0, |ty| ty.params().len())
    }

    /// Parameters and results of a block.
    fn values(&self, ty: BlockType) -> usize {
        match ty {
            BlockType::Empty => 0,
            BlockType::Type(_) => 1,
            BlockType::FuncType(index) => self
                .types
                .get(index as usize)
                .map_or(0, |ty| ty.params().len() + ty.results().len()),
        }
    }

    /// The export of this name.
    pub(super) fn export(&self, name: &str) -> Option<(ExternalKind, u32)> {
        self.exports
            .iter()
            .find(|(other, _, _)| *other == name)
            .map(|(_, kind, index)| (*kind, *index))
    }

    /// The type of the function at `index`, imported ones counted.
    pub(super) fn function_type(&self, index: u32) -> Option<&FuncType> {
        let ty = self.functions.get(index as usize)?;
        self.types.get(*ty as usize)
    }
}

/// The value of an expression that is one `i32.const`.
fn constant_i32(expression: &ConstExpr<'_>) -> Result<Option<i32>, wasmparser::Error> {
    let mut operators = expression.get_operators_reader();
    let first = operators.read()?;
    let second = operators.read()?;
    Ok(match (first, second) {
        (Operator::I32Const { value }, Operator::End) => Some(value),
        _ => None,
    })
}

fn place(expression: &ConstExpr<'_>) -> Result<Place, wasmparser::Error> {
    Ok(match constant_i32(expression)? {
        Some(offset) => Place::At(offset.cast_unsigned()),
        None => Place::Computed,
    })
}

/// Whether a table holds functions, the only kind that an instance of the level can have.
pub(super) fn holds_functions(table: &TableType) -> bool {
    table.element_type == RefType::FUNCREF
}

/// Whether this is the type of `__stack_pointer`.
pub(super) fn is_mutable_i32(global: &GlobalType) -> bool {
    global.mutable && global.content_type == ValType::I32
}
