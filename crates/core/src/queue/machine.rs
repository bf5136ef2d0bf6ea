//! The machine behind a lock that is held or waited for: one tenure, one key, from the grant to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::ask::Ask;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind};
use crate::stall::stalled;
use crate::tenure::{Before, Entered, Look, Tenure};
use crate::watch::{Source, closed};

/// How often one looks although nothing is heard: every time to live, within these bounds. A server that stopped takes what
/// it would have told along, until the connection is given up.
const LOOK_LEAST: Duration = Duration::from_secs(2);
const LOOK_MOST: Duration = Duration::from_secs(10);
/// The least that one question may take, whatever the lease. A server that is silent is to cost a part of its time only.
const PATIENCE_LEAST: Duration = Duration::from_millis(1500);
/// How long the end of a lease is tried while the store is away.
const TIDYING: Duration = Duration::from_secs(600);

/// Called on the runtime's thread when what was held is lost. It must not block, and not call the lock.
pub type OnLost = Box<dyn Fn(&Failure) + Send + Sync>;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its lease is being granted, or its key being written.
    Granting,
    /// It has a key, and its turn has not come.
    Waiting,
    /// It was its turn. Whether it may act is a question of time, too.
    Held,
    /// It was told to end. For good.
    Released,
    /// Its lease or key is gone, or it was refused. For good.
    Failed,
}

impl State {
    const fn is_final(self) -> bool {
        matches!(self, Self::Released | Self::Failed)
    }
}

/// Why it is not held, or not any more.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The lease expired, was ended by somebody else, or could not be vouched for any longer; or the key is gone.
    Lost(String),
    /// The user's thread was silent for too long.
    Stalled(Duration),
    /// It was not its turn, and it was not to wait.
    Taken,
    /// It was not its turn in the time given.
    Late,
    /// It was released.
    Over,
    /// The store refused, or could not be asked.
    Call(Error),
}

/// What is known now.
struct Now {
    state: State,
    /// 0 before the key is written.
    created: i64,
    failure: Option<Failure>,
    /// What hindered the last try.
    hindrance: Option<Error>,
}

/// One lock that is held or waited for.
pub(super) struct Machine {
    pub tenure: Arc<dyn Tenure>,
    pub key: Arc<str>,
    ask: Ask,
    source: Arc<Source>,
    now: watch::Sender<Now>,
    pub over: CancellationToken,
    /// Somebody was told that it may not act because its time was over. Then it stays over.
    expired: CancellationToken,
    on_lost: OnLost,
    is_tidied: AtomicBool,
}

impl Machine {
    pub fn new(tenure: Arc<dyn Tenure>, ask: Ask, source: Arc<Source>, on_lost: OnLost) -> Self {
        Self {
            key: ask.kind.key(&ask.path, tenure.lease()).into(),
            tenure,
            ask,
            source,
            now: watch::Sender::new(Now {
                state: State::Granting,
                created: 0,
                failure: None,
                hindrance: None,
            }),
            over: CancellationToken::new(),
            expired: CancellationToken::new(),
            on_lost,
            is_tidied: AtomicBool::new(false),
        }
    }

    pub async fn run(&self) {
        let failure = tokio::select! {
            biased;
            () = self.source.closed.cancelled() => Failure::Call(closed()),
            silence = stalled(self.ask.stall.as_ref()) => Failure::Stalled(silence),
            failure = self.term() => failure,
        };
        self.finish(State::Failed, Some(failure));
        if !self.source.closed.is_cancelled() {
            let _ = self.tidy(&tokio::runtime::Handle::current());
        }
    }

    /// Resolves when it is held; with why it is not.
    pub async fn turn(&self) -> Result<(), Failure> {
        let mut now = self.now.subscribe();
        let now = now
            .wait_for(|now| now.state == State::Held || now.state.is_final())
            .await;
        match now {
            Ok(now) if now.state == State::Held => Ok(()),
            Ok(now) => Err(now.failure.clone().unwrap_or(Failure::Over)),
            Err(_) => Err(Failure::Over),
        }
    }

    pub fn may_act(&self) -> bool {
        let held = self.now.borrow().state == State::Held;
        let may = held && self.is_vouched() && !self.expired.is_cancelled();
        if held && !may {
            self.expired.cancel(); // a renewal that is late changes nothing any more
        }
        may
    }

    /// Whether the lease can be vouched for at this moment.
    fn is_vouched(&self) -> bool {
        self.tenure.deadline().is_some_and(|deadline| Instant::now() < deadline)
    }

    pub fn token(&self) -> i64 {
        self.now.borrow().created
    }

    pub fn hindrance(&self) -> Option<Error> {
        self.now.borrow().hindrance.clone()
    }

    /// Changes what is known, unless it is over. Says whether it was not.
    fn change(&self, change: impl FnOnce(&mut Now)) -> bool {
        self.now.send_if_modified(|now| {
            let goes_on = !now.state.is_final();
            if goes_on {
                change(now);
            }
            goes_on
        })
    }

    /// Ends it, unless it is over.
    pub fn finish(&self, state: State, failure: Option<Failure>) {
        self.change(|now| {
            let was_held = now.state == State::Held;
            now.state = state;
            now.failure.clone_from(&failure);
            if let Some(failure) = failure.filter(|_| was_held) {
                (self.on_lost)(&failure);
            }
        });
        self.tenure.stop();
        self.over.cancel();
    }

