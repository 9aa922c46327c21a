//! The exports of a wasm module, and the imports behind them.

/// Makes a wasm module of a type that implements [`Module`](crate::Module): its exports and its manifest.
///
/// `export_module!(Kv)` takes name and version from the crate; `export_module!(Kv, name: "kv")` names the
/// module itself. Once for a type and, on wasm32, once in a crate, at the level of items. On other targets it checks the
/// manifest and implements [`Exported`](crate::native::Exported), for the simulator.
#[macro_export]
macro_rules! export_module {
    ($module:ty) => {
        $crate::export_module!($module, name: env!("CARGO_PKG_NAME"));
    };
    ($module:ty, name: $name:expr) => {
        const _: () = {
            const MANIFEST: $crate::__private::Manifest =
                $crate::__private::Manifest::of::<$module>($name, env!("CARGO_PKG_VERSION"));
            const JSON: [u8; MANIFEST.json_bytes()] = MANIFEST.to_json();

            #[cfg(not(target_arch = "wasm32"))]
            impl $crate::native::Exported for $module {
                const MANIFEST: &'static [u8] = &JSON;
            }

            #[cfg(target_arch = "wasm32")]
            #[used]
            #[unsafe(link_section = "quorate_manifest")]
            static MANIFEST_SECTION: [u8; JSON.len()] = JSON;

            #[cfg(target_arch = "wasm32")]
            #[unsafe(no_mangle)]
            extern "C" fn quorate_abi_v1() {}

            #[cfg(target_arch = "wasm32")]
            #[unsafe(no_mangle)]
            extern "C" fn quorate_alloc(length: usize) -> *mut u8 {
                $crate::__private::wasm::alloc(length)
            }

            $crate::export_module!(@call $module, quorate_apply, Apply);
            $crate::export_module!(@call $module, quorate_init, Init);
            $crate::export_module!(@call $module, quorate_query, Query);
            $crate::export_module!(@call $module, quorate_migrate, Migrate);
            $crate::export_module!(@call $module, quorate_migrate_down, MigrateDown);
            $crate::__json_view!($module);
        };
    };
    (@call $module:ty, $name:ident, $export:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(pointer: *mut u8, length: usize) -> u64 {
            use $crate::__private::{Export, wasm};
            // SAFETY: the host passes what `quorate_alloc` returned for this length, once.
            unsafe { wasm::call::<$module>(Export::$export, pointer, length) }
        }
    };
}

/// The exports by which tools show payloads as JSON: whether there are any is this crate's feature, not its user's.
#[doc(hidden)]
#[cfg(feature = "json-view")]
#[macro_export]
macro_rules! __json_view {
    ($module:ty) => {
        $crate::export_module!(@call $module, quorate_payload_from_json, PayloadFromJson);
        $crate::export_module!(@call $module, quorate_payload_to_json, PayloadToJson);
    };
}

#[doc(hidden)]
#[cfg(not(feature = "json-view"))]
#[macro_export]
macro_rules! __json_view {
    ($module:ty) => {};
}

/// What the exports call.
#[cfg(target_arch = "wasm32")]
pub mod wasm {
    use std::alloc::Layout;
    use std::panic::PanicHookInfo;
    use std::ptr::NonNull;
    use std::sync::{Mutex, Once};

    use crate::entry::{self, Export};
    use crate::host::{Entry, Host, KeyRange, LOG_BYTES_MAX, Level, Order, Parts, VALUE_BYTES_MAX};
    use crate::module::Module;

    /// Memory for an input; null if there is none. [`call`] frees it.
    pub fn alloc(length: usize) -> *mut u8 {
        match Layout::array::<u8>(length) {
            Ok(layout) if length > 0 => {
                // SAFETY: the layout is not empty.
                unsafe { std::alloc::alloc_zeroed(layout) }
            }
            Ok(_) => NonNull::dangling().as_ptr(),
            Err(_) => std::ptr::null_mut(),
        }
    }

