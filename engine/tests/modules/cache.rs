//! Compiled code between runs: used when whole, compiled again otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, mpsc};

use quorate_core::module::{Export, ModuleLimits, Modules as _};
use quorate_engine::{CodeCache, CodeKey, Config, Engine, EngineKey, FileCache};

use crate::common::{FUEL, apply, assemble, hash, load, pair, response, writes};

#[derive(Debug, Default, Clone)]
struct Shared(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    kept: BTreeMap<CodeKey, Vec<u8>>,
    puts: usize,
    is_broken: bool,
}

impl CodeCache for Shared {
    fn get(&self, key: CodeKey) -> io::Result<Option<Vec<u8>>> {
        let contents = self.0.lock().unwrap();
        if contents.is_broken {
            return Err(io::Error::other("broken"));
        }
        Ok(contents.kept.get(&key).cloned())
    }

    fn put(&self, key: CodeKey, bytes: &[u8]) -> io::Result<()> {
        let mut contents = self.0.lock().unwrap();
        contents.puts += 1;
        if contents.is_broken {
            return Err(io::Error::other("broken"));
        }
        contents.kept.insert(key, bytes.to_vec());
        Ok(())
    }

    fn retain(&self, engines: &[EngineKey]) -> io::Result<()> {
        let mut contents = self.0.lock().unwrap();
        if contents.is_broken {
            return Err(io::Error::other("broken"));
        }
        contents
            .kept
            .retain(|key, _| engines.contains(&key.engine()));
        Ok(())
    }
}

fn wat(response: u8) -> String {
    apply(&format!(
        "(i32.store8 (i32.const 65) (i32.const {response})) {}",
        pair(64, 2)
    ))
}

/// Loads the module in a new engine over `cache`, as after a restart; its response.
fn restart(cache: &Shared, wat: &str) -> u8 {
    let engine = Engine::new(Config::default())
        .unwrap()
        .with_cache(cache.clone());
    let hash = load(&engine, wat);
    let mut instance = engine.instantiate(hash, &ModuleLimits::default()).unwrap();
    let ran = instance
        .call(Export::Apply, b"", FUEL, &mut writes())
        .unwrap();
    response(&ran)[0]
}

fn puts(cache: &Shared) -> usize {
    cache.0.lock().unwrap().puts
}

#[test]
fn whole_code_is_used_again() {
    let cache = Shared::default();
    assert_eq!(restart(&cache, &wat(1)), 1);
    assert_eq!(puts(&cache), 1);
    assert_eq!(restart(&cache, &wat(1)), 1);
    assert_eq!(puts(&cache), 1, "compiled once");
}

#[test]
fn damaged_code_is_compiled_again_wherever_the_damage_is() {
    let cache = Shared::default();
    restart(&cache, &wat(1));
    let whole = cache
        .0
        .lock()
        .unwrap()
        .kept
        .values()
        .next()
        .unwrap()
        .clone();
    let last = whole.len() - 1;
    for index in [0, 8, 40, 72, 104, last / 2, last] {
        for value in cache.0.lock().unwrap().kept.values_mut() {
            value[index] ^= 1;
        }
        let before = puts(&cache);
        assert_eq!(restart(&cache, &wat(1)), 1);
        assert_eq!(puts(&cache), before + 1, "damage at {index}");
    }
    for length in [0, 7, 103, 104, last] {
        for value in cache.0.lock().unwrap().kept.values_mut() {
            value.truncate(length);
        }
        let before = puts(&cache);
        assert_eq!(restart(&cache, &wat(1)), 1);
        assert_eq!(puts(&cache), before + 1, "cut to {length}");
    }
}

#[test]
fn code_of_another_module_is_not_used() {
    let cache = Shared::default();
    restart(&cache, &wat(1));
    restart(&cache, &wat(2));
    {
        let mut contents = cache.0.lock().unwrap();
        let values: Vec<_> = contents.kept.values().cloned().rev().collect();
        for (kept, other) in contents.kept.values_mut().zip(values) {
            *kept = other;
        }
    }
    assert_eq!(restart(&cache, &wat(1)), 1);
    assert_eq!(restart(&cache, &wat(2)), 2);
    assert_eq!(puts(&cache), 4);
}

#[test]
fn broken_cache_is_no_fault() {
    let cache = Shared::default();
    cache.0.lock().unwrap().is_broken = true;
    assert_eq!(restart(&cache, &wat(1)), 1);
}

