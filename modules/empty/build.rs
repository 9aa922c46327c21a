//! Linker settings of the module: only the crate that is linked can give them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it for build scripts");
    if arch == "wasm32" {
        // A small shadow stack, placed below the data, so that deep recursion traps in memory, at the same
        // depth on every node, before the host's own stack ends.
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=65536");
        // A memory without a maximum is refused.
        println!("cargo::rustc-link-arg-cdylib=--max-memory=67108864");
    }
}
