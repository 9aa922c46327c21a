//! `quorate limits`: what limits are in force, and to set them by way of the leader.

use quorate_core::limits::{NAMED, Unit};
use quorate_host::admin::{ErrorBody, LimitChanges, LimitInForce, LimitsInForce};
use tokio::time::Instant;

use crate::args::limits::{self, Set};
use crate::args::{Format, Options};
use crate::failure::{Failure, Slug};
use crate::leader::{Next, Request, Unanswered};
use crate::nodes;
use crate::output::{Exit, print, print_json};
use crate::session::find;

pub(crate) async fn show(options: &Options) -> Result<Exit, Box<Failure>> {
    let deadline = Instant::now() + options.timeout;
    let known = find(options, deadline).await?;
    let nobody = "no node tells of limits";
    let in_force = nodes::get(&known, "/v1/limits", nobody, deadline, |_| None).await?;
    told(&in_force, options)
}

pub(crate) async fn set(arguments: &Set, options: &Options) -> Result<Exit, Box<Failure>> {
    let changes = LimitChanges {
        set: arguments
            .changes
            .iter()
            .map(|change| (change.name.to_owned(), change.value))
            .collect(),
    };
    let deadline = Instant::now() + options.timeout;
    let in_force = SET.post("/v1/limits", &changes, options, deadline).await?;
    told(&in_force, options)
}

/// Setting limits.
const SET: Request = Request {
    refused,
    unanswered: Unanswered::Tell(
        "`quorate limits show` tells what is in force; to set them again does no harm",
    ),
};

fn refused(error: ErrorBody) -> Next {
    let ErrorBody {
        code,
        message,
        hint,
        ..
    } = error;
    let failure = |slug| {
        let failure = Failure::new(Exit::REFUSED, slug, message.clone());
        match &hint {
            Some(hint) => failure.hint(hint.clone()),
            None => failure,
        }
    };
    match code.as_str() {
        "migrating" | "not-running" => Next::Look(failure(Slug::NotApplied)),
        "limits-refused" | "limit-invalid" | "limit-unknown" => {
            Next::Fail(failure(Slug::LimitsRefused))
        }
        _ => Next::Fail(failure(Slug::NotApplied)),
    }
}

fn told(in_force: &LimitsInForce, options: &Options) -> Result<Exit, Box<Failure>> {
    match options.output {
        Format::Text => print(&text(in_force))?,
        Format::Json => print_json(in_force)?,
    }
    Ok(Exit::OK)
}

fn text(in_force: &LimitsInForce) -> String {
    let lines = in_force.limits.iter().map(|limit| {
        let LimitInForce { name, value, .. } = limit;
        let unit = unit(limit);
        let (value, least, most) = (
            limits::show(*value, unit),
            limits::show(limit.least, unit),
            limits::show(limit.most, unit),
        );
        format!("{name:32}{value:16}{least} .. {most}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A node of another release may have limits that this one does not know.
fn unit(limit: &LimitInForce) -> Unit {
    let mut named = NAMED.iter();
    let named = named.find(|named| named.unit.name() == limit.unit);
    named.map_or(Unit::Count, |named| named.unit)
}

#[cfg(test)]
mod tests {
    use quorate_core::limits::Limits;

    use super::*;

    fn in_force() -> LimitsInForce {
        let limits = Limits::default();
        let limits = NAMED.iter().map(|named| LimitInForce {
            name: named.name.to_owned(),
            value: named.of(&limits),
            unit: named.unit.name().to_owned(),
            least: named.least,
            most: named.most,
        });
        LimitsInForce {
            index: 12,
            limits: limits.collect(),
        }
    }

    #[test]
    fn limits_are_a_line_each_with_their_bounds() {
        let shown = text(&in_force());
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(shown) });
    }

    #[test]
    fn what_may_have_been_set_is_not_called_unset() {
        let answered = |code: &str| {
            let next = SET.refusal(ErrorBody {
                code: code.to_owned(),
                message: code.to_owned(),
                hint: None,
                leader: None,
            });
            match next {
                Next::Fail(failure) => Some((failure.exit(), failure.slug())),
                Next::Ask(_) | Next::Look(_) => None,
            }
        };
        let unknown = Some((Exit::UNKNOWN, Slug::OutcomeUnknown));
        assert_eq!(answered("outcome-unknown"), unknown);
        assert_eq!(answered("timeout"), unknown);
        let refused = Some((Exit::REFUSED, Slug::LimitsRefused));
        assert_eq!(answered("limits-refused"), refused);
        assert_eq!(answered("limit-unknown"), refused);
        assert_eq!(answered("not-leader"), None);
        assert_eq!(answered("migrating"), None);
    }
}