    /// Runs one call and returns the pair of its outcome, which stays where it is until the next call.
    ///
    /// # Safety
    /// `pointer` is what [`alloc`] returned for `length`, not null, and is not used again.
    pub unsafe fn call<M: Module>(export: Export, pointer: *mut u8, length: usize) -> u64 {
        static HOOK: Once = Once::new();
        static OUTCOME: Mutex<Vec<u8>> = Mutex::new(Vec::new());

        HOOK.call_once(|| std::panic::set_hook(Box::new(abort)));
        // SAFETY: the caller's promise; `alloc` made it as such a slice.
        let input = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(pointer, length)) };
        let outcome = entry::run::<M>(&Imports, export, &input);
        let mut kept = OUTCOME.lock().expect("a panic ends the instance");
        *kept = outcome;
        ((kept.as_ptr() as u64) << 32) | kept.len() as u64
    }

    /// Hands a panic's text to the host, which traps.
    fn abort(panic: &PanicHookInfo<'_>) {
        let message = panic.payload_as_str().unwrap_or("");
        let (file, line) = match panic.location() {
            Some(location) => (location.file(), location.line()),
            None => ("", 0),
        };
        // SAFETY: pointers and lengths are those of slices.
        unsafe {
            imports::abort(
                message.as_ptr(),
                message.len(),
                file.as_ptr(),
                file.len(),
                line,
            );
        }
    }

    /// The imports of docs/module-abi.md.
    mod imports {
        #[link(wasm_import_module = "quorate")]
        unsafe extern "C" {
            pub(super) fn store_get(
                key: *const u8,
                key_len: usize,
                out: *mut u8,
                out_cap: usize,
            ) -> i64;
            pub(super) fn store_put(
                key: *const u8,
                key_len: usize,
                value: *const u8,
                value_len: usize,
            );
            pub(super) fn store_delete(key: *const u8, key_len: usize);
            pub(super) fn store_delete_range(
                start: *const u8,
                start_len: usize,
                end: *const u8,
                end_len: usize,
                limit: u32,
            ) -> u32;
            pub(super) fn store_scan(
                start: *const u8,
                start_len: usize,
                end: *const u8,
                end_len: usize,
                flags: u32,
                limit: u32,
                out: *mut u8,
                out_cap: usize,
            ) -> i64;
            pub(super) fn emit(effect: *const u8, effect_len: usize);
            pub(super) fn log(level: u32, text: *const u8, text_len: usize);
            pub(super) fn abort(
                message: *const u8,
                message_len: usize,
                file: *const u8,
                file_len: usize,
                line: u32,
            );
        }
    }

    /// Room for a value at the first attempt.
    const GET_BYTES: usize = 1024;

    /// The host of a wasm module.
    struct Imports;

    impl Host for Imports {
        fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
            let mut value = Vec::with_capacity(GET_BYTES);
            loop {
                // SAFETY: `out` has room for `capacity` bytes; the others are a slice.
                let result = unsafe {
                    imports::store_get(
                        key.as_ptr(),
                        key.len(),
                        value.as_mut_ptr(),
                        value.capacity(),
                    )
                };
                let length = usize::try_from(result).ok()?;
                if length <= value.capacity() {
                    // SAFETY: the host wrote `length` bytes.
                    unsafe { value.set_len(length) };
                    return Some(value);
                }
                assert!(length <= VALUE_BYTES_MAX, "the host keeps to the ABI");
                value.reserve_exact(length);
            }
        }

        fn put(&self, key: &[u8], value: &[u8]) {
            // SAFETY: pointers and lengths are those of slices.
            unsafe { imports::store_put(key.as_ptr(), key.len(), value.as_ptr(), value.len()) }
        }

        fn delete(&self, key: &[u8]) {
            // SAFETY: pointer and length are those of a slice.
            unsafe { imports::store_delete(key.as_ptr(), key.len()) }
        }

        fn delete_range(&self, range: KeyRange<'_>, limit: u32) -> u32 {
            let KeyRange { start, end } = range;
            // SAFETY: pointers and lengths are those of slices.
            unsafe {
                imports::store_delete_range(
                    start.as_ptr(),
                    start.len(),
                    end.as_ptr(),
                    end.len(),
                    limit,
                )
            }
        }

        fn scan(
            &self,
            range: KeyRange<'_>,
            order: Order,
            parts: Parts,
            limit: u32,
            room: usize,
        ) -> Vec<Entry> {
            let KeyRange { start, end } = range;
            let flags =
                u32::from(order == Order::Descending) | u32::from(parts == Parts::Keys) << 1;
            let mut out: Vec<u8> = Vec::with_capacity(room);
            loop {
                // SAFETY: `out` has room for `capacity` bytes; the others are slices.
                let result = unsafe {
                    imports::store_scan(
                        start.as_ptr(),
                        start.len(),
                        end.as_ptr(),
                        end.len(),
                        flags,
                        limit,
                        out.as_mut_ptr(),
                        out.capacity(),
                    )
                };
                match usize::try_from(result >> 32) {
                    Ok(written) => {
                        assert!(written <= out.capacity(), "the host keeps to the ABI");
                        // SAFETY: the host wrote `written` bytes.
                        unsafe { out.set_len(written) };
                        return entries(&out, result as u32);
                    }
                    Err(_) => {
                        let needed = result.unsigned_abs() as usize;
                        assert!(needed > out.capacity(), "the host keeps to the ABI");
                        out.reserve_exact(needed);
                    }
                }
            }
        }

        fn emit(&self, effect: &[u8]) {
            // SAFETY: pointer and length are those of a slice.
            unsafe { imports::emit(effect.as_ptr(), effect.len()) }
        }

        fn log(&self, level: Level, text: &str) {
            let text = &text[..text.floor_char_boundary(LOG_BYTES_MAX)];
            // SAFETY: pointer and length are those of a slice.
            unsafe { imports::log(level as u32, text.as_ptr(), text.len()) }
        }
    }

    /// Decodes what a scan wrote.
    fn entries(mut bytes: &[u8], count: u32) -> Vec<Entry> {
        fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
            let (taken, rest) = bytes.split_at(length);
            *bytes = rest;
            taken
        }
        fn length(bytes: &mut &[u8]) -> usize {
            let (taken, rest) = bytes
                .split_first_chunk()
                .expect("a scan writes whole entries");
            *bytes = rest;
            u32::from_le_bytes(*taken) as usize
        }
        (0..count)
            .map(|_| {
                let key_length = length(&mut bytes);
                let value_length = length(&mut bytes);
                let key = take(&mut bytes, key_length).to_vec();
                (key, take(&mut bytes, value_length).to_vec())
            })
            .collect()
    }
}
