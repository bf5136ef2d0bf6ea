//! The bell: rings when anything changed in the catalog, for the names that have no blocking query of their own.
//!
//! One blocking query for the names of all services, which comes back when any service has changed, and two for the checks
//! that fail or warn, which are few. Names that hear the bell then ask for their own index. What each question costs the
//! agent was measured, see `docs/decisions`: a filter over all services takes ten times as long as their names.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::agents::{Agents, hash};
use super::options::ConsulOptions;
use crate::backoff::Backoff;
use crate::http::segment;
use crate::sync::lock;

/// Questions for an index in flight.
const PROBES: usize = 8;
/// The bell rings no more often than this.
const PAUSE: Duration = Duration::from_millis(200);
/// Nor before so much time has passed as the questions after the last ring took, up to this.
const REST: Duration = Duration::from_secs(2);
/// How often a bell that finds no connection tries, before it rings since nobody knows what happened meanwhile.
const PATIENCE: u32 = 10;
/// More than Consul adds to the wait by its own jitter, and the way there and back.
pub(super) const SLACK: Duration = Duration::from_secs(5);

/// The bell of one client, while somebody listens.
#[derive(Default)]
pub(super) struct Bells {
    bell: Mutex<Weak<Bell>>,
}

/// Rings for as long as somebody holds it.
pub(super) struct Bell {
    rung: watch::Receiver<u64>,
    tasks: Vec<AbortHandle>,
    /// The turns of those who ask for an index.
    pub turns: Arc<Semaphore>,
}

/// One of the questions by which it rings.
struct Question {
    path: String,
    /// Whether its answer is all that counts; else its index does.
    is_whole: bool,
}

/// What tells of all that lists are made of.
fn questions(options: &ConsulOptions) -> Vec<Question> {
    let index = |path: String| Question { path, is_whole: false };
    let whole = |state: &str| Question {
        path: format!("/v1/health/state/{state}?"),
        is_whole: true,
    };
    let mut all = vec![index("/v1/catalog/services?".to_owned())];
    if options.filter.is_some() {
        // A filter may look at anything of any check.
        let nothing = segment("Node == \"\"");
        all.push(index(format!("/v1/health/state/any?filter={nothing}")));
    } else if options.passing_only {
        all.extend(["critical", "warning"].map(whole));
    } else {
        all.push(whole("critical")); // the switches of operators
    }
    all
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.silence();
    }
}

impl Bell {
    fn silence(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    /// What tells each ring from now on.
    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        let mut rung = self.rung.clone();
        rung.mark_unchanged();
        rung
    }
}

impl Bells {
    pub(super) fn hear(&self, agents: &Arc<Agents>, options: &Arc<ConsulOptions>) -> Arc<Bell> {
        let mut bell = lock(&self.bell);
        if let Some(bell) = bell.upgrade() {
            return bell;
        }
        let (rings, rung) = watch::channel(0);
        let turns = Arc::new(Semaphore::new(PROBES));
        let tasks = questions(options)
            .into_iter()
            .map(|question| {
                let (agents, options) = (Arc::clone(agents), Arc::clone(options));
                let ringing = ring(agents, options, question, rings.clone(), Arc::clone(&turns));
                tokio::spawn(ringing).abort_handle()
            })
            .collect();
        let new = Arc::new(Bell { rung, tasks, turns });
        *bell = Arc::downgrade(&new);
        new
    }

    /// Ends it, whoever listens.
    pub(super) fn stop(&self) {
        let bell = lock(&self.bell);
        if let Some(bell) = bell.upgrade() {
            bell.silence();
        }
    }
}

/// Rings at every change, and at every failure too: then nobody knows what happened meanwhile.
async fn ring(
    agents: Arc<Agents>,
    options: Arc<ConsulOptions>,
    question: Question,
    rings: watch::Sender<u64>,
    turns: Arc<Semaphore>,
) {
    let wait = options.wait;
    let query = match &options.datacenter {
        Some(datacenter) => format!("&dc={}", segment(datacenter)),
        None => String::new(),
    };
    let mut backoff = Backoff::new();
    let (mut index, mut body, mut agent, mut turned_away) = (0, None, None, 0);
    loop {
        let Some(at) = agent.or_else(|| agents.order(None).next()) else {
            return;
        };
        let blocking = format!("{}{query}&index={index}&wait={}ms", question.path, wait.as_millis());
        let answer = timeout(wait + wait / 8 + SLACK, agents.block(at, None, &blocking)).await;
        match answer {
            Ok(Ok(Some(answer))) => {
                let rung = Instant::now();
                let new = answer.index.unwrap_or(0).max(1);
                let news = if question.is_whole {
                    let new = Some(hash(&answer.body));
                    std::mem::replace(&mut body, new) != new
                } else {
                    new != index
                };
                // An index that goes back is begun anew, as Consul asks for.
                index = if new < index { 0 } else { new };
                agent = Some(at);
                turned_away = 0;
                backoff.reset();
                if news {
                    rings.send_modify(|n| *n += 1);
                }
                sleep(PAUSE).await;
                if news {
                    // Where something changes all the time, agents are to have as much rest as work.
                    let _ = turns.acquire_many(PROBES as u32).await; // never closed
                    sleep(rung.elapsed().saturating_sub(PAUSE).min(REST)).await;
                }
            }
            // No connection is left for it. Watches give some up, so there will be one.
            Ok(Ok(None)) if turned_away < PATIENCE => {
                turned_away += 1;
                sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
            }
            _ => {
                rings.send_modify(|n| *n += 1);
                agents.failed(at);
                (agent, index, body, turned_away) = (None, 0, None, 0);
                sleep(backoff.next_pause()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_what_lists_are_made_of_and_lets_the_agent_sort_out_nothing_it_need_not() {
        let asked = |passing_only, filter: Option<&str>| {
            let options = ConsulOptions {
                passing_only,
                filter: filter.map(str::to_owned),
                ..ConsulOptions::default()
            };
            let all = questions(&options).into_iter();
            all.map(|question| question.path).collect::<Vec<_>>().join(" ")
        };
        let services = "/v1/catalog/services?";
        assert_eq!(
            asked(true, None),
            format!("{services} /v1/health/state/critical? /v1/health/state/warning?")
        );
        assert_eq!(asked(false, None), format!("{services} /v1/health/state/critical?"));
        let any = format!("{services} /v1/health/state/any?filter=Node%20%3D%3D%20%22%22");
        assert_eq!(asked(true, Some("Checks.Output contains x")), any);
    }
}