    /// Ends the lease in the store, again and again if need be. The first who asks is told how the first try went.
    pub fn tidy(&self, runtime: &tokio::runtime::Handle) -> Ending {
        if self.is_tidied.swap(true, Ordering::SeqCst) {
            return Ending(None);
        }
        let (said, first) = watch::channel(None);
        let (tenure, source) = (Arc::clone(&self.tenure), Arc::clone(&self.source));
        runtime.spawn(async move { tidy(&*tenure, &source, said).await });
        Ending(Some(first))
    }

    async fn term(&self) -> Failure {
        let mut backoff = Backoff::new();
        while let Err(error) = self.tenure.begin(self.patience()).await {
            if let Err(failure) = self.hindered(error, &mut backoff).await {
                return failure;
            }
        }
        tokio::select! {
            biased;
            why = self.tenure.lost() => Failure::Lost(why),
            () = self.expired.cancelled() => Failure::Lost("its lease was not renewed within its time to live".to_owned()),
            failure = self.stand() => failure,
        }
    }

    /// Writes the key, waits for its turn and holds, until the key is gone. Others look after the lease meanwhile.
    async fn stand(&self) -> Failure {
        let mut backoff = Backoff::new();
        let mut permits = self.ask.permits.clone();
        let mut before = self.before(*permits.borrow_and_update());
        let entered = loop {
            let value = &self.ask.value;
            match self.tenure.enter(&self.key, value, &before, self.patience()).await {
                Ok(entered) => break entered,
                Err(error) => {
                    if let Err(failure) = self.hindered(error, &mut backoff).await {
                        return failure;
                    }
                }
            }
        };
        let Entered { since, mut seen } = entered;
        backoff.reset();
        self.change(|now| {
            now.state = State::Waiting;
            now.created = since.created;
        });
        // Not all in step, and not much more often than their leases are renewed.
        let due = self.ask.ttl.clamp(LOOK_LEAST, LOOK_MOST);
        loop {
            let look = match seen.take() {
                Some(seen) => Ok(seen),
                None => self.tenure.look(&self.key, since, &before, self.patience()).await,
            };
            let look = match look {
                Ok(look) => {
                    self.change(|now| now.hindrance = None);
                    look
                }
                Err(error) => match self.hindered(error, &mut backoff).await {
                    Ok(()) => continue,
                    Err(failure) => return failure,
                },
            };
            if let Some(failure) = self.judge(&look, before.most) {
                return failure;
            }
            let waits = self.now.borrow().state == State::Waiting;
            let changed = tokio::select! {
                changed = self.tenure.changed(&self.key, since, &before, &look) => changed,
                Ok(()) = permits.changed(), if waits => {
                    before = self.before(*permits.borrow_and_update());
                    Ok(())
                }
                () = sleep(due.mul_f64(0.8 + fastrand::f64() * 0.4)) => Ok(()),
            };
            match changed {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    if let Err(failure) = self.hindered(error, &mut backoff).await {
                        return failure;
                    }
                }
            }
        }
    }

    fn before(&self, permits: usize) -> Before {
        self.ask.kind.before(&self.ask.path, permits)
    }

    /// What follows from a look; a failure ends it. Nobody holds who was not seen to stand at the moment when nobody was
    /// before: who waited for another and hears that it is gone may be gone itself.
    fn judge(&self, look: &Look, most: usize) -> Option<Failure> {
        if !look.stands {
            let why = "its key is gone, or its lease: it was deleted, revoked or overwritten by someone else";
            return Some(Failure::Lost(why.to_owned()));
        }
        let is_held = self.now.borrow().state == State::Held;
        if look.older.len() < most {
            if !is_held {
                self.hold();
            }
            return None;
        }
        if is_held {
            let why = "older ones have come back: the store was restored from a backup";
            return Some(Failure::Lost(why.to_owned()));
        }
        (!self.ask.waits).then_some(Failure::Taken)
    }

    /// From here it is held, if the lease can still be vouched for: a look may have been answered late. If it can't, whoever
    /// looks after the lease tells.
    fn hold(&self) {
        self.change(|now| {
            if self.is_vouched() {
                now.state = State::Held;
                now.hindrance = None;
            }
        });
    }

    /// Waits a little after what may pass by itself; all else ends it.
    async fn hindered(&self, error: Error, backoff: &mut Backoff) -> Result<(), Failure> {
        if !error.is_retryable() {
            return Err(Failure::Call(error));
        }
        self.change(|now| now.hindrance = Some(error));
        sleep(backoff.next_pause()).await;
        Ok(())
    }

    fn patience(&self) -> Duration {
        self.ask.ttl.max(PATIENCE_LEAST).min(self.source.timeout)
    }
}

async fn tidy(tenure: &dyn Tenure, source: &Source, said: watch::Sender<Option<Result<(), Error>>>) {
    let mut backoff = Backoff::new();
    let end = Instant::now() + TIDYING;
    loop {
        let done = tenure.end(source.timeout).await;
        let again = matches!(&done, Err(error) if error.is_retryable());
        if said.borrow().is_none() {
            said.send_replace(Some(done));
        }
        let pause = backoff.next_pause();
        if !again || Instant::now() + pause > end {
            return;
        }
        tokio::select! {
            () = source.closed.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// The end of a lease that is under way.
pub struct Ending(Option<watch::Receiver<Option<Result<(), Error>>>>);

impl Ending {
    /// Resolves with how the first try went. At once when there is nothing to end.
    pub async fn wait(self) -> Result<(), Error> {
        let Some(mut first) = self.0 else { return Ok(()) };
        match first.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Err(error))) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Closed, "the client was closed meanwhile")),
        }
    }
}
