//! The configuration that a store keeps: read, followed and changed. One of it for each client, over whichever store.
//!
//! Following is that of the registry ([`watch`](crate::watch)), with pairs for instances: one reflector for each set of ranges,
//! however many ask; the same staleness and the same back-off. What is added is here: changes that come together are one
//! ([`settled`]), and nothing is held back because much is missing, since nobody but its author takes configuration away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use crate::backend::{Backend, Follow, no_answer};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::CallMeter;
use crate::store::{Commit, Compare, Moment, Pair, Range, Read, Store, VALUE_MOST, Write, problem_of_key};
use crate::watch::{Entry, OnBad, Reflectors, Source, Subject, Watcher, closed};

/// How long changes are waited for before those that came are told.
pub const SETTLE: Duration = Duration::from_millis(50);
/// And the longest that one waits for those after it, in such pauses: a second.
const PAUSES_MOST: u32 = 20;
/// How long after its time a transaction is cut off that should have ended by itself.
const CUT_OFF: Duration = Duration::from_millis(100);

/// The configuration of one client. Cloning shares it. All methods must be called inside the runtime.
#[derive(Clone)]
pub struct Config {
    store: Arc<dyn Store>,
    source: Arc<Source>,
    pairs: Arc<Reflectors<Pairs>>,
    reads: Arc<CallMeter>,
}

impl Config {
    pub(crate) fn new(store: Arc<dyn Store>, source: Arc<Source>) -> Self {
        Self {
            store,
            pairs: Arc::new(Reflectors::new(source.clone())),
            source,
            reads: Arc::default(),
        }
    }

    /// What stands in some ranges, all of one moment, by one read of the store. Tried again while that may help, until
    /// `limit`.
    pub async fn read(&self, ranges: &[Range], limit: Duration) -> Result<Read> {
        check_ranges(ranges)?;
        self.ensure_open()?;
        let key = ranges.first().map(Range::text);
        let mut read = self
            .source
            .bounded(limit, &self.reads, key, || self.store.read(ranges))
            .await?;
        read.pairs.sort_by(|a, b| a.key.cmp(&b.key));
        read.pairs.dedup_by(|later, earlier| later.key == earlier.key); // ranges may overlap
        Ok(read)
    }

    /// Follows some ranges until the watcher is dropped or the client closed: whole lists, each of one revision of the store.
    /// Those that come within `settle` of each other are one, the last; the first comes at once.
    pub fn follow(&self, ranges: Vec<Range>, settle: Duration) -> Result<Watcher<Pair>> {
        check_ranges(&ranges)?;
        self.ensure_open()?;
        Ok(self.pairs.watch(Pairs::new(ranges, settle)))
    }

    /// Makes all of `writes`, at one revision, if all of `compares` hold.
    ///
    /// It is tried again, until `limit`, only where nothing can have been changed. When it is not known whether something
    /// was, the error [says so](Error::is_outcome_unknown).
    pub async fn commit(&self, compares: &[Compare], writes: &[Write], limit: Duration) -> Result<Commit> {
        for key in compares.iter().map(|c| &*c.key).chain(writes.iter().map(Write::key)) {
            check_key(key)?;
        }
        for write in writes {
            check_value(write)?;
        }
        self.ensure_open()?;
        let is_sent = AtomicBool::new(false);
        let deadline = Instant::now() + limit;
        let attempt = || async {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                std::future::pending::<()>().await; // what hindered the last one is told
            }
            is_sent.store(true, Ordering::Relaxed);
            let result = self.store.commit(compares, writes, left.min(self.source.timeout)).await;
            is_sent.store(false, Ordering::Relaxed);
            self.source.reach.note(&result);
            result
        };
        self.source
            .persist(limit + CUT_OFF, attempt)
            .await
            .unwrap_or_else(|last| {
                let key = writes.first().map(Write::key);
                if is_sent.load(Ordering::Relaxed) {
                    let late = no_answer(&*self.source.backend, limit, key);
                    let text = format!("{}; it may be written all the same", late.message());
                    return Err(Error::new(ErrorKind::Timeout, text)
                        .caused_by(late)
                        .with_unknown_outcome());
                }
                Err(last.unwrap_or_else(|| no_answer(&*self.source.backend, limit, key)))
            })
    }

    fn ensure_open(&self) -> Result<()> {
        if self.source.closed.is_cancelled() {
            Err(closed())
        } else {
            Ok(())
        }
    }
}

