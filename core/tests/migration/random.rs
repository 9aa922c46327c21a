//! Random migrations in random histories: core agrees with the model after every entry, and a
//! migration that fails or is given up changes nothing.

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::entry::Operation;
use quorate_core::query;
use quorate_core::records::{MigrationDirection, NotActivated};
use quorate_core::result::OperationResult;

use super::{BOTH, Way, in_force, step};
use crate::model::Model;
use crate::properties::{Clients, Intent, any_history, any_intent, assert_agrees, by_model, tight};
use crate::support::memory;
use crate::support::script::any_migration_step;
use crate::support::*;

#[derive(Debug, Clone)]
enum End {
    Success,
    /// The step of this number, at least 1, fails.
    Failure(prop::sample::Index),
    /// Before the step of this number the module in force is activated.
    GivenUp(prop::sample::Index),
}

#[derive(Debug, Clone)]
struct Plan {
    direction: MigrationDirection,
    history: Vec<Vec<Intent>>,
    steps: Vec<Vec<Action>>,
    /// What others do after each step, also after the last ones.
    between: Vec<Vec<Intent>>,
    end: End,
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let end = prop_oneof![
        Just(End::Success),
        any::<prop::sample::Index>().prop_map(End::Failure),
        any::<prop::sample::Index>().prop_map(End::GivenUp),
    ];
    let between = vec(vec(any_intent(), 0..6), 12);
    let steps = vec(any_migration_step(), 2..5);
    let direction = prop::sample::select(&BOTH[..]);
    (direction, any_history(), steps, between, end).prop_map(
        |(direction, history, mut steps, between, end)| {
            if let End::Failure(at) = &end {
                let at = 1 + at.index(steps.len() - 1);
                steps[at].push(Action::Fail(7));
            }
            Plan {
                direction,
                history,
                steps,
                between,
                end,
            }
        },
    )
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    Success,
    Failure,
    GivenUp,
}

struct Both {
    machine: Machine,
    model: Model,
    clients: Clients,
}

impl Both {
    /// Before any history, with the module in force from which `way` leads.
    fn new(way: &Way) -> Self {
        let mut machine = Machine::with_limits(tight());
        way.prepare(&mut machine);
        let model = Model::new(tight(), machine.index);
        Self {
            machine,
            model,
            clients: Clients::default(),
        }
    }

    fn apply(&mut self, intents: &[Intent]) -> Result<(), TestCaseError> {
        self.model.begin_entry();
        let (mut operations, mut expected) = (Vec::new(), Vec::new());
        for intent in intents {
            let operation = self.clients.operation(&self.model, intent);
            expected.push(by_model(&mut self.model, &operation));
            operations.push(operation);
        }
        let applied = self.machine.apply(operations.clone());
        prop_assert_eq!(&applied.results, &expected, "of {:#?}", operations);
        assert_agrees(&self.machine, &self.model)
    }

    /// One entry that is core's alone.
    fn one(&mut self, operation: Operation) -> OperationResult {
        self.model.begin_entry();
        self.machine.one(operation)
    }

    fn migrate(&mut self, plan: &Plan, way: &Way) -> Result<Ended, TestCaseError> {
        self.model.begin_entry();
        self.machine.apply(chunks(&way.to));
        let began = self.one(activate(Some(&way.from), &way.to));
        match self.model.begin_migration(&script(&plan.steps[0])) {
            Ok(()) => prop_assert_eq!(began, OperationResult::Stepped { next: Some(1) }),
            Err(response) => {
                let failed = OperationResult::NotActivated(NotActivated::Failed(response));
                prop_assert_eq!(began, failed);
                return Ok(Ended::Failure);
            }
        }
        let given_up = match &plan.end {
            End::GivenUp(at) => Some(1 + at.index(plan.steps.len() - 1)),
            _ => None,
        };
        for (number, actions) in plan.steps.iter().enumerate().skip(1) {
            self.apply(&plan.between[number])?;
            if given_up == Some(number) {
                self.one(activate(Some(&way.from), &way.from));
                return Ok(Ended::GivenUp);
            }
            let result = self.one(step(number as u32));
            if let Err(response) = self.model.migrate(&script(actions)) {
                let failed = OperationResult::NotActivated(NotActivated::Failed(response));
                prop_assert_eq!(result, failed);
                return Ok(Ended::Failure);
            }
            let hash = way.to.hash();
            if number + 1 == plan.steps.len() {
                prop_assert_eq!(result, OperationResult::Activated { hash });
                self.model.complete();
                self.model.tell();
            }
            assert_agrees(&self.machine, &self.model)?;
        }
        Ok(Ended::Success)
    }
}

fn run(plan: &Plan) -> Result<(Machine, Ended), TestCaseError> {
    let way = Way::new(plan.direction, &plan.steps);
    let mut both = Both::new(&way);
    for intents in &plan.history {
        both.apply(intents)?;
    }
    let data = both.machine.data();
    let ended = both.migrate(plan, &way)?;
    if ended != Ended::Success && both.model.migration.is_some() {
        prop_assert_eq!(both.machine.visible_data(), data);
    }
    let mut between = plan.between.iter().rev();
    while let Some(number) = both.machine.next_step() {
        prop_assert!(both.machine.log.len() < 1000, "no end");
        if let Some(intents) = between.next() {
            both.apply(intents)?;
        }
        let is_clearing = both.model.migration.is_none();
        both.one(step(number));
        if !is_clearing {
            both.model.tell();
        }
        assert_agrees(&both.machine, &both.model)?;
    }
    prop_assert!(both.model.migration.is_none());
    prop_assert!(query::migration(&*both.machine.state).unwrap().is_none());
    let serves = match ended {
        Ended::Success => &way.to,
        Ended::Failure | Ended::GivenUp => &way.from,
    };
    prop_assert_eq!(in_force(&both.machine), &*serves.manifest.version);
    both.apply(&plan.between[0])?;
    Ok((both.machine, ended))
}

proptest! {
    #[test]
    fn core_agrees_with_the_model_before_during_and_after_a_migration(plan in any_plan()) {
        run(&plan)?;
    }

    #[test]
    fn nodes_agree_byte_for_byte_though_one_started_again_during_a_migration(
        plan in any_plan(),
        restart in any::<prop::sample::Index>(),
    ) {
        let first = run(&plan)?.0;
        let mut second = Machine::empty();
        let restart = restart.index(first.log.len());
        for (at, entry) in first.log.iter().enumerate() {
            if at == restart {
                second.state = memory::from_bytes(&memory::to_bytes(&second.state)).into();
                second.modules.unload();
            }
            second.apply_bytes(entry.clone());
        }
        prop_assert_eq!(first.state, second.state);
    }
}

/// A property over migrations that all end alike would hold of anything.
#[test]
fn random_migrations_end_in_each_way_in_both_directions() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<_, u32>::new();
    for _ in 0..90 {
        let plan = any_plan().new_tree(&mut runner).unwrap().current();
        let ended = run(&plan).unwrap().1;
        *seen.entry((plan.direction as u8, ended)).or_default() += 1;
    }
    for direction in BOTH {
        for end in [Ended::Success, Ended::Failure, Ended::GivenUp] {
            let count = seen.get(&(direction as u8, end));
            assert!(count.is_some_and(|count| *count >= 5), "{seen:?}");
        }
    }
}
