//! What running costs in fuel: part of the engine level, so that a number here never changes within
//! a level.
//!
//! One unit is about one simple wasm instruction. Fuel guards against runaway code; it is not a
//! price, and no guest sees it.

use wasmtime::OperatorCost;

/// `store_get`, besides its bytes: about 1 us with a read of the store beneath it.
pub(crate) const STORE_GET: u64 = 1_000;
/// `store_put`, besides its bytes.
pub(crate) const STORE_PUT: u64 = 1_000;
/// `store_delete`, besides its bytes.
pub(crate) const STORE_DELETE: u64 = 1_000;
/// `store_scan` and `store_delete_range`, besides keys and bytes.
pub(crate) const STORE_RANGE: u64 = 2_000;
/// Every key that a scan or a range deletion walks, also one hidden by a deletion.
pub(crate) const KEY_WALKED: u64 = 500;
/// Every key that a range deletion deletes, besides walking it.
pub(crate) const KEY_DELETED: u64 = 1_000;
/// `emit`, besides its bytes.
pub(crate) const EMIT: u64 = 500;
/// `log`, besides its bytes.
pub(crate) const LOG: u64 = 500;
/// Every byte of a key, value, effect or text that crosses between guest and host, and every byte
/// of a value that was read, whether or not the guest had room for it.
pub(crate) const BYTE: u64 = 1;

/// What each wasm operator costs: one unit, nothing for structure (`block`, `end`, `drop`), more for
/// what takes a processor much longer than an addition, and for what a runtime operand makes large.
pub(crate) fn operators() -> OperatorCost {
    let mut cost = OperatorCost::new();
    for slow in [
        &mut cost.I32DivS,
        &mut cost.I32DivU,
        &mut cost.I32RemS,
        &mut cost.I32RemU,
        &mut cost.I64DivS,
        &mut cost.I64DivU,
        &mut cost.I64RemS,
        &mut cost.I64RemU,
        &mut cost.F32Div,
        &mut cost.F64Div,
        &mut cost.F32Sqrt,
        &mut cost.F64Sqrt,
    ] {
        *slow = 10;
    }
    cost.Call = 5;
    cost.CallIndirect = 10;
    for bulk in [
        &mut cost.MemoryCopy,
        &mut cost.MemoryFill,
        &mut cost.MemoryInit,
        &mut cost.TableCopy,
        &mut cost.TableFill,
        &mut cost.TableInit,
        &mut cost.TableGet,
        &mut cost.TableSet,
    ] {
        *bulk = 20;
    }
    // A system call each.
    cost.MemoryGrow = 250;
    cost.TableGrow = 250;
    cost.variable.memory_copy_per_byte = 1;
    cost.variable.memory_fill_per_byte = 1;
    cost.variable.memory_init_per_byte = 1;
    // A page costs a fault for each 4 KiB of it when it is first touched.
    cost.variable.memory_grow_per_page = 250;
    cost.variable.table_copy_per_element = 2;
    cost.variable.table_fill_per_element = 2;
    cost.variable.table_init_per_element = 10;
    cost.variable.table_grow_per_element = 2;
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wasmtime that has other operators or other defaults has another table: then either the
    /// table is written out to what it was, or the level is raised.
    #[test]
    fn table_of_level_1_is_pinned() {
        let table = format!("{:?}", operators());
        assert_eq!(
            blake3::hash(table.as_bytes()).to_hex().as_str(),
            "99323d14b971eb965484956569bd90422900e035b61f27f0deba10f2b01dd280"
        );
    }
}
