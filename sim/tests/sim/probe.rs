//! A module that does what its commands say.

use std::time::Duration;

use quorate_guest::prelude::*;

pub(crate) struct Probe;

pub(crate) const NOTE: Item<String> = Item::new("note");
pub(crate) const ENDED: Map<SessionId, String> = Map::new("ended");
pub(crate) const FIRED: Map<u64, String> = Map::new("fired");

pub(crate) const REFUSED: u32 = 7;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Note(String),
    /// Writes, reads what it wrote, sends, then fails.
    Fail,
    Panic,
    Send(Vec<SessionId>, String, u32),
    Close(SessionId),
    Timer(String, u64),
    Cancel(String),
    Random,
    Time,
}

impl Module for Probe {
    const STATE_VERSION: u32 = 1;
    type Codec = Json;
    type Command = Command;
    type Response = u64;
    type Query = ();
    type Answer = String;
    type Request = String;

    fn init(cx: &mut Context<Self>, argument: &[u8]) -> Result<()> {
        if argument == b"refuse" {
            return Err(Error::new(REFUSED, "refused"));
        }
        match argument {
            [] => Ok(()),
            argument => NOTE.set(cx, &String::from_utf8_lossy(argument).into_owned()),
        }
    }

    fn command(cx: &mut Context<Self>, command: Command) -> Result<u64> {
        match command {
            Command::Note(text) => NOTE.set(cx, &text)?,
            Command::Fail => {
                NOTE.set(cx, &"never".into())?;
                assert_eq!(NOTE.get(cx)?.as_deref(), Some("never"));
                let caller = cx.session().expect("a command has a session");
                cx.send(caller, &"never".into())?;
                cx.set_timer("never", cx.time(), b"");
                log!(cx, Level::Warn, "about to fail at {}", cx.log_index());
                return Err(Error::new(REFUSED, "refused"));
            }
            Command::Panic => {
                NOTE.set(cx, &"never".into())?;
                panic!("out of cheese");
            }
            Command::Send(sessions, text, times) => {
                for _ in 0..times {
                    cx.send_to(&sessions, &text)?;
                }
            }
            Command::Close(session) => cx.close_session(session),
            Command::Timer(key, seconds) => {
                let due = cx.time().after(Duration::from_secs(seconds));
                cx.set_timer(&key, due, key.to_uppercase().as_bytes());
            }
            Command::Cancel(key) => cx.cancel_timer(&key),
            Command::Random => return Ok(cx.random().next_u64()),
            Command::Time => return Ok(cx.time().as_micros()),
        }
        Ok(0)
    }

    fn query(cx: &ReadContext, (): ()) -> Result<String> {
        Ok(NOTE.get(cx)?.unwrap_or_default())
    }

    fn session_created(
        cx: &mut Context<Self>,
        session: SessionId,
        capabilities: &Capabilities,
    ) -> Result<()> {
        if capabilities.contains_key("refuse") {
            NOTE.set(cx, &"written by a refused session".into())?;
            return Err(Error::new(REFUSED, "refused"));
        }
        cx.send(session, &"welcome".into())
    }

    fn session_expired(
        cx: &mut Context<Self>,
        session: SessionId,
        reason: SessionEnd,
        capabilities: &Capabilities,
    ) -> Result<()> {
        ENDED.insert(cx, &session, &format!("{reason:?} {capabilities:?}"))
    }

    fn request_acknowledged(_: &mut Context<Self>, _: SessionId, up_to: u64) -> Result<()> {
        match up_to {
            3 => Err(Error::new(REFUSED, "refused")),
            _ => Ok(()),
        }
    }

    fn timer(cx: &mut Context<Self>, timer: Timer<'_>) -> Result<()> {
        let text = format!(
            "{} {}",
            String::from_utf8_lossy(timer.key),
            String::from_utf8_lossy(timer.payload)
        );
        assert!(cx.time() >= timer.due);
        match timer.key {
            b"again" => cx.set_timer("again", cx.time().after(Duration::from_secs(10)), b""),
            b"endless" => cx.set_timer("endless", cx.time(), b""),
            b"fails" => panic!("out of time"),
            _ => {}
        }
        let index = cx.log_index();
        FIRED.insert(cx, &index, &text)
    }
}

export_module!(Probe, name: "probe");
