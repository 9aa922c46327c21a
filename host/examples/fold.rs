//! Measures the state store on a real disk: commits, views, reads, folds, a snapshot.
//!
//! `cargo run --release -p quorate-host --example fold -- [KEYS] [ENTRIES] [PUTS_PER_ENTRY]`

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use quorate_host::drive::Driver;
use quorate_host::store::file_disk::FileDisk;
use quorate_host::store::state::{Options, StateStore};
use quorate_host::store::{BoxFuture, Identity, LogDurability, LogPosition};

/// A log without a disk.
#[derive(Debug)]
struct NoLog;

impl LogDurability for NoLog {
    fn newest_sequence(&self) -> u64 {
        0
    }

    fn wait_durable(&self, _sequence: u64) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Spreads numbers over all keys.
fn key(number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes().repeat(2)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut number = |default| numbers.next().unwrap_or(Ok(default));
    let (keys, entries, puts) = (number(1_000_000)?, number(2_000)?, number(100)?);
    let directory = tempfile::tempdir()?;
    let disk = Arc::new(FileDisk::open(directory.path())?);
    let driver = Driver::node()?;
    let identity = Identity {
        cluster: [1; 16],
        node: 1,
        incarnation: [1; 16],
    };
    let options = Options::default();
    let store = StateStore::open(disk, driver.clone(), Arc::new(NoLog), identity, options)?;
    let value: Arc<[u8]> = vec![7; 128].into();
    let entry = |first: u64| -> BTreeMap<_, _> {
        let numbers = (0..puts).map(|put| (first.wrapping_mul(puts) + put) % keys);
        let write = |number| (key(number), Some(value.clone()));
        numbers.map(write).collect()
    };
    for (name, count) in [("fill", keys.div_ceil(puts)), ("overwrite", entries)] {
        let started = driver.now();
        let mut in_commit = std::time::Duration::ZERO;
        for index in 0..count {
            store.room().await?;
            let writes = entry(index);
            let position = LogPosition { term: 1, index };
            let before = driver.now();
            store.commit(position, writes, None);
            in_commit += driver.now() - before;
        }
        let applied = driver.now() - started;
        store.fold().await?;
        let folded = driver.now() - started;
        let per_put = folded.as_nanos() / u128::from(count * puts);
        let commit = in_commit.as_nanos() / u128::from(count * puts);
        println!("{name}: {count} entries applied in {applied:?}, durable in {folded:?}");
        println!("  {per_put} ns per put, {commit} ns of it in commit");
    }
    let started = driver.now();
    for _ in 0..1_000_000 {
        std::hint::black_box(store.view());
    }
    println!(
        "view: {} ns",
        (driver.now() - started).as_nanos() / 1_000_000
    );
    let view = store.view();
    let started = driver.now();
    for number in 0..100_000 {
        view.get(&key(number * 7919 % keys))?;
    }
    println!(
        "get from the file: {} ns",
        (driver.now() - started).as_nanos() / 100_000
    );
    let started = driver.now();
    let snapshot = store
        .build_snapshot()
        .await?
        .context("nothing was applied")?;
    let reader = snapshot.open().await?;
    let mut receiver = store.receive().await?;
    for number in 0..reader.chunks() {
        let chunk = reader.chunk(number).await?.context("a chunk is missing")?;
        receiver.accept(number, chunk).await?;
    }
    println!(
        "snapshot of {} bytes spooled and sent in {:?}",
        reader.bytes(),
        driver.now() - started
    );
    reader.finish();
    let started = driver.now();
    let received = receiver.finish().await?;
    println!("checked and built in {:?}", driver.now() - started);
    let started = driver.now();
    store.install(received).await?;
    println!("installed in {:?}", driver.now() - started);
    store.close().await;
    Ok(())
}
