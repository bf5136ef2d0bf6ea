//! Keeps a record standing between two publications: looks at it and renews its TTL check three times per TTL, and moves
//! it to another agent when its own does not answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::agents::Queue;
use super::leftovers::Leftover as _;
use super::service::{Held, Record};
use crate::backend::{Intent, Loss};
use crate::error::{Error, ErrorKind};

/// The longest pause before a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How many TTLs lie between two looks for other spellings of our id. Each makes the agent go through its services.
const TWINS: f64 = 10.0;

pub(super) struct Renewal {
    record: Arc<Record>,
    interval: Duration,
    /// When another spelling of our id is looked for next.
    twins: Instant,
}

/// What a look and a renewal came to.
enum Beat {
    Stands,
    Lost(Loss),
    Failed(Error),
}

impl Renewal {
    pub(super) fn new(record: Arc<Record>) -> Self {
        let options = &record.shared.options;
        let interval = if options.heartbeat {
            options.ttl / 3
        } else {
            options.health_check_interval
        };
        let twins = Instant::now() + options.ttl.mul_f64(TWINS * fastrand::f64());
        Self {
            record,
            interval,
            twins,
        }
    }

    /// Until the record is lost, and why it is.
    pub(super) async fn run(mut self) -> Loss {
        let (ttl, heartbeat) = {
            let options = &self.record.shared.options;
            (options.ttl, options.heartbeat)
        };
        let mut next = self.pause();
        loop {
            sleep_until(next).await;
            let deadline = self.record.lock().renewed.unwrap_or_else(Instant::now) + ttl;
            let beat = timeout_at(deadline, self.beat()).await.unwrap_or_else(|_| {
                let agent = self.record.lock().at.unwrap_or(0);
                Beat::Failed(self.record.shared.agents.silent(agent, ttl))
            });
            match beat {
                Beat::Stands => {
                    next = self.pause();
                    self.tidy().await;
                    if self.twins <= Instant::now() && self.has_twin().await {
                        return Loss::Replaced;
                    }
                }
                Beat::Lost(loss) => return loss,
                Beat::Failed(error) => {
                    if heartbeat && Instant::now() >= deadline {
                        let why = format!("not renewed for its TTL of {} ms: {error}", ttl.as_millis());
                        return Loss::Gone(why);
                    }
                    if let Some(loss) = timeout_at(deadline, self.move_away()).await.unwrap_or_default() {
                        return loss;
                    }
                    next = Instant::now() + (self.interval / 4).min(AGAIN);
                    if heartbeat {
                        next = next.min(deadline);
                    }
                }
            }
        }
    }

    /// Jittered to the early side, so that a thousand instances do not fall into step.
    fn pause(&self) -> Instant {
        Instant::now() + self.interval.mul_f64(0.9 + fastrand::f64() / 10.0)
    }

    async fn beat(&self) -> Beat {
        let record = &self.record;
        let (at, published) = {
            let state = record.lock();
            (state.at, state.published)
        };
        let Some(agent) = at else {
            return Beat::Lost(Loss::Gone("it was withdrawn".to_owned()));
        };
        let limit = record.shared.agents.limit().min(self.interval.max(AGAIN));
        let gone = |why: &str| Beat::Lost(Loss::Gone(why.to_owned()));
        let renewed = match record.look(agent, Queue::Renewals, limit).await {
            // Who takes an id in another spelling removes ours.
            Ok(Held::Nothing)
                if !record
                    .twins(agent, Queue::Renewals, limit)
                    .await
                    .unwrap_or_default()
                    .is_empty() =>
            {
                return Beat::Lost(Loss::Replaced);
            }
            Ok(Held::Nothing) => {
                return gone("the agent does not know it: deregistered by someone, or the agent restarted");
            }
            Ok(Held::Other(order)) if record.outlived(order) => {
                return gone("a record of an earlier owner of its id has come back in its place");
            }
            Ok(Held::Other(_)) => return Beat::Lost(Loss::Replaced),
            Ok(Held::Ours {
                generation: Some(generation),
                ..
            }) if generation < published => return gone("an older write of it was applied after a newer one"),
            Ok(Held::Ours { passes: false, .. }) => return gone("its TTL check does not pass any more"),
            Ok(Held::Ours { .. }) if !record.shared.options.heartbeat => Ok(true),
            Ok(Held::Ours { .. }) => record.pass(agent, Queue::Renewals, limit).await,
            Err(error) => Err(error),
        };
        match renewed {
            Ok(true) => Beat::Stands,
            Ok(false) => gone("the agent does not know its TTL check: deregistered by someone, or the agent restarted"),
            Err(error) if refuses(&error) => gone(&error.to_string()),
            Err(error) => Beat::Failed(error),
        }
    }

    /// Whether somebody who does not look for spellings, as Kratos does not, has registered another one of our id since:
    /// the catalog shows theirs, and our agent knows nothing of it.
    async fn has_twin(&mut self) -> bool {
        let (record, ttl) = (&self.record, self.record.shared.options.ttl);
        let Some(agent) = record.lock().at else {
            return false;
        };
        self.twins = Instant::now() + ttl.mul_f64(TWINS * (0.9 + fastrand::f64() / 10.0));
        let twins = record.twins(agent, Queue::Renewals, AGAIN).await;
        twins.is_ok_and(|twins| !twins.is_empty())
    }

    /// Registers at another agent, if one of them answers. A loss is that someone else holds the id there.
    async fn move_away(&self) -> Option<Loss> {
        let record = &self.record;
        let agents = &record.shared.agents;
        let (at, instance, generation) = {
            let state = record.lock();
            (state.at?, Arc::clone(&state.instance), state.published)
        };
        agents.failed(at);
        for agent in agents.order(Some(at)).skip(1) {
            let limit = agents.limit().min(self.interval.max(AGAIN));
            match record.register(agent, &instance, generation, Intent::Keep, limit).await {
                Ok(()) => {
                    record.lock().at = Some(agent);
                    record.shared.log.info(format_args!(
                        "{}/{} is registered at the Consul agent at {}, because the one at {} does not answer",
                        record.name,
                        record.id,
                        agents.host(agent),
                        agents.host(at)
                    ));
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Replaced => return Some(Loss::Replaced),
                Err(_) => {}
            }
        }
        None
    }

    /// Takes away what an agent holds that did not answer before. Until it does, its TTL check hides it.
    async fn tidy(&self) {
        let written = self.record.lock().written.clone();
        let at = self.record.lock().at;
        for (agent, _) in written.into_iter().filter(|(agent, _)| at != Some(*agent)) {
            self.record.clear(agent).await; // what is left the next renewal clears
        }
    }
}

/// Whether the agent answered and will not have it.
fn refuses(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::Unauthenticated | ErrorKind::InvalidArgument
    )
}
