//! Compiled code kept between runs of the process, since compiling takes seconds.
//!
//! A cache holds bytes under a key and may lose or damage them: what it returns is used only if its
//! seal is whole and names the key. The seal finds damage and mix-ups, not malice: who can write to
//! the cache can run code in the process, so it belongs where the node's binary and data are safe.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use quorate_core::module::ModuleHash;

use crate::config;

/// Largest compiled module that is kept, in bytes; a larger one is compiled at each start.
pub const CODE_BYTES_MAX: u64 = 512 << 20;
/// Most files of a [`FileCache`]; the oldest are removed beyond it.
const FILES_MAX: usize = 32;

const MAGIC: &[u8; 8] = b"QRTCODE1";
const SEAL_BYTES: usize = MAGIC.len() + 64 + 32;

/// Names compiled code: by which engine, of which module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeKey {
    engine: [u8; 32],
    module: ModuleHash,
}

impl CodeKey {
    /// The key of `module` compiled by `engine`.
    ///
    /// The level is part of it besides wasmtime's own hash, since wasmtime loads code that was
    /// compiled with other settings of NaN and stack.
    pub(crate) fn new(engine: &wasmtime::Engine, role: &'static str, module: ModuleHash) -> Self {
        let mut hasher = KeyHasher(blake3::Hasher::new());
        (config::LEVEL, role).hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self {
            engine: *hasher.0.finalize().as_bytes(),
            module,
        }
    }

    /// The key's 64 bytes.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.engine);
        bytes[32..].copy_from_slice(&self.module.0);
        bytes
    }
}

impl fmt::Display for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct KeyHasher(blake3::Hasher);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        let first = hash.as_bytes().first_chunk().expect("32 bytes hold 8");
        u64::from_le_bytes(*first)
    }
}

/// Keeps compiled code. An error is a miss: it is logged, and the code is compiled.
pub trait CodeCache: fmt::Debug + Send + Sync {
    /// What was last put under `key`, or what became of it.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn get(&self, key: CodeKey) -> io::Result<Option<Vec<u8>>>;

    /// Keeps `bytes` under `key`.
    ///
    /// # Errors
    /// Whatever keeps it from being written.
    fn put(&self, key: CodeKey, bytes: &[u8]) -> io::Result<()>;
}

/// A file for each compiled module, in one folder that belongs to it alone.
#[derive(Debug)]
pub struct FileCache {
    folder: PathBuf,
    written: AtomicU64,
}

impl FileCache {
    /// A cache in `folder`, which is made if it does not exist.
    ///
    /// # Errors
    /// If the folder cannot be made or listed.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            // Of a process that ended while it wrote.
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            folder,
            written: AtomicU64::new(0),
        })
    }

    fn path(&self, key: CodeKey) -> PathBuf {
        self.folder.join(format!("{key}.code"))
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "code")
            {
                files.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(FILES_MAX);
        files
            .drain(..surplus)
            .try_for_each(|(_, path)| fs::remove_file(path))
    }
}

impl CodeCache for FileCache {
    fn get(&self, key: CodeKey) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(CODE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// No fsync: a file that a crash tore is found by its seal.
    fn put(&self, key: CodeKey, bytes: &[u8]) -> io::Result<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .folder
            .join(format!("{}-{number}.new", std::process::id()));
        write_new(&temporary, bytes)?;
        fs::rename(&temporary, self.path(key))?;
        self.remove_oldest()
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}

/// `code` with a seal in front.
pub(crate) fn seal(key: CodeKey, code: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL_BYTES + code.len());
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(&key.to_bytes());
    sealed.extend_from_slice(checksum(key, code).as_bytes());
    sealed.extend_from_slice(code);
    sealed
}

/// What [`seal`] got, if `sealed` is that to the last bit and for this key.
pub(crate) fn unseal(key: CodeKey, sealed: &[u8]) -> Option<&[u8]> {
    let rest = sealed.strip_prefix(MAGIC.as_slice())?;
    let rest = rest.strip_prefix(key.to_bytes().as_slice())?;
    let (found, code) = rest.split_first_chunk::<32>()?;
    (*found == *checksum(key, code).as_bytes()).then_some(code)
}

fn checksum(key: CodeKey, code: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(MAGIC).update(&key.to_bytes()).update(code);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> CodeKey {
        CodeKey {
            engine: [1; 32],
            module: ModuleHash([number; 32]),
        }
    }

    #[test]
    fn seal_holds_for_its_key_and_bytes_only() {
        let sealed = seal(key(1), b"code");
        assert_eq!(unseal(key(1), &sealed), Some(&b"code"[..]));
        assert_eq!(unseal(key(2), &sealed), None);
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 0x10;
            assert_eq!(unseal(key(1), &damaged), None, "{index}");
            assert_eq!(unseal(key(1), &sealed[..index]), None, "{index}");
        }
    }

    #[test]
    fn oldest_files_go() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = FileCache::open(folder.path()).expect("a cache");
        let count = FILES_MAX as u8 + 3;
        for number in 0..count {
            cache.put(key(number), &[number]).expect("a write");
        }
        let left = fs::read_dir(folder.path()).expect("a list").count();
        assert_eq!(left, FILES_MAX);
        let newest = cache.get(key(count - 1)).expect("a read");
        assert_eq!(newest, Some(vec![count - 1]));
    }
}
