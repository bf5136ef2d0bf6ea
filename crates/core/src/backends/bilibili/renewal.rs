//! Keeps a record standing between two publications: renews it three times per TTL, reads in the answer whose it is, and
//! moves it to another node when its own does not answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::standing::{Held, Record};
use crate::backend::{Intent, Loss};
use crate::error::{Error, ErrorKind};

/// The longest pause before a renewal that failed is tried again, and the least that one is given.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Renewal {
    record: Arc<Record>,
    /// More often than every 30 s would lift the server's protection of itself, for everybody.
    interval: Duration,
}

/// What a renewal came to.
enum Beat {
    Stands,
    Lost(Loss),
    Failed(Error),
}

impl Renewal {
    pub(super) fn new(record: Arc<Record>) -> Self {
        let interval = record.shared.options.ttl / 3;
        Self { record, interval }
    }

    /// Until the record is lost, and why it is.
    pub(super) async fn run(self) -> Loss {
        let ttl = self.record.shared.options.ttl;
        let mut next = self.pause();
        loop {
            sleep_until(next).await;
            let deadline = self.record.lock().renewed.unwrap_or_else(Instant::now) + ttl;
            let beat = timeout_at(deadline, self.beat()).await.unwrap_or_else(|_| {
                let why = "no answer came in time";
                Beat::Failed(Error::new(ErrorKind::Timeout, why))
            });
            match beat {
                Beat::Stands => next = self.pause(),
                Beat::Lost(loss) => return loss,
                Beat::Failed(error) => {
                    if Instant::now() >= deadline {
                        let why = format!("not renewed for its TTL of {} ms: {error}", ttl.as_millis());
                        return Loss::Gone(why);
                    }
                    if let Some(loss) = timeout_at(deadline, self.move_away()).await.unwrap_or_default() {
                        return loss;
                    }
                    next = (Instant::now() + (self.interval / 4).min(AGAIN)).min(deadline);
                }
            }
        }
    }

    /// Jittered to the early side, so that a thousand instances do not fall into step.
    fn pause(&self) -> Instant {
        Instant::now() + self.interval.mul_f64(0.9 + fastrand::f64() / 10.0)
    }

    fn limit(&self) -> Duration {
        self.record.shared.nodes.limit().min(self.interval.max(AGAIN))
    }

    async fn beat(&self) -> Beat {
        let record = &self.record;
        let gone = |why: &str| Beat::Lost(Loss::Gone(why.to_owned()));
        let Some(node) = record.lock().at.clone() else {
            return gone("it was withdrawn");
        };
        let held = record.renew(&node, self.limit()).await;
        let published = record.lock().published;
        match held {
            Ok(Held::Nothing) => gone("the node does not know it: canceled by someone, evicted, or the node restarted"),
            Ok(Held::Other { .. }) => Beat::Lost(Loss::Replaced),
            Ok(Held::Ours { generation, .. }) if generation < published => {
                gone("an older write of it was applied after a newer one")
            }
            Ok(Held::Ours { .. }) => Beat::Stands,
            Err(error) if error.is_retryable() => Beat::Failed(error),
            Err(error) => gone(&error.to_string()),
        }
    }

    /// Goes on at another node, if one of them answers, which as a rule has it from the first. A loss is that someone else
    /// holds the id there.
    async fn move_away(&self) -> Option<Loss> {
        let record = &self.record;
        let nodes = &record.shared.nodes;
        if nodes.is_single() {
            return None;
        }
        let (at, instance, generation) = {
            let state = record.lock();
            (state.at.clone()?, Arc::clone(&state.instance), state.published)
        };
        nodes.failed(&at);
        for node in nodes.order(Some(&at)).into_iter().skip(1) {
            let moved = match record.renew(&node, self.limit()).await {
                Ok(Held::Ours { generation: stands, .. }) if stands == generation => Ok(()),
                Ok(Held::Other { .. }) => return Some(Loss::Replaced),
                Ok(_) => {
                    // A publication may be moving it right now; the next beat looks again.
                    let Ok(_moving) = record.moving.try_lock() else {
                        return None;
                    };
                    record
                        .register(&node, &instance, generation, Intent::Keep, self.limit())
                        .await
                }
                Err(error) => Err(error),
            };
            match moved {
                Ok(()) => {
                    record.shared.log.info(format_args!(
                        "{}/{} is renewed at the discovery node at {}, because the one at {} does not answer",
                        record.name, record.id, node.host, at.host
                    ));
                    record.lock().at = Some(node);
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Replaced => return Some(Loss::Replaced),
                Err(_) => {}
            }
        }
        None
    }
}