fn check_ranges(ranges: &[Range]) -> Result<()> {
    if ranges.is_empty() {
        return Err(Error::invalid("ranges: expected at least one"));
    }
    for range in ranges {
        if let Some(problem) = range.problem() {
            let what = if matches!(range, Range::Key(_)) {
                "key"
            } else {
                "prefix"
            };
            return Err(Error::invalid(format!("{what}: {problem}")).about(range.text()));
        }
    }
    Ok(())
}

fn check_key(key: &str) -> Result<()> {
    match problem_of_key(key) {
        Some(problem) => Err(Error::invalid(format!("key: {problem}")).about(key)),
        None => Ok(()),
    }
}

fn check_value(write: &Write) -> Result<()> {
    match write {
        Write::Put(key, value) if value.len() > VALUE_MOST => {
            let text = format!(
                "value: expected at most {VALUE_MOST} bytes, got {}: keep large values elsewhere",
                value.len()
            );
            Err(Error::invalid(text).about(key))
        }
        _ => Ok(()),
    }
}

impl Entry for Pair {
    type Place<'a> = &'a str;

    fn place(&self) -> &str {
        &self.key
    }

    fn id(&self) -> &str {
        &self.key
    }

    fn precedence(&self, other: &Self) -> std::cmp::Ordering {
        other.revision.cmp(&self.revision) // the newer one, if a store should ever tell two
    }
}

/// The pairs of some ranges.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Pairs {
    /// Sorted, so that who asks for the same shares it.
    ranges: Arc<[Range]>,
    settle: Duration,
    called: Arc<str>,
}

impl Pairs {
    fn new(mut ranges: Vec<Range>, settle: Duration) -> Self {
        ranges.sort_unstable();
        ranges.dedup();
        let called: Vec<&str> = ranges.iter().map(Range::text).collect();
        Self {
            called: called.join(", ").into(),
            ranges: ranges.into(),
            settle,
        }
    }
}

#[async_trait]
impl Subject for Pairs {
    type Entry = Pair;
    type Read = Read;
    const OF: &'static str = "keys";

    fn called(&self) -> &str {
        &self.called
    }

    fn key(&self, _: &dyn Backend) -> Option<String> {
        self.ranges.first().map(|range| range.text().to_owned())
    }

    fn follow(&self, backend: &dyn Backend) -> Follow<Read> {
        Follow::Stream(match backend.store() {
            Some(store) => settled(store.follow(&self.ranges), self.settle),
            None => stream::once(async { Err(no_store()) }).boxed(),
        })
    }

    async fn fetch(&self, backend: &dyn Backend) -> Result<Read> {
        backend.store().ok_or_else(no_store)?.read(&self.ranges).await
    }

    fn moment(read: &Read) -> Option<Moment> {
        Some(read.moment)
    }

    fn entries(&self, read: Read, _: &OnBad) -> Vec<Arc<Pair>> {
        read.pairs
    }
}

fn no_store() -> Error {
    Error::new(ErrorKind::Unsupported, "the registry is no store")
}

/// The items of a stream without those that another follows within `quiet`, for twenty times as long at the most; the first
/// at once. An end is told after what came before it.
fn settled<T: Send + 'static>(items: BoxStream<'static, Result<T>>, quiet: Duration) -> BoxStream<'static, Result<T>> {
    struct State<T> {
        /// `None` when it has ended.
        items: Option<BoxStream<'static, Result<T>>>,
        is_first: bool,
        failed: Option<Error>,
    }
    let start = State {
        items: Some(items),
        is_first: true,
        failed: None,
    };
    stream::unfold(start, move |mut state| async move {
        if let Some(error) = state.failed.take() {
            return Some((Err(error), state));
        }
        let mut items = state.items.take()?;
        let mut latest = match items.next().await? {
            Ok(item) => item,
            Err(error) => return Some((Err(error), state)),
        };
        if std::mem::take(&mut state.is_first) || quiet.is_zero() {
            state.items = Some(items);
            return Some((Ok(latest), state));
        }
        let most = Instant::now() + quiet * PAUSES_MOST;
        loop {
            let until = (Instant::now() + quiet).min(most);
            match timeout_at(until, items.next()).await {
                Ok(Some(Ok(newer))) => {
                    latest = newer;
                    if Instant::now() < most {
                        continue; // the clock is asked too: a stream that is always ready is never late
                    }
                    state.items = Some(items);
                }
                Ok(Some(Err(error))) => state.failed = Some(error),
                Ok(None) => {}
                Err(_) => state.items = Some(items),
            }
            return Some((Ok(latest), state));
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests;
