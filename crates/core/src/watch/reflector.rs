//! Follows one subject, a name or the names: reads it, steps its state, and reads it anew when the connection is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::list::{List, to_list};
use super::source::Source;
use super::state::{Input, State, Told};
use super::subject::Subject;
use crate::backend::{self, Follow};
use crate::backoff::{Backoff, CEILING};
use crate::error::{Error, ErrorKind, Result};
use crate::instance::ServiceInstance;
use crate::metrics::Held;
use crate::store::Moment;

/// What is known of a name, or of the names.
#[derive(Clone)]
pub struct View<E = ServiceInstance> {
    /// The last list; `None` until the first has been read.
    pub list: Option<List<E>>,
    /// Counts the lists, from 1; 0 before the first.
    pub version: u64,
    /// Whether the registry can't vouch for `list` at the moment.
    pub stale: bool,
    /// Why the registry refuses to say anything of it. Set only while `list` is `None`.
    pub refused: Option<Error>,
    /// The last moment at which `list` stood there, where the registry tells moments.
    pub moment: Option<Moment>,
    /// How often what was read could not come after what was read before: the registry was another one, or set back.
    pub resets: u64,
}

impl<E> Default for View<E> {
    fn default() -> Self {
        Self {
            list: None,
            version: 0,
            stale: false,
            refused: None,
            moment: None,
            resets: 0,
        }
    }
}

/// The task that follows one subject.
pub(super) struct Reflector<S: Subject> {
    source: Arc<Source>,
    subject: S,
    state: State<S::Entry>,
    moment: Option<Moment>,
    resets: u64,
    view: watch::Sender<View<S::Entry>>,
    attempts: Arc<AtomicU32>,
    _followed: Held,
    stale: Option<Held>,
}

impl<S: Subject> Reflector<S> {
    pub(super) fn new(
        source: Arc<Source>,
        subject: S,
        view: watch::Sender<View<S::Entry>>,
        attempts: Arc<AtomicU32>,
    ) -> Self {
        Self {
            _followed: source.meter.followed.hold(),
            stale: None,
            source,
            subject,
            state: State::default(),
            moment: None,
            resets: 0,
            view,
            attempts,
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let started = Instant::now();
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let broke = self.follow_once().await;
            // A stream that stood longer than the longest pause was no failed try.
            if started.elapsed() > CEILING {
                backoff.reset();
            }
            self.step(broke);
            sleep(backoff.next_pause()).await;
        }
    }

    /// From one connection to its loss. Says why it ended.
    async fn follow_once(&mut self) -> Input<S::Entry> {
        let (mut stream, first) = match self.subject.follow(&*self.source.backend) {
            Follow::Poll(every) => {
                let mut stream = self.polled(every);
                let first = stream.next().await;
                (stream, first)
            }
            Follow::Stream(mut stream) => {
                // Never closed. The permit covers the read that opens the stream, not the stream.
                let _permit = self.source.reads.acquire().await;
                let Ok(first) = timeout(self.source.timeout, stream.next()).await else {
                    return Input::Broke {
                        error: no_answer(&self.source, &self.subject),
                        read_for: Duration::ZERO,
                    };
                };
                (stream, first)
            }
        };
        let mut item = first;
        let mut began = None;
        let mut held_until = Instant::now();
        loop {
            match item {
                Some(Ok(read)) => {
                    let list = self.take(read);
                    self.step(Input::Read(list));
                }
                other => {
                    let read_for = began.map_or(Duration::ZERO, |began: Instant| began.elapsed());
                    return Input::Broke {
                        error: broken(other),
                        read_for,
                    };
                }
            }
            if began.is_none() {
                began = Some(Instant::now());
                held_until = Instant::now() + self.state.held_for().unwrap_or_default();
            }
            item = loop {
                tokio::select! {
                    biased;
                    item = stream.next() => break item,
                    () = sleep_until(held_until), if self.state.held_for().is_some() => self.step(Input::GraceOver),
                }
            };
        }
    }

