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
/// Most files of a [`FileCache`], and most bytes of them together; beyond, those that were not used for
/// longest are removed.
const FILES_MAX: usize = 32;
const FILES_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"QRTCODE1";
const SEAL_BYTES: usize = MAGIC.len() + 64 + 32;

/// Names what compiles: a level, wasmtime's version and settings, and what it compiles for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineKey([u8; 32]);

impl EngineKey {
    /// The level is part of it besides wasmtime's own hash, since wasmtime loads code that was
    /// compiled with other settings of NaN and stack.
    pub(crate) fn new(engine: &wasmtime::Engine, role: &'static str) -> Self {
        let mut hasher = KeyHasher(blake3::Hasher::new());
        (config::LEVEL, role).hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(*hasher.0.finalize().as_bytes())
    }
}

impl fmt::Display for EngineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Names compiled code: by which engine, of which module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeKey {
    engine: EngineKey,
    module: ModuleHash,
}

impl CodeKey {
    /// The key of `module` compiled by `engine`.
    pub(crate) fn new(engine: EngineKey, module: ModuleHash) -> Self {
        Self { engine, module }
    }

    /// What compiled it.
    pub fn engine(self) -> EngineKey {
        self.engine
    }

    /// The key's 64 bytes.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.engine.0);
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

    /// Drops the code that none of `engines` compiled: this process will never ask for it. A cache that
    /// does not outlive its engines keeps what it has.
    ///
    /// # Errors
    /// Whatever keeps it from being removed.
    fn retain(&self, engines: &[EngineKey]) -> io::Result<()> {
        let _ = engines;
        Ok(())
    }
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
            if has_extension(&path, "new") {
                remove(&path)?;
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

    /// The files of compiled code, those first that were not used for longest.
    fn files(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if has_extension(&path, "code") {
                match fs::metadata(&path) {
                    Ok(data) => files.push((data.modified()?, data.len(), path)),
                    // Removed by another thread that makes room.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        files.sort();
        Ok(files)
    }

    fn remove_oldest(&self, bytes_max: u64) -> io::Result<()> {
        let files = self.files()?;
        let mut count = files.len();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, length, path) in files {
            if count <= FILES_MAX && (bytes <= bytes_max || count == 1) {
                break;
            }
            remove(&path)?;
            count -= 1;
            bytes -= length;
        }
        Ok(())
    }
}

impl CodeCache for FileCache {
    fn get(&self, key: CodeKey) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Says when it was last used; where the file cannot be changed it only goes sooner.
        let _ = file.set_modified(SystemTime::now());
        let mut bytes = Vec::new();
        file.take(CODE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// No fsync: a file that a crash tore is found by its seal.
    fn put(&self, key: CodeKey, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > CODE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} bytes, at most {CODE_BYTES_MAX} are kept", bytes.len()),
            ));
        }
        let path = self.path(key);
        // Damage may leave something that a file cannot take the place of.
        if path.is_dir() {
            remove(&path)?;
        }
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .folder
            .join(format!("{}-{number}.new", std::process::id()));
        let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
        if let Err(error) = written {
            // Half a file is of no use, and the disk may be full.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.remove_oldest(FILES_BYTES_MAX)
    }

    fn retain(&self, engines: &[EngineKey]) -> io::Result<()> {
        let ours: Vec<String> = engines.iter().map(EngineKey::to_string).collect();
        for (_, _, path) in self.files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !ours.iter().any(|engine| name.starts_with(engine)) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension()
        .is_some_and(|extension| extension == wanted)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    if let Err(error) = &removed
        && error.kind() == io::ErrorKind::NotFound
    {
        return Ok(());
    }
    removed.map_err(|error| {
        let text = format!("remove {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
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
            engine: EngineKey([1; 32]),
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

    /// Bytes are bounded too, but the newest stays however large it is.
    #[test]
    fn files_not_used_for_longest_make_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = FileCache::open(folder.path()).expect("a cache");
        let start = SystemTime::UNIX_EPOCH;
        for number in 1..=3 {
            cache.put(key(number), &[number; 100]).expect("a write");
            let file = File::options().write(true).open(cache.path(key(number)));
            let at = start + std::time::Duration::from_secs(number.into());
            file.expect("a file").set_modified(at).expect("a time");
        }
        // Used: the second one is now older.
        assert!(cache.get(key(1)).expect("a read").is_some());
        cache.remove_oldest(250).expect("a removal");
        let is_there = |number| cache.path(key(number)).exists();
        assert_eq!([1, 2, 3].map(is_there), [true, false, true]);
        cache.remove_oldest(50).expect("a removal");
        assert_eq!([1, 2, 3].map(is_there), [true, false, false]);
    }

    #[test]
    fn code_of_other_engines_goes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = FileCache::open(folder.path()).expect("a cache");
        let other = CodeKey {
            engine: EngineKey([2; 32]),
            ..key(1)
        };
        cache.put(key(1), b"code").expect("a write");
        cache.put(other, b"code").expect("a write");
        cache
            .retain(&[EngineKey([1; 32]), EngineKey([3; 32])])
            .expect("a removal");
        assert!(cache.get(key(1)).expect("a read").is_some());
        assert_eq!(cache.get(other).expect("a read"), None);
    }

    /// Whatever stands in the way of a file goes, and no half of one stays.
    #[test]
    fn folders_in_the_place_of_files_are_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("1-0.new")).expect("a folder");
        let cache = FileCache::open(folder.path()).expect("a cache");
        let path = cache.path(key(1));
        fs::create_dir_all(path.join("within")).expect("a folder");
        assert!(cache.get(key(1)).is_err());
        cache.put(key(1), b"code").expect("a write");
        assert_eq!(cache.get(key(1)).expect("a read"), Some(b"code".to_vec()));
        assert_eq!(fs::read_dir(folder.path()).expect("a list").count(), 1);
    }

    #[test]
    fn failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("code");
        let cache = FileCache::open(&path).expect("a cache");
        fs::remove_dir(&path).expect("it is empty");
        fs::write(&path, b"a file").expect("a write");
        assert!(cache.get(key(1)).is_err() && cache.put(key(1), b"code").is_err());
        assert!(FileCache::open(&path).is_err());
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
