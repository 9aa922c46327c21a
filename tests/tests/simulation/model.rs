//! What the module does, natively: the reference that answers are compared with.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a command does, as the module's `Action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Add(u64),
    Put(u32, u64),
    Swap(u32, u64, u64),
    Subscribe,
    Broadcast,
    Timer(u64),
    Trap,
    Fail,
    Fill(u32),
}

/// What is read, as the module's `Query`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    Total,
    Register(u32),
}

impl Action {
    /// The command of this number.
    pub fn encode(self, number: u64) -> Vec<u8> {
        let action = match self {
            Self::Add(amount) => json!({"add": amount}),
            Self::Put(register, value) => json!({"put": [register, value]}),
            Self::Swap(register, expected, value) => json!({"swap": [register, expected, value]}),
            Self::Subscribe => json!("subscribe"),
            Self::Broadcast => json!("broadcast"),
            Self::Timer(in_ms) => json!({"timer": in_ms}),
            Self::Trap => json!("trap"),
            Self::Fail => json!("fail"),
            Self::Fill(bytes) => json!({"fill": bytes}),
        };
        encode(&json!({"number": number, "action": action}))
    }

    /// For coverage.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Put(..) => "put",
            Self::Swap(..) => "swap",
            Self::Subscribe => "subscribe",
            Self::Broadcast => "broadcast",
            Self::Timer(_) => "timer",
            Self::Trap => "trap",
            Self::Fail => "fail",
            Self::Fill(_) => "fill",
        }
    }

    /// Whether it writes nothing, whatever it tries.
    pub fn is_refused(self) -> bool {
        matches!(self, Self::Trap | Self::Fail)
    }
}

impl Query {
    pub fn encode(self) -> Vec<u8> {
        encode(&match self {
            Self::Total => json!("total"),
            Self::Register(register) => json!({"register": register}),
        })
    }
}

fn encode(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON is encodable")
}

/// The module's state, as far as clients see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    total: u64,
    registers: BTreeMap<u32, u64>,
    broadcasts: u64,
}

impl Model {
    /// Executes a command and returns its response, where that depends on the state only.
    pub fn execute(&mut self, number: u64, action: Action) -> Option<u64> {
        match action {
            Action::Add(amount) => {
                self.total += amount;
                Some(self.total)
            }
            Action::Put(register, value) => {
                Some(self.registers.insert(register, value).unwrap_or(0))
            }
            Action::Swap(register, expected, value) => {
                let held = self.registers.entry(register).or_insert(0);
                let before = *held;
                if before == expected {
                    *held = value;
                }
                Some(before)
            }
            Action::Subscribe => Some(self.broadcasts),
            Action::Broadcast => {
                self.broadcasts += 1;
                Some(self.broadcasts)
            }
            Action::Fill(_) => Some(number),
            Action::Timer(_) | Action::Trap | Action::Fail => None,
        }
    }

    /// Answers a query.
    pub fn read(&self, query: Query) -> u64 {
        match query {
            Query::Total => self.total,
            Query::Register(register) => self.registers.get(&register).copied().unwrap_or(0),
        }
    }
}
