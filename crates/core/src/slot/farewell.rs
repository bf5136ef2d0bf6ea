//! The end of a slot: what was stamped last is written, then its lease is ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::machine::Machine;
use super::mark::Mark;
use super::record::Record;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::store::{Commit, Compare, Write};
use crate::sync::lock;
use crate::tenure::Tenure;

/// How long the end of a slot is tried to be written.
const GOODBYE: Duration = Duration::from_secs(10);

impl Machine {
    /// Writes up to when it was used, and then ends its lease. `last`: what was stamped last by who knew of this generation.
    pub async fn give_back(&self, generation: u32, last: i64) -> Result<()> {
        let is_known = self.now.borrow().window.generation == generation;
        let mark = lock(&self.mark).take();
        let tenure = lock(&self.tenure).take();
        if let Some(mut mark) = mark {
            let last = if is_known { last.max(mark.since) } else { mark.since };
            if !self.shorten(&mut mark, last).await? {
                if let Some(tenure) = tenure {
                    tenure.stop(); // the slot is another's, and so may be the lease
                }
                return Ok(());
            }
        }
        self.end(tenure).await
    }

    /// Ends its lease. Up to when it was used nobody knows, so that stays as it is.
    pub async fn abandon(&self) {
        let tenure = lock(&self.tenure).take();
        let _ = self.end(tenure).await; // it expires
    }

    async fn end(&self, tenure: Option<Arc<dyn Tenure>>) -> Result<()> {
        let Some(tenure) = tenure else { return Ok(()) };
        tenure.stop();
        let mut tries = Tries::new();
        loop {
            match tenure.end(self.source.timeout).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    /// False: what stands there is another's.
    async fn shorten(&self, mark: &mut Mark, last: i64) -> Result<bool> {
        let mut tries = Tries::new();
        loop {
            let record = Record::new(last, &self.ask.holder);
            mark.tries(&record);
            let (key, revision) = (self.places.until(mark.n), mark.revision);
            let put = Write::Put(Arc::clone(&key), record.bytes());
            let compare = Compare { key, revision };
            match self.store.commit(&[compare], &[put], self.source.timeout).await {
                Ok(Commit::Done { .. }) => return Ok(true),
                Ok(Commit::Conflict { current }) => match current.first() {
                    // An extension that was under way, or this very write, whose answer was lost.
                    Some(Some(pair)) if mark.adopts(&pair.value, pair.revision) => {
                        if mark.record.until == last {
                            return Ok(true);
                        }
                    }
                    _ => return Ok(false),
                },
                Err(error) => tries.after(error).await?,
            }
        }
    }
}

/// Tries that go on for a while.
struct Tries {
    end: Instant,
    backoff: Backoff,
}

impl Tries {
    fn new() -> Self {
        Self {
            end: Instant::now() + GOODBYE,
            backoff: Backoff::new(),
        }
    }

    /// Waits before the next one. Gives the error back where that does not help, or it is too late.
    async fn after(&mut self, error: Error) -> Result<()> {
        let pause = self.backoff.next_pause();
        // What may have been written is written again, over what is then found there.
        let may_help = error.is_retryable() || error.is_outcome_unknown();
        if !may_help || Instant::now() + pause > self.end {
            return Err(error);
        }
        sleep(pause).await;
        Ok(())
    }
}
