//! Asking one node after another, until one answers.

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::failure::{Failure, Slug};
use crate::http;
use crate::output::Exit;
use crate::topology::Known;

/// What to do if the nodes' admin addresses are the trouble.
const HINT: &str = "the admin addresses, which the nodes tell, must be reachable from here\n\
                    (listen.advertise-admin)";

/// What came of asking one node in vain.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Another one may answer.
    Next(String),
    /// Another one would say the same.
    Fail(Box<Failure>),
}

impl From<http::Error> for Trouble {
    fn from(error: http::Error) -> Self {
        Self::Next(error.to_string())
    }
}

/// Asks `admins` in this order. One that is silent leaves time for the others; the last one has all that
/// is left. `nobody` says what none of them does, and the hint what to do about that.
pub(crate) async fn in_turn<T>(
    admins: &[String],
    deadline: Instant,
    (nobody, hint): (&str, &str),
    ask: impl AsyncFn(&str, Instant) -> Result<T, Trouble>,
) -> Result<T, Box<Failure>> {
    let mut said = Vec::new();
    for (asked, admin) in admins.iter().enumerate() {
        let until = http::turn(deadline, admins.len() - asked);
        match ask(admin, until).await {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Next(why)) => said.push(format!("{admin}: {why}")),
            Err(Trouble::Fail(failure)) => return Err(failure),
        }
    }
    let text = format!("{nobody}\n  {}", said.join("\n  "));
    Err(Failure::new(Exit::UNREACHABLE, Slug::Unreachable, text).hint(hint))
}

/// What the leader answers at `path`, or another node if it does not. `refused`: what an error means
/// that any node would give.
pub(crate) async fn get<T: DeserializeOwned>(
    known: &Known,
    path: &str,
    nobody: &str,
    deadline: Instant,
    refused: impl Fn(&http::Error) -> Option<Box<Failure>>,
) -> Result<T, Box<Failure>> {
    let get = async |admin: &str, until| match http::get(admin, path, until).await {
        Ok(answer) => Ok(answer),
        Err(error) => Err(match refused(&error) {
            Some(failure) => Trouble::Fail(failure),
            None => error.into(),
        }),
    };
    in_turn(&known.admins(), deadline, (nobody, HINT), get).await
}
