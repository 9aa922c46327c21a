//! What commands, sessions and timers do to jobs.
//!
//! Between operations: a job is in the set of its state and in no other; no job waits for a capability of which a free
//! worker exists; an unfinished job that pauses or is in a hand has a timer, others have none.

use quorate_guest::prelude::*;

use crate::job::{
    Capability, FINISHED, HELD, JOBS, Job, PAYLOADS, RESULTS, State, Terms, WAITING,
    check_capability, check_text, cut,
};
use crate::worker::{self, WORKERS, Worker};
use crate::{
    FINISHED_BYTES_MAX, FINISHED_JOBS_MAX, FINISHED_RECORD_BYTES, JobId, JobState, OPEN_BYTES_MAX,
    OPEN_JOBS_MAX, Request, Response, Totals, WorkQueue, code,
};

const TOTALS: Item<Totals> = Item::new("totals");

/// The totals as they are stored.
pub(crate) fn totals(cx: &ReadContext) -> Result<Totals> {
    Ok(TOTALS.get(cx)?.unwrap_or_default())
}

/// The queue during one operation.
pub(crate) struct Queue<'a, 'b> {
    cx: &'a mut Context<'b, WorkQueue>,
    totals: Totals,
    loaded: Totals,
}

impl<'a, 'b> Queue<'a, 'b> {
    pub(crate) fn load(cx: &'a mut Context<'b, WorkQueue>) -> Result<Self> {
        let totals = totals(cx)?;
        let loaded = totals.clone();
        Ok(Self { cx, totals, loaded })
    }

    /// Ends the operation.
    pub(crate) fn save(self) -> Result<()> {
        if self.totals == self.loaded {
            return Ok(());
        }
        TOTALS.set(self.cx, &self.totals)
    }

    pub(crate) fn submit(
        &mut self,
        capability: String,
        version: String,
        payload: &String,
        terms: Terms,
    ) -> Result<Response> {
        check_capability(&capability, &version)?;
        check_text("payload", payload)?;
        let totals = &mut self.totals;
        let payload_bytes = payload.len() as u64;
        check_room(totals, payload_bytes)?;
        totals.submitted += 1;
        totals.open_bytes += payload_bytes;
        let id = JobId(totals.submitted);
        PAYLOADS.insert(self.cx, &id, payload)?;
        let mut job = Job {
            capability: (capability, version),
            terms,
            payload_bytes,
            state: State::Waiting,
            attempt: 0,
            charged: 0,
            progress: None,
            error: None,
        };
        // Waiting counts it; `offer` moves it on.
        *self.total(JobState::Waiting) += 1;
        self.offer(id, &mut job)?;
        Ok(Response::Submitted { job: id })
    }

    pub(crate) fn progress(
        &mut self,
        caller: SessionId,
        id: JobId,
        attempt: u32,
        note: Option<String>,
    ) -> Result<Response> {
        self.heard_of(caller)?;
        let Some(mut job) = self.job(id)?.filter(|job| job.is_held_by(caller, attempt)) else {
            return Ok(Response::Late);
        };
        self.start_lease(id, &job);
        if let Some(note) = note {
            job.progress = Some(cut(note));
            JOBS.insert(self.cx, &id, &job)?;
        }
        Ok(Response::Recorded)
    }

    pub(crate) fn done(
        &mut self,
        caller: SessionId,
        id: JobId,
        attempt: u32,
        result: String,
    ) -> Result<Response> {
        check_text("result", &result)?;
        self.heard_of(caller)?;
        match self.job(id)? {
            Some(mut job) if job.is_held_by(caller, attempt) => {
                self.take_back(id, caller)?;
                self.finish(id, &mut job, State::Done(caller), Some(result))?;
                self.feed(caller)?;
                Ok(Response::Recorded)
            }
            // The same word again, under another request id.
            Some(job) if job.state == State::Done(caller) && job.attempt == attempt => {
                Ok(Response::Recorded)
            }
            _ => Ok(Response::Late),
        }
    }

