//! One body, two tests.

/// Makes two tests of each function that is named: `native::NAME` and, with the feature `wasm`, `wasm::NAME`. A function takes what
/// makes a simulation, since some need several.
///
/// ```no_run
/// use quorate_sim::Sim;
/// # use quorate_guest::prelude::*;
/// # struct Counter;
/// # impl Module for Counter {
/// #     const STATE_VERSION: u32 = 1;
/// #     type Codec = Json;
/// #     type Command = u64;
/// #     type Response = u64;
/// #     type Query = ();
/// #     type Answer = u64;
/// #     type Request = ();
/// #     fn command(_: &mut Context<Self>, command: u64) -> Result<u64> { Ok(command) }
/// #     fn query(_: &ReadContext, _: ()) -> Result<u64> { Ok(0) }
/// # }
/// # export_module!(Counter, name: "counter");
///
/// quorate_sim::native_and_wasm!(Counter, "target/wasm32-unknown-unknown/release/counter.wasm", [
///     a_counter_begins_at_zero,
/// ]);
///
/// fn a_counter_begins_at_zero(start: fn() -> Sim<Counter>) {
///     let mut sim = start();
///     assert_eq!(sim.query(()), Ok(0));
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! native_and_wasm {
    ($module:ty, $file:expr, [$($name:ident),+ $(,)?]) => {
        mod native {
            use super::*;

            $(
                #[test]
                fn $name() {
                    super::$name($crate::Sim::native::<$module>);
                }
            )+
        }

        $crate::__wasm_tests!($module, $file, [$($name),+]);
    };
}

#[cfg(feature = "wasm")]
#[doc(hidden)]
#[macro_export]
macro_rules! __wasm_tests {
    ($module:ty, $file:expr, [$($name:ident),+]) => {
        mod wasm {
            use super::*;

            fn start() -> $crate::Sim<$module> {
                match $crate::Sim::wasm($file) {
                    Ok(sim) => sim,
                    Err(error) => panic!("{error}"),
                }
            }

            $(
                #[test]
                fn $name() {
                    super::$name(start);
                }
            )+
        }
    };
}

#[cfg(not(feature = "wasm"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __wasm_tests {
    ($module:ty, $file:expr, [$($name:ident),+]) => {
        // Named here too, so that what it is made of is not unused.
        const _: &str = $file;
    };
}
