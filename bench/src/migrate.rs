//! Migrating alone: keys per second of a module's migration, in one entry and in steps.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use quorate_core::entry::{Operation, Sequence};
use quorate_core::module::{ModuleHash, ModuleLimits};
use quorate_core::result::{OperationResult, Response};
use quorate_protocol::{CreationKey, Generation, RequestId, SessionId};

use crate::machine::{Kind, Machine, name};

const SOURCE: &str = include_str!("migrate.wat");

/// Bytes of a key.
const KEY_BYTES: usize = 16;
/// Most bytes of a value: what a scan of the module has room for holds thousands of them.
const VALUE_BYTES_MAX: u32 = 1 << 10;
/// Bytes of keys and values that one command of the filling sets.
const FILL_BYTES: usize = 512 << 10;
/// The session that fills.
const SESSION: SessionId = SessionId([1; 16]);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keys that are migrated; a measurement for each
    #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
    keys: Vec<u64>,
    /// Keys that one step of a migration in steps rewrites; a measurement for each
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    step_keys: Vec<u32>,
    /// Bytes of a value
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=i64::from(VALUE_BYTES_MAX)))]
    value_bytes: u32,
    /// What a migration does with a key
    #[arg(long, value_enum, value_delimiter = ',', default_value = "value,key")]
    rewrite: Vec<Rewrite>,
    /// What holds the state
    #[arg(long, value_enum, value_delimiter = ',', default_value = "map,store")]
    state: Vec<Kind>,
    /// Times that each is measured, each over a state of its own
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rewrite {
    /// Puts another value under it
    Value,
    /// Deletes it, and puts the value under another key
    Key,
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy)]
struct Case {
    kind: Kind,
    rewrite: Rewrite,
    keys: u64,
    value_bytes: u32,
    /// Keys that one entry rewrites; `None`: all of them.
    step_keys: Option<u32>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "keys of {KEY_BYTES} B, values of {} B; medians of {} runs (keys/s also least and most)",
        arguments.value_bytes, arguments.runs
    );
    println!(
        "{:<7}{:<7}{:>9}{:>10}{:>9}{:>10}{:>20}{:>10}{:>12}{:>10}{:>9}",
        "rewrite",
        " state",
        "keys",
        "step keys",
        "entries",
        "keys/s",
        "least to most",
        "ms",
        "longest ms",
        "fuel/key",
        "undo ms"
    );
    for &rewrite in &arguments.rewrite {
        let most = most_keys(rewrite, arguments.value_bytes).await?;
        for &kind in &arguments.state {
            let case = |keys, step_keys| Case {
                kind,
                rewrite,
                keys,
                value_bytes: arguments.value_bytes,
                step_keys,
            };
            let fitting = arguments.keys.iter().filter(|keys| **keys < most);
            for keys in fitting.chain([&most]) {
                case(*keys, None).measure(arguments.runs).await?;
            }
            let Some(keys) = arguments.keys.iter().max() else {
                continue;
            };
            for step_keys in &arguments.step_keys {
                let stepped = case(*keys, Some(*step_keys));
                stepped.measure(arguments.runs).await?;
            }
        }
    }
    Ok(())
}

/// About how many keys a migration in one entry may have under the default limits, judged by one of
/// 1000.
async fn most_keys(rewrite: Rewrite, value_bytes: u32) -> Result<u64> {
    let keys = 1000;
    let trial = Case {
        kind: Kind::Map,
        rewrite,
        keys,
        value_bytes,
        step_keys: None,
    };
    let limits = ModuleLimits::default();
    let by_fuel = limits.fuel_per_command * keys / trial.once().await?.fuel;
    let deleted = match rewrite {
        Rewrite::Value => 0,
        Rewrite::Key => KEY_BYTES,
    };
    let by_writes = limits.write_bytes_max / (trial.record_bytes() + deleted) as u64;
    println!(
        "one entry may rewrite {by_writes} keys by the bytes it writes, {by_fuel} by its fuel"
    );
    // The first scan and the last cost some fuel besides.
    Ok(by_writes.min(by_fuel - by_fuel / 1000))
}

/// What one migration took.
struct Measured {
    /// Until the new module is in force: commands wait so long.
    took: Duration,
    /// The longest of its entries.
    longest: Duration,
    entries: u32,
    fuel: u64,
    /// Dropping the undo table afterwards, beside which commands are executed.
    clearing: Duration,
}

impl Case {
    async fn measure(self, runs: usize) -> Result<()> {
        let mut all = Vec::new();
        for _ in 0..runs.max(1) {
            all.push(self.once().await?);
        }
        all.sort_unstable_by_key(|measured| measured.took);
        let per_second = |measured: &Measured| self.keys as f64 / measured.took.as_secs_f64();
        let (least, most) = (&all[all.len() - 1], &all[0]);
        let median = &all[all.len() / 2];
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        println!(
            "{:<8}{:<6}{:>9}{:>10}{:>9}{:>10.0}{:>20}{:>10.0}{:>12.1}{:>10.0}{:>9.0}",
            name(self.rewrite),
            name(self.kind),
            self.keys,
            self.step_keys
                .map_or_else(|| "all".to_owned(), |keys| keys.to_string()),
            median.entries,
            per_second(median),
            format!("{:.0} to {:.0}", per_second(least), per_second(most)),
            ms(median.took),
            ms(median.longest),
            median.fuel as f64 / self.keys as f64,
            ms(median.clearing),
        );
        Ok(())
    }