    pub(crate) fn failed(
        &mut self,
        caller: SessionId,
        id: JobId,
        attempt: u32,
        error: String,
    ) -> Result<Response> {
        self.heard_of(caller)?;
        let Some(mut job) = self.job(id)?.filter(|job| job.is_held_by(caller, attempt)) else {
            return Ok(Response::Late);
        };
        self.take_back(id, caller)?;
        job.error = Some(cut(error));
        if job.is_used_up() {
            self.finish(id, &mut job, State::Failed, None)?;
        } else {
            let due = self.cx.time().after(job.pause());
            self.set_state(&mut job, State::Pausing);
            self.set_timer(id, &job, due);
            JOBS.insert(self.cx, &id, &job)?;
        }
        self.feed(caller)?;
        Ok(Response::Recorded)
    }

    pub(crate) fn cancel(&mut self, id: JobId) -> Result<Response> {
        let Some(mut job) = self.job(id)?.filter(|job| !job.state.is_finished()) else {
            return Ok(Response::Cancelled(false));
        };
        let holder = job.session();
        match holder {
            Some(holder) => self.take_back(id, holder)?,
            None => {
                WAITING.remove(self.cx, &(job.capability.clone(), id))?;
            }
        }
        self.finish(id, &mut job, State::Cancelled, None)?;
        holder.map_or(Ok(()), |holder| self.feed(holder))?;
        Ok(Response::Cancelled(true))
    }

    /// A session begins: it may get jobs at once.
    pub(crate) fn employ(&mut self, session: SessionId, capabilities: &Capabilities) -> Result<()> {
        let Some(worker) = Worker::announced(capabilities)? else {
            return Ok(());
        };
        worker::replace(self.cx, session, None, Some(&worker))?;
        self.feed(session)
    }

    /// A session ends: its jobs go on.
    pub(crate) fn dismiss(&mut self, session: SessionId, end: SessionEnd) -> Result<()> {
        let Some(worker) = WORKERS.get(self.cx, &session)? else {
            return Ok(());
        };
        worker::replace(self.cx, session, Some(&worker), None)?;
        let held: Vec<_> = HELD.prefix(self.cx, &session).collect::<Result<_>>()?;
        for (_, id) in held {
            HELD.remove(self.cx, &(session, id))?;
            let Some(mut job) = JOBS.get(self.cx, &id)? else {
                continue;
            };
            if end == SessionEnd::ClosedByClient {
                // It gave the job back, and nothing is held against the job.
                job.charged = job.charged.saturating_sub(1);
            } else {
                job.error = Some("the session that held it has ended".to_owned());
            }
            self.pass_on(id, &mut job)?;
        }
        Ok(())
    }

    /// A session shows that it lives: it may get jobs again.
    pub(crate) fn heard_of(&mut self, session: SessionId) -> Result<()> {
        match WORKERS.get(self.cx, &session)? {
            Some(worker) if worker.silent => {
                self.change_worker(session, |worker| worker.silent = false)?;
                self.feed(session)
            }
            _ => Ok(()),
        }
    }

    /// A lease or a pause is over.
    pub(crate) fn timer(&mut self, timer: Timer<'_>) -> Result<()> {
        let Some((id, attempt)) = named_by(timer) else {
            return Ok(());
        };
        let Some(mut job) = JOBS.get(self.cx, &id)?.filter(|job| job.attempt == attempt) else {
            return Ok(());
        };
        match job.state {
            State::InHand(holder) => {
                self.totals.leases_expired += 1;
                self.take_back(id, holder)?;
                self.change_worker(holder, |worker| worker.silent = true)?;
                job.error = Some("its lease ran out".to_owned());
                self.pass_on(id, &mut job)
            }
            State::Pausing => self.offer(id, &mut job),
            _ => Ok(()),
        }
    }

    /// A job, if it is known still.
    fn job(&self, id: JobId) -> Result<Option<Job>> {
        if id.0 == 0 || id.0 > self.totals.submitted {
            let text = format!("there was never a job {id}");
            return Err(Error::new(code::NO_SUCH_JOB, text));
        }
        JOBS.get(self.cx, &id)
    }

