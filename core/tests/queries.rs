//! Queries: what they are given, and that they change nothing.

use std::sync::Arc;

use quorate_core::context::{Access, CallError, Context};
use quorate_core::keys;
use quorate_core::module::{ModuleLimits, Modules, Trap};
use quorate_core::query::{self, HEADER_BYTES, Queried, tag};
use quorate_core::records::{Levels, Record};
use quorate_core::state::{Order, Visit};

use crate::support::*;

/// Over what a machine's module has stored.
fn context(machine: &Machine, access: Access) -> Context {
    let state = Arc::clone(&machine.state);
    Context::new(state, access, ModuleLimits::default())
}

fn in_use() -> Machine {
    let mut machine = Machine::new();
    let put = Action::Put(b"k".to_vec(), b"v".to_vec());
    machine.apply(vec![create(1), command(1, 1, &[put])]);
    machine
}

#[test]
fn query_reads_and_every_write_or_effect_is_refused() {
    // FAULTS 57
    let machine = in_use();
    let mut context = context(&machine, Access::Reads);
    assert_eq!(context.get(b"k").unwrap().unwrap()[..], b"v"[..]);
    let mut keys = 0;
    let count = &mut |_: &[u8], _: &_| {
        keys += 1;
        Visit::More
    };
    context.scan(b"", None, Order::Descending, count).unwrap();
    assert_eq!(keys, machine.data().len());
    let not_allowed = CallError::Trap(Trap::NotAllowed);
    assert_eq!(context.put(b"k", b"w"), Err(not_allowed.clone()));
    assert_eq!(context.delete(b"k"), Err(not_allowed.clone()));
    assert_eq!(context.delete_range(b"", None, 0), Err(not_allowed.clone()));
    assert_eq!(context.emit(&[3]), Err(not_allowed));
    assert_eq!(context.writes().count() + context.effects().len(), 0);
}

#[test]
fn conversion_of_payloads_has_no_store() {
    let context = Context::default();
    assert_eq!(context.get(b"k"), Err(CallError::Trap(Trap::NotAllowed)));
}

#[test]
fn operation_sees_its_own_writes_and_deletes_a_range_in_order() {
    let machine = in_use();
    let mut context = context(&machine, Access::Writes);
    for key in [b"a", b"b", b"c", b"d"] {
        context.put(key, b"1").unwrap();
    }
    assert_eq!(context.delete_range(b"a", Some(b"d"), 2).unwrap(), 2);
    assert_eq!(context.delete_range(b"a", Some(b"d"), 2).unwrap(), 1);
    assert_eq!(
        context.delete_range(b"d", Some(b"a"), 2).unwrap(),
        0,
        "inverted"
    );
    assert_eq!(context.get(b"c").unwrap(), None);
    assert!(context.get(b"d").unwrap().is_some() && context.get(b"k").unwrap().is_some());
    context.emit(b"\x03timer").unwrap();
    context.roll_back();
    assert_eq!(context.get(b"d").unwrap(), None);
    assert_eq!(context.effects(), []);
    assert_eq!(context.written_bytes() + context.effect_bytes(), 0);
}

#[test]
fn effect_that_cannot_be_decoded_is_a_bad_argument() {
    let machine = in_use();
    let request = [&[1, 2, 0, 0, 0][..], &[7; 31]].concat();
    let timer = [&[2; 9][..], &[9, 0, 0, 0], b"short"].concat();
    let close = [4; 16];
    for effect in [
        &[][..],
        &[0],
        &[5],
        &[1, 255, 255, 255, 255],
        &request,
        &timer,
        &close,
    ] {
        let mut context = context(&machine, Access::Writes);
        let bad = CallError::Trap(Trap::BadArgument);
        assert_eq!(context.emit(effect), Err(bad), "{effect:?}");
    }
}

#[test]
fn query_is_told_the_time_and_index_of_what_it_reads() {
    let machine = in_use();
    let queried = Queried::of(&*machine.state, machine.index);
    let queried = queried.unwrap().unwrap();
    assert_eq!(queried.module, Machine::first_module().hash());
    let input = queried.input(Some(id(1)), b"payload");
    let (header, payload) = input.split_at(HEADER_BYTES);
    assert_eq!(payload, b"payload");
    assert_eq!(header[..8], Machine::time_us(machine.index).to_le_bytes());
    assert_eq!(header[8..16], machine.index.to_le_bytes());
    assert_eq!(header[16..36], [0; 20], "position and seed");
    assert_eq!(header[36..54], [&[1; 16][..], &[1, tag::QUERY]].concat());
    assert_eq!(header[54..], [0; 8]);
    let empty = Machine::empty();
    assert!(Queried::of(&*empty.state, 0).unwrap().is_none());
}

#[test]
fn node_that_starts_loads_the_module_in_force() {
    let machine = in_use();
    let hash = Machine::first_module().hash();
    machine.modules.unload();
    let manifest = query::load_active(&*machine.state, &machine.modules).unwrap();
    assert_eq!(manifest, Some(Machine::first_module().manifest));
    assert!(machine.modules.is_loaded(hash));
    let unknown = Code::new("9.9.9", 1).hash();
    let fault = query::load_module(&*machine.state, &machine.modules, unknown).unwrap_err();
    assert!(fault.message.contains("module-incomplete"), "{fault}");
}

#[test]
fn node_does_not_start_over_a_state_of_a_newer_level() {
    let mut machine = in_use();
    let levels = Levels { core: 1, engine: 4 };
    let state = Arc::make_mut(&mut machine.state);
    state
        .0
        .insert(keys::LEVELS.to_vec(), levels.to_bytes().into());
    let fault = query::load_active(&*machine.state, &machine.modules).unwrap_err();
    assert!(fault.message.contains("engine level 4"), "{fault}");
    assert!(fault.message.contains("needs a newer one"), "{fault}");
}

#[test]
fn damaged_record_is_a_fault_and_never_an_answer() {
    let mut machine = in_use();
    let progress = quorate_core::keys::progress(id(1));
    let state = Arc::make_mut(&mut machine.state);
    state.0.insert(progress, [9; 3].as_slice().into());
    assert!(query::session(&*machine.state, id(1)).is_err());
    let base: Arc<dyn quorate_core::state::Read> = machine.state.clone();
    let entry = quorate_core::entry::Entry {
        time_us: 1,
        seed: [0; 16],
        operations: vec![command(1, 2, &[])],
    };
    let applied = quorate_core::apply::apply(&base, &machine.modules, 9, &entry.encode());
    assert!(applied.unwrap_err().message.contains("cannot be decoded"));
}
