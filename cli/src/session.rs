//! A client's session for one command, and its errors as failures.

use std::time::Duration;

use quorate_client::{
    AttemptError, Builder, CallError, Client, ConnectError, NotApplied, Rejection, SessionEnd,
};
use quorate_core::module::Trap;
use quorate_host::admin::{PayloadKind, hex};
use tokio::time::Instant;

use crate::args::Options;
use crate::credentials::Credentials;
use crate::failure::{Failure, Slug};
use crate::output::Exit;
use crate::payload::Viewer;
use crate::topology::{self, Enough, Known};

/// How long a session outlives a command that did not close it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Least time for one attempt to open the session at one node.
const ATTEMPT_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Most time for one attempt.
const ATTEMPT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// A session, and how to show payloads in it.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) viewer: Viewer,
    /// Another command goes on with it.
    is_held: bool,
}

/// Time for one node, so that one that is gone leaves time for the others.
pub(crate) fn attempt_timeout(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    (left / 4).clamp(ATTEMPT_TIMEOUT_MIN, ATTEMPT_TIMEOUT_MAX)
}

/// Finds the cluster, and its leader if there is one.
pub(crate) async fn find(options: &Options, deadline: Instant) -> Result<Known, Box<Failure>> {
    find_enough(options, Enough::Leader, deadline).await
}

/// Finds as much of the cluster as is needed.
pub(crate) async fn find_enough(
    options: &Options,
    enough: Enough,
    deadline: Instant,
) -> Result<Known, Box<Failure>> {
    let known = topology::learn(options, enough, deadline).await?;
    if known.topology.members.is_empty() {
        let text = "the cluster is not formed yet: no node knows a member";
        let hint = "it forms once every configured node has started";
        return Err(Failure::new(Exit::UNREACHABLE, Slug::NoLeader, text).hint(hint));
    }
    Ok(known)
}

impl Session {
    /// Opens a session, which may wait for a leader.
    pub(crate) async fn open(
        options: &Options,
        known: &Known,
        viewer: Viewer,
        deadline: Instant,
    ) -> Result<Self, Box<Failure>> {
        Self::open_as(options, known, viewer, deadline, |builder| builder).await
    }

    /// As [`Session::open`], in a session that exists if one is given.
    pub(crate) async fn open_within(
        options: &Options,
        known: &Known,
        viewer: Viewer,
        deadline: Instant,
        within: Option<Credentials>,
    ) -> Result<Self, Box<Failure>> {
        let Some(credentials) = within else {
            return Self::open(options, known, viewer, deadline).await;
        };
        let resume = |builder| credentials.resume(builder);
        let opened = Self::open_as(options, known, viewer, deadline, resume).await;
        let mut session = opened.map_err(|failure| match failure.slug() {
            Slug::SessionEnded => failure.hint(
                "it was not used for its timeout, or was closed, or this is not its secret;\n\
                 `quorate session new` opens another",
            ),
            _ => failure,
        })?;
        session.is_held = true;
        Ok(session)
    }

    /// As [`Session::open`], with what `shape` asks for.
    pub(crate) async fn open_as(
        options: &Options,
        known: &Known,
        viewer: Viewer,
        deadline: Instant,
        shape: impl FnOnce(Builder) -> Builder,
    ) -> Result<Self, Box<Failure>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        let builder = Client::builder(known.endpoints(options.endpoints()))
            .session_timeout(SESSION_TIMEOUT)
            .connect_timeout(left)
            .attempt_timeout(attempt_timeout(deadline))
            .call_timeout(left);
        let client = shape(builder)
            .connect()
            .await
            .map_err(|error| connect_failure(&error, known))?;
        Ok(Self {
            client,
            viewer,
            is_held: false,
        })
    }

    /// The client with what is left of the time for its call.
    pub(crate) fn client_until(&self, deadline: Instant) -> Client {
        let left = deadline.saturating_duration_since(Instant::now());
        self.client
            .with_call_timeout(left.max(Duration::from_millis(1)))
    }

    /// Ends the connection and leaves the session to the next command.
    pub(crate) async fn leave_open(self) {
        self.client.disconnect().await;
    }

    /// Ends the session, unless it was there before. Tries for a moment only: it expires by itself.
    pub(crate) async fn close(self) {
        if self.is_held {
            return self.leave_open().await;
        }
        let closed = tokio::time::timeout(Duration::from_secs(1), self.client.close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::info!("the session was not seen to close; it expires by itself");
        }
    }

    /// The failure of a call, and the end of the session; but not while a command may still be on
    /// its way in it.
    pub(crate) async fn fail(self, error: CallError, deadline: Instant) -> Box<Failure> {
        let is_unknown = error.is_outcome_unknown();
        let failure = self.failure(error, deadline).await;
        if !is_unknown {
            self.close().await;
        }
        failure
    }

    /// As [`call_failure`].
    pub(crate) async fn failure(&self, error: CallError, deadline: Instant) -> Box<Failure> {
        call_failure(&self.viewer, error, deadline).await
    }
}