    /// Gives a job that came to nothing to another, if it may.
    fn pass_on(&mut self, id: JobId, job: &mut Job) -> Result<()> {
        if job.is_used_up() {
            return self.finish(id, job, State::Failed, None);
        }
        self.cx.cancel_timer(timer_key(id));
        self.offer(id, job)
    }

    /// Gives a job to who is next, or else lets it wait.
    fn offer(&mut self, id: JobId, job: &mut Job) -> Result<()> {
        if let Some(session) = worker::next_free(self.cx, &job.capability)? {
            return self.hand(id, job, session);
        }
        self.set_state(job, State::Waiting);
        WAITING.insert(self.cx, &(job.capability.clone(), id))?;
        JOBS.insert(self.cx, &id, job)
    }

    /// Fills a worker's hands with what waits longest of what it can do.
    fn feed(&mut self, session: SessionId) -> Result<()> {
        while let Some(worker) = WORKERS
            .get(self.cx, &session)?
            .filter(|worker| worker.is_free())
        {
            let Some((capability, id)) = self.waits_longest(&worker.capabilities)? else {
                break;
            };
            WAITING.remove(self.cx, &(capability, id))?;
            let Some(mut job) = JOBS.get(self.cx, &id)? else {
                continue;
            };
            self.hand(id, &mut job, session)?;
        }
        Ok(())
    }

    fn waits_longest(&self, capabilities: &[Capability]) -> Result<Option<(Capability, JobId)>> {
        let mut longest: Option<(Capability, JobId)> = None;
        for capability in capabilities {
            if let Some(first) = WAITING.prefix(self.cx, capability).next() {
                let first = first?;
                if longest.as_ref().is_none_or(|(_, id)| first.1 < *id) {
                    longest = Some(first);
                }
            }
        }
        Ok(longest)
    }

    fn hand(&mut self, id: JobId, job: &mut Job, session: SessionId) -> Result<()> {
        job.attempt += 1;
        job.charged += 1;
        self.set_state(job, State::InHand(session));
        JOBS.insert(self.cx, &id, job)?;
        HELD.insert(self.cx, &(session, id))?;
        self.totals.handed_out += 1;
        let turn = self.totals.handed_out;
        self.change_worker(session, |worker| {
            worker.in_hand += 1;
            worker.turn = turn;
        })?;
        self.start_lease(id, job);
        let payload = PAYLOADS.get(self.cx, &id)?.unwrap_or_default();
        let (capability, version) = job.capability.clone();
        let request = Request::Job {
            job: id,
            attempt: job.attempt,
            capability,
            version,
            lease_seconds: job.terms.lease_seconds,
            payload,
        };
        self.cx.send(session, &request)
    }

    /// Takes a job out of a hand.
    fn take_back(&mut self, id: JobId, holder: SessionId) -> Result<()> {
        HELD.remove(self.cx, &(holder, id))?;
        self.change_worker(holder, |worker| {
            worker.in_hand = worker.in_hand.saturating_sub(1);
        })
    }

    fn change_worker(
        &mut self,
        session: SessionId,
        change: impl FnOnce(&mut Worker),
    ) -> Result<()> {
        let Some(old) = WORKERS.get(self.cx, &session)? else {
            return Ok(());
        };
        let mut new = old.clone();
        change(&mut new);
        worker::replace(self.cx, session, Some(&old), Some(&new))
    }

    fn finish(
        &mut self,
        id: JobId,
        job: &mut Job,
        state: State,
        result: Option<String>,
    ) -> Result<()> {
        self.cx.cancel_timer(timer_key(id));
        PAYLOADS.remove(self.cx, &id)?;
        self.totals.open_bytes -= job.payload_bytes;
        self.set_state(job, state);
        JOBS.insert(self.cx, &id, job)?;
        let result_bytes = result.as_ref().map_or(0, String::len) as u64;
        if let Some(result) = result {
            RESULTS.insert(self.cx, &id, &result)?;
        }
        let totals = &mut self.totals;
        let finished = totals.done + totals.failed + totals.cancelled;
        totals.kept += 1;
        totals.kept_bytes += result_bytes + FINISHED_RECORD_BYTES;
        FINISHED.insert(self.cx, &(finished, id))?;
        self.forget_oldest()
    }

