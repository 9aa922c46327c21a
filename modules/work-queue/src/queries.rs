//! What can be asked.

use std::ops::Bound;

use quorate_guest::prelude::*;

use crate::job::{JOBS, Job, RESULTS};
use crate::queue;
use crate::worker::{WORKERS, Worker};
use crate::{Answer, JobId, JobSummary, JobView, LIST_MAX, WorkerView};

pub(crate) fn job(cx: &ReadContext, id: JobId) -> Result<Answer> {
    let Some(job) = JOBS.get(cx, &id)? else {
        return Ok(Answer::Job(None));
    };
    let result = RESULTS.get(cx, &id)?;
    let session = job.session();
    let attempts_left = match job.state.is_finished() {
        true => 0,
        // The present hand-out is charged already.
        false => job.terms.attempts - job.charged + u32::from(session.is_some()),
    };
    let (capability, version) = job.capability;
    Ok(Answer::Job(Some(JobView {
        job: id,
        capability,
        version,
        state: job.state.name(),
        attempt: job.attempt,
        attempts_left,
        session,
        progress: job.progress,
        error: job.error,
        result,
    })))
}

pub(crate) fn jobs(cx: &ReadContext, after: JobId, limit: u32) -> Result<Answer> {
    let bounds = (Bound::Excluded(after), Bound::Unbounded);
    let (jobs, more) = list(JOBS.range(cx, bounds), limit, summary)?;
    Ok(Answer::Jobs { jobs, more })
}

pub(crate) fn workers(cx: &ReadContext, after: Option<SessionId>, limit: u32) -> Result<Answer> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let bounds = (start, Bound::Unbounded);
    let (workers, more) = list(WORKERS.range(cx, bounds), limit, worker)?;
    Ok(Answer::Workers { workers, more })
}

pub(crate) fn totals(cx: &ReadContext) -> Result<Answer> {
    queue::totals(cx).map(Answer::Totals)
}

/// The first entries as they are shown, and whether there are more.
fn list<K, V, T>(
    mut entries: impl Iterator<Item = Result<(K, V)>>,
    limit: u32,
    show: impl Fn(K, V) -> T,
) -> Result<(Vec<T>, bool)> {
    let shown = entries
        .by_ref()
        .take(limit.min(LIST_MAX) as usize)
        .map(|entry| entry.map(|(key, value)| show(key, value)))
        .collect::<Result<Vec<T>>>()?;
    let more = entries.next().transpose()?.is_some();
    Ok((shown, more))
}

fn summary(id: JobId, job: Job) -> JobSummary {
    let (capability, version) = job.capability;
    JobSummary {
        job: id,
        capability,
        version,
        state: job.state.name(),
        attempt: job.attempt,
    }
}

fn worker(session: SessionId, worker: Worker) -> WorkerView {
    WorkerView {
        session,
        slots: worker.slots,
        in_hand: worker.in_hand,
        silent: worker.silent,
    }
}