#[test]
fn file_cache_keeps_files_and_clears_what_was_left_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("code");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("1-0.new"), b"half").unwrap();
    let start = || {
        let cache = FileCache::open(&path).unwrap();
        let engine = Engine::new(Config::default()).unwrap().with_cache(cache);
        load(&engine, &wat(1));
        let names = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        names.collect::<Vec<_>>()
    };
    let names = start();
    assert_eq!(names.len(), 1, "{names:?}");
    let file = || fs::metadata(&names[0]).unwrap().ino();
    let written = file();
    assert_eq!(start(), names);
    assert_eq!(file(), written, "not written again");
}

/// FAULTS 68, 69: what a node's folder holds, flipped or cut anywhere, is never used: it is compiled
/// again, and the file is whole again.
#[test]
fn damaged_file_is_compiled_again_whatever_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FileCache::open(folder.path()).unwrap();
    // One module in memory: to load the other one drops it.
    let config = Config {
        modules_max: 1,
        ..Config::default()
    };
    let engine = Engine::new(config).unwrap().with_cache(cache);
    let answer = |wat: &str, expected: u8| {
        let hash = load(&engine, wat);
        let mut instance = engine.instantiate(hash, &ModuleLimits::default()).unwrap();
        let ran = instance
            .call(Export::Apply, b"", FUEL, &mut writes())
            .unwrap();
        assert_eq!(response(&ran)[0], expected);
    };
    answer(&wat(1), 1);
    let entry = fs::read_dir(folder.path()).unwrap().next().unwrap();
    let path = entry.unwrap().path();
    let whole = fs::read(&path).unwrap();
    let bits = whole.len() * 8;
    let judge = |damaged: &[u8], what: &str| {
        answer(&wat(2), 2);
        fs::write(&path, damaged).unwrap();
        answer(&wat(1), 1);
        assert!(
            fs::read(&path).unwrap() == whole,
            "{what}: not compiled again"
        );
    };
    for flip in 0..600 {
        // The seal densely, the code all over.
        let bit = if flip < 200 {
            flip * 5 + flip % 5
        } else {
            flip * 99_991 % bits
        };
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        judge(&damaged, &format!("bit {bit}"));
    }
    for cut in 0..500 {
        let length = if cut < 110 {
            cut
        } else {
            whole.len() - 1 - cut * 7_919 % (whole.len() - 110)
        };
        judge(&whole[..length], &format!("cut to {length}"));
    }
}

#[test]
fn least_used_module_leaves_memory() {
    let config = Config {
        modules_max: 2,
        ..Config::default()
    };
    let engine = Engine::new(config).unwrap();
    let first = load(&engine, &wat(1));
    let second = load(&engine, &wat(2));
    engine.instantiate(first, &ModuleLimits::default()).unwrap();
    let third = load(&engine, &wat(3));
    let loaded = [first, second, third].map(|hash| engine.is_loaded(hash));
    assert_eq!(loaded, [true, false, true]);
    assert!(
        engine
            .instantiate(second, &ModuleLimits::default())
            .is_err()
    );
}

/// A cache on a disk that does not answer the first question.
#[derive(Debug)]
struct Stuck {
    asked: Mutex<Option<mpsc::Sender<()>>>,
    answers: Mutex<mpsc::Receiver<()>>,
}

impl CodeCache for Stuck {
    fn get(&self, _: CodeKey) -> io::Result<Option<Vec<u8>>> {
        let first = self.asked.lock().unwrap().take();
        if let Some(asked) = first {
            asked.send(()).unwrap();
            self.answers.lock().unwrap().recv().unwrap();
        }
        Ok(None)
    }

    fn put(&self, _: CodeKey, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nobody_waits_for_what_is_loaded_ahead() {
    let (asked, ask) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let cache = Stuck {
        asked: Mutex::new(Some(asked)),
        answers: Mutex::new(answers),
    };
    let engine = Engine::new(Config::default()).unwrap().with_cache(cache);
    let ahead = assemble(&wat(1));
    std::thread::scope(|scope| {
        // A failure ends the wait.
        let answer = answer;
        let slow =
            scope.spawn(|| engine.load_ahead(hash(&ahead), &ahead, &ModuleLimits::default()));
        ask.recv().unwrap();
        // Another module, that one again under other limits, and the very one that is under way.
        let other = load(&engine, &wat(2));
        let limits = ModuleLimits {
            module_bytes_max: 1 << 20,
            ..ModuleLimits::default()
        };
        let code = assemble(&wat(2));
        assert!(engine.load(other, &code, &limits).unwrap().is_ok());
        let hash = load(&engine, &wat(1));
        assert!(engine.is_loaded(hash));
        answer.send(()).unwrap();
        assert!(slow.join().unwrap().unwrap().is_ok());
        assert!(engine.is_loaded(hash) && engine.is_loaded(other));
    });
}