    /// Forgets finished jobs beyond the limits: as many as the last result is in [`FINISHED_RECORD_BYTES`], at most.
    fn forget_oldest(&mut self) -> Result<()> {
        while keeps_too_much(&self.totals) {
            let Some(oldest) = FINISHED.range::<(u64, JobId)>(self.cx, ..).next() else {
                break;
            };
            let oldest = oldest?;
            let id = oldest.1;
            let result = RESULTS.get(self.cx, &id)?.map_or(0, |result| result.len());
            FINISHED.remove(self.cx, &oldest)?;
            RESULTS.remove(self.cx, &id)?;
            JOBS.remove(self.cx, &id)?;
            self.totals.kept -= 1;
            self.totals.kept_bytes -= result as u64 + FINISHED_RECORD_BYTES;
        }
        Ok(())
    }

    fn set_state(&mut self, job: &mut Job, state: State) {
        *self.total(job.state.name()) -= 1;
        *self.total(state.name()) += 1;
        job.state = state;
    }

    fn total(&mut self, state: JobState) -> &mut u64 {
        let totals = &mut self.totals;
        match state {
            JobState::Waiting => &mut totals.waiting,
            JobState::Pausing => &mut totals.pausing,
            JobState::InHand => &mut totals.in_hand,
            JobState::Done => &mut totals.done,
            JobState::Failed => &mut totals.failed,
            JobState::Cancelled => &mut totals.cancelled,
        }
    }

    fn start_lease(&mut self, id: JobId, job: &Job) {
        let due = self.cx.time().after(job.terms.lease());
        self.set_timer(id, job, due);
    }

    fn set_timer(&mut self, id: JobId, job: &Job, due: Timestamp) {
        self.cx
            .set_timer(timer_key(id), due, &job.attempt.to_be_bytes());
    }
}

/// Whether one more job may be open.
fn check_room(totals: &Totals, payload_bytes: u64) -> Result<()> {
    let open = totals.waiting + totals.pausing + totals.in_hand;
    let bytes = totals.open_bytes;
    if open < OPEN_JOBS_MAX && bytes + payload_bytes <= OPEN_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(
        code::QUEUE_FULL,
        format!(
            "{open} jobs of {bytes} bytes are not finished; at most {OPEN_JOBS_MAX} of {OPEN_BYTES_MAX} may be"
        ),
    ))
}

fn keeps_too_much(totals: &Totals) -> bool {
    totals.kept > FINISHED_JOBS_MAX || totals.kept_bytes > FINISHED_BYTES_MAX
}

/// A job's one timer: its lease or its pause.
fn timer_key(id: JobId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// Whose timer it is, and of which attempt.
fn named_by(timer: Timer<'_>) -> Option<(JobId, u32)> {
    let id = u64::from_be_bytes(timer.key.try_into().ok()?);
    let attempt = u32::from_be_bytes(timer.payload.try_into().ok()?);
    Some((JobId(id), attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_jobs_are_bounded_in_number_and_bytes() {
        let totals = |waiting, pausing, in_hand, open_bytes| Totals {
            waiting,
            pausing,
            in_hand,
            open_bytes,
            ..Totals::default()
        };
        let third = OPEN_JOBS_MAX / 3;
        for (totals, bytes, fits) in [
            (totals(third, third, third, 0), 1, true),
            (totals(third, third, third + 1, 0), 0, false),
            (totals(OPEN_JOBS_MAX - 1, 0, 0, OPEN_BYTES_MAX - 1), 1, true),
            (totals(1, 0, 0, OPEN_BYTES_MAX - 1), 2, false),
        ] {
            let checked = check_room(&totals, bytes).map_err(|full| full.code());
            let expected = if fits { Ok(()) } else { Err(code::QUEUE_FULL) };
            assert_eq!(checked, expected, "{bytes} in {totals:?}");
        }
    }
}
