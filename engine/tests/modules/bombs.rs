//! Modules of a few kilobytes that would cost the compiler gigabytes and hours.

use crate::admission::rejected;
use crate::common::{apply_function, assemble, check, module, parts};

/// A function with as many locals, of which a loop at the bottom of as many loops changes each.
fn nested(locals: usize, loops: usize) -> String {
    let change = |n| format!("(local.set {n} (i64.add (local.get {n}) (i64.const 1)))");
    let changes: String = (0..locals).map(change).collect();
    format!(
        "(func (local {}) {} {changes} {})",
        "i64 ".repeat(locals),
        "loop ".repeat(loops),
        "i32.const 0 br_if 0 end ".repeat(loops)
    )
}

/// FAULTS 55.
#[test]
fn locals_times_blocks_are_limited() {
    let with = |body: &str| module(&format!("{} {body}", apply_function("(i64.const 0)")));
    for (locals, loops) in [(257, 256), (8_192, 9), (9, 8_192)] {
        let wat = with(&nested(locals, loops));
        rejected(&wat, "module-limit", "locals times blocks in one function");
    }
    // What a block takes and leaves counts, and so do parameters.
    let values = "(param i32)".repeat(100);
    let taken = format!("(block {values} {})", "(drop)".repeat(100));
    let body = format!("{} {taken}", "(i32.const 1)".repeat(100)).repeat(656);
    rejected(
        &with(&format!("(func {body})")),
        "module-limit",
        "locals times blocks",
    );
    let body = "(block)".repeat(656);
    rejected(
        &with(&format!("(func {values} {body})")),
        "module-limit",
        "locals times blocks",
    );
    let many = nested(200, 320).repeat(33);
    rejected(
        &with(&many),
        "module-limit",
        "locals times blocks in all functions",
    );
    assert!(check(&assemble(&with(&nested(256, 256)))).is_ok());
    // Imported functions have no body.
    let import = "(import \"quorate\" \"log\" (func (param i32 i32 i32)))";
    let body = format!("{} {}", apply_function("(i64.const 0)"), nested(256, 256));
    let wat = parts(import, "(memory (export \"memory\") 1 1024)", &body);
    assert!(check(&assemble(&wat)).is_ok());
}