    /// Moves the state on, tells of it, and shows what is known.
    fn step(&mut self, input: Input<S::Entry>) {
        let grace = self.source.empty_grace;
        let Source { meter, reach, .. } = &*self.source;
        match &input {
            Input::Read(_) => {
                meter.reads.add();
                reach.note(&Ok(()));
            }
            Input::Broke { error, .. } => reach.note::<()>(&Err(error.clone())),
            Input::GraceOver => {}
        }
        let (next, told) = std::mem::take(&mut self.state).step(input, grace);
        self.state = next;
        let refused = matches!(told, Some(Told::Refused(_)));
        self.view.send_if_modified(|view| {
            let (list, stale) = (self.state.list(), self.state.is_stale());
            let changed = view.list.as_ref() != list;
            if changed {
                view.list = list.cloned();
                view.version += 1;
                meter.lists.add();
            }
            if stale != self.stale.is_some() {
                self.stale = stale.then(|| meter.stale.hold());
                if stale {
                    meter.breaks.add();
                }
            }
            let turned = std::mem::replace(&mut view.stale, stale) != stale;
            view.refused = self.state.refusal().cloned();
            view.moment = self.moment;
            let reset = std::mem::replace(&mut view.resets, self.resets) != self.resets;
            changed || turned || refused || reset
        });
        if let Some(told) = told {
            self.tell(&told, grace);
        }
    }

    fn tell(&self, told: &Told, grace: Duration) {
        let (log, name, of) = (&self.source.log, self.subject.called(), S::OF);
        match told {
            Told::HeldBack(had, left) => log.warn(format_args!(
                "{name}: after a break {left} of {had} {of} are left; keeping the old list for up to {} ms (emptyGraceMs)",
                grace.as_millis()
            )),
            Told::Believed(left) => log.warn(format_args!(
                "{name}: the list is still without more than half of its {of}; believing it now ({left} left)"
            )),
            Told::Broke(error) => self.source.breaks.tell(name, error),
            Told::NotOpened(error) | Told::Refused(error) => {
                log.debug(format_args!("{name}: the watch could not be opened: {error}"));
            }
        }
    }

    /// The stream of a registry that can only be asked: a paced, bounded read about `every` so often. Ends with the
    /// first failure.
    fn polled(&self, every: Duration) -> BoxStream<'static, Result<S::Read>> {
        let (source, subject) = (self.source.clone(), self.subject.clone());
        stream::unfold(Some(Duration::ZERO), move |pause| {
            let (source, subject) = (source.clone(), subject.clone());
            async move {
                sleep(pause?).await;
                let _permit = source.reads.acquire().await; // never closed
                let read = timeout(source.timeout, subject.fetch(&*source.backend)).await;
                let read = read.unwrap_or_else(|_| Err(no_answer(&source, &subject)));
                // Jittered, so that a thousand names do not fall into step.
                let next = read.is_ok().then(|| every.mul_f64(0.9 + fastrand::f64() / 5.0));
                Some((read, next))
            }
        })
        .boxed()
    }

    /// Reports bad records, brings a read into the form of a list, and looks whether it can come after the one before.
    fn take(&mut self, read: S::Read) -> List<S::Entry> {
        let moment = S::moment(&read);
        if let (Some(now), Some(before)) = (moment, self.moment)
            && now.breaks_with(before)
        {
            self.resets += 1;
        }
        self.moment = moment;
        let entries = self.subject.entries(read, &self.source.on_bad);
        to_list(entries, self.state.list().map_or(&[], |list| list))
    }
}

fn no_answer<S: Subject>(source: &Source, subject: &S) -> Error {
    let backend = &*source.backend;
    backend::no_answer(backend, source.timeout, subject.key(backend).as_deref())
}

fn broken<T>(end: Option<Result<T>>) -> Error {
    match end {
        Some(Err(error)) => error,
        _ => Error::new(ErrorKind::Unavailable, "the registry ended the watch"),
    }
}