    fn record_bytes(&self) -> usize {
        KEY_BYTES + self.value_bytes as usize
    }

    /// Fills a state of its own and migrates it.
    async fn once(self) -> Result<Measured> {
        let mut machine = Machine::new(self.kind)?;
        let first = machine.begin(&self.module(1)?)?;
        self.fill(&mut machine).await?;
        let second = machine.store_module(&self.module(2)?)?;
        let measured = self.migrate(&mut machine, first, second).await;
        machine.close().await;
        measured
    }

    async fn fill(&self, machine: &mut Machine) -> Result<()> {
        machine.apply_now(vec![Operation::CreateSession {
            session: SESSION,
            creation_key: CreationKey([0; 16]),
            secret_hash: [0; 32],
            timeout_ms: 0,
            sequence: Sequence::Consecutive,
            capabilities: [].into(),
        }])?;
        let at_once = (FILL_BYTES / self.record_bytes()) as u64;
        let (mut next, mut request) = (0, 0);
        while next < self.keys {
            let until = (next + at_once).min(self.keys);
            request += 1;
            let command = Operation::Command {
                session: SESSION,
                generation: Generation(1),
                request: RequestId(request),
                lowest_pending: RequestId(request),
                payload: self.records(next, until),
            };
            let applied = machine.apply_now(vec![command])?;
            match applied.results.as_slice() {
                [
                    OperationResult::Responded {
                        response: Response::Success(_),
                        ..
                    },
                ] => {}
                other => bail!("filling: {other:?}"),
            }
            machine.room().await?;
            next = until;
        }
        Ok(())
    }

    /// Key and value of each number from `next` on.
    fn records(&self, next: u64, until: u64) -> Vec<u8> {
        let mut records = Vec::with_capacity(FILL_BYTES);
        for number in next..until {
            let width = KEY_BYTES - 1;
            records.extend_from_slice(format!("a{number:0width$}").as_bytes());
            records.resize(records.len() + self.value_bytes as usize, b'v');
        }
        records
    }

    async fn migrate(
        &self,
        machine: &mut Machine,
        first: ModuleHash,
        second: ModuleHash,
    ) -> Result<Measured> {
        let mut measured = Measured {
            took: Duration::ZERO,
            longest: Duration::ZERO,
            entries: 0,
            fuel: 0,
            clearing: Duration::ZERO,
        };
        let activate = Operation::Activate {
            expected: Some(first),
            hash: second,
            argument: self.step_keys.unwrap_or(u32::MAX).to_le_bytes().to_vec(),
        };
        let mut operation = Some(activate);
        let mut is_in_force = false;
        while let Some(next) = operation.take() {
            let began = Instant::now();
            let applied = machine.apply_now(vec![next])?;
            let applying = began.elapsed();
            // The layers' cap is part of how fast a node can be.
            machine.room().await?;
            let took = began.elapsed();
            if is_in_force {
                measured.clearing += took;
            } else {
                measured.took += took;
                measured.longest = measured.longest.max(applying);
                measured.entries += 1;
                measured.fuel += applied.stats.fuel;
            }
            match applied.results.as_slice() {
                [OperationResult::Stepped { .. }] => {}
                [OperationResult::Activated { hash }] if *hash == second => is_in_force = true,
                other => bail!("a step of the migration: {other:?}"),
            }
            operation = applied
                .migration_step
                .map(|number| Operation::MigrationStep { number });
        }
        ensure!(
            is_in_force,
            "the migration ended before its module was in force"
        );
        Ok(measured)
    }

    /// A version of the module that keeps the records.
    fn module(&self, version: u32) -> Result<Vec<u8>> {
        let migrates_from = match version {
            1 => "",
            _ => "1",
        };
        let manifest = format!(
            r#"{{"name":"records","version":"{version}.0.0","abi":1,"state-version":{version},"migrates-from":[{migrates_from}],"codec":"raw"}}"#
        );
        let rewrite = match self.rewrite {
            Rewrite::Value => "(i32.store8 (local.get $value) (i32.const 119))",
            Rewrite::Key => {
                "(call $delete (local.get $key) (i32.const {KEY})) \
                 (i32.store8 (local.get $key) (i32.const 98))"
            }
        };
        let numbers = [
            ("{KEY}", KEY_BYTES),
            ("{VALUE}", self.value_bytes as usize),
            ("{RECORD}", self.record_bytes()),
            ("{SCANNED}", 8 + self.record_bytes()),
            ("{KEY_AND_ZERO}", KEY_BYTES + 1),
            ("{AFTER}", 1024 + KEY_BYTES),
        ];
        let mut source = SOURCE
            .replace("{MANIFEST}", &manifest.replace('"', "\\\""))
            .replace("{REWRITE}", rewrite);
        for (place, number) in numbers {
            source = source.replace(place, &number.to_string());
        }
        wat::parse_str(source).context("the module's text")
    }
}