/// A call's error as a failure; an application error is shown as the module shows it.
pub(crate) async fn call_failure(
    viewer: &Viewer,
    error: CallError,
    deadline: Instant,
) -> Box<Failure> {
    if error.is_outcome_unknown() {
        return Failure::new(Exit::UNKNOWN, Slug::OutcomeUnknown, error.to_string()).hint(
            "the command may still take effect: look before you send it again, since a second\n\
             `quorate call` is a second command",
        );
    }
    match error {
        CallError::Rejected { rejection, .. } => rejected(viewer, rejection, deadline).await,
        CallError::NotApplied {
            reason: NotApplied::NoModule,
        } => Failure::new(
            Exit::REFUSED,
            Slug::NoModule,
            "the cluster has no module in force",
        )
        .hint("a new cluster gets its first one from `[genesis]`; see the nodes' logs"),
        CallError::NotApplied {
            reason: NotApplied::Deadline,
        } => {
            let text = "not applied: the deadline passed before a leader took it";
            let hint = "send it again, with a longer --timeout";
            Failure::new(Exit::REFUSED, Slug::NotApplied, text).hint(hint)
        }
        CallError::SessionExpired { end, .. } => {
            let text = format!("not applied: the session has ended: {end}");
            Failure::new(Exit::REFUSED, Slug::SessionEnded, text)
        }
        other => Failure::new(Exit::REFUSED, Slug::NotApplied, other.to_string()),
    }
}

async fn rejected(viewer: &Viewer, rejection: Rejection, deadline: Instant) -> Box<Failure> {
    match rejection {
        Rejection::Application { code, payload } => {
            let json = viewer
                .json(PayloadKind::Error, &payload, None, deadline)
                .await;
            let error = match json {
                Ok(json) => json.get().to_owned(),
                Err(_) => readable(payload),
            };
            let text = format!("the module answered error {code}: {error}");
            Failure::new(Exit::REFUSED, Slug::ApplicationError, text)
                .hint("the command changed nothing")
        }
        Rejection::Trapped { code } => {
            let name = Trap::from_code(code).map_or("unknown", Trap::slug);
            let text = format!("the module trapped: {name} ({code})");
            Failure::new(Exit::REFUSED, Slug::ModuleTrapped, text)
                .hint("it changed nothing; `quorate module logs` has the module's own words")
        }
        other => Failure::new(Exit::REFUSED, Slug::NotApplied, other.to_string()),
    }
}

/// Text if it is some, else hexadecimal.
fn readable(payload: Vec<u8>) -> String {
    match String::from_utf8(payload) {
        Ok(text) if !text.contains(char::is_control) => text,
        Ok(text) => hex(text.as_bytes()),
        Err(error) => hex(error.as_bytes()),
    }
}

fn connect_failure(error: &ConnectError, known: &Known) -> Box<Failure> {
    match error {
        ConnectError::TimedOut { last } => {
            let (slug, text) = match (known.topology.leader, last) {
                (None, _) | (_, AttemptError::NotLeader { .. }) => {
                    (Slug::NoLeader, "no leader was found in time".to_owned())
                }
                _ => (Slug::Unreachable, format!("no session in time: {last}")),
            };
            let said = known.said.join("\n  ");
            let text = format!("{text}\n  {said}\n  last: {last}");
            Failure::new(Exit::UNREACHABLE, slug, text).hint(
                "a majority of the nodes must run and reach each other: `quorate cluster status`",
            )
        }
        ConnectError::NoSession {
            end: SessionEnd::Refused { .. },
        } => Failure::new(Exit::REFUSED, Slug::SessionRefused, error.to_string()),
        ConnectError::NoEndpoints
        | ConnectError::InvalidEndpoint { .. }
        | ConnectError::InvalidCapabilities(_)
        | ConnectError::InvalidTimeout { .. } => Failure::input(error.to_string()),
        _ => Failure::new(Exit::REFUSED, Slug::SessionEnded, error.to_string()),
    }
}
