//! Heartbeats, and looking whether the record stands. A server answers the first four heartbeats of what it does not know as
//! if it did, so a heartbeat proves nothing: the record is looked for, and written again after every connection that was lost.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::client::{Answered, Connection, Method};
use super::record::at;
use super::standing::{Record, Stands};
use crate::backend::Loss;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};

/// For how long after it was written a record may not be known yet to all of a server.
const NOT_YET: Duration = Duration::from_secs(3);

/// Until the record is lost, and why it is.
pub(super) async fn run(record: Arc<Record>) -> Loss {
    let ttl = record.shared.options.ttl;
    let deadline = || record.lock().renewed.unwrap_or_else(Instant::now) + ttl;
    let mut backoff = Backoff::new();
    let mut next = pause(ttl);
    // Its end was heard: a round that has nothing to do, as a publication is under way, leaves it in its place.
    let mut heard: Option<Arc<Connection>> = None;
    loop {
        let connection = record.lock().on.clone();
        let is_heard = heard.as_ref().map(Arc::as_ptr) == connection.as_ref().map(Arc::as_ptr);
        let ended = async {
            match &connection {
                Some(connection) if backoff.is_fresh() && !is_heard => drop(connection.over().await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = ended => heard.clone_from(&connection),
        }
        let round = timeout_at(deadline(), round(&record)).await.unwrap_or_else(|_| {
            let why = "no answer came in time";
            Err(Error::new(ErrorKind::Timeout, why))
        });
        match round {
            Ok(Some(loss)) => return loss,
            Ok(None) => {
                backoff.reset();
                next = pause(ttl);
            }
            Err(error) => {
                if Instant::now() >= deadline() {
                    let why = format!("no heartbeat for its TTL of {} ms: {error}", ttl.as_millis());
                    return Loss::Gone(why);
                }
                next = (Instant::now() + backoff.next_pause().min(ttl / 4)).min(deadline());
            }
        }
    }
}

/// Sends heartbeats alone, without end, for a record that is lost and can't be written again because a server refuses us: it
/// takes heartbeats from anybody. What of it stands, or comes into sight again, stays healthy until it can be repaired.
pub(super) async fn beat_on(record: Arc<Record>) -> Loss {
    let ttl = record.shared.options.ttl;
    loop {
        if let Ok(Ok(connection)) = timeout(ttl, record.shared.client.connection()).await {
            let _ = beat(&record, &connection).await; // what comes of it the next publication finds out
        }
        sleep_until(pause(ttl)).await;
    }
}

/// One heartbeat for each record; what each was answered.
async fn beat(record: &Record, connection: &Connection) -> Vec<Result<Answered>> {
    let places: Vec<_> = record.lock().records.keys().cloned().collect();
    let form = &record.shared.form;
    let beats = places
        .iter()
        .map(|place| connection.call(Method::Beat, at(form, place)));
    join_all(beats).await
}

/// Jittered to the early side, so that a thousand instances do not fall into step.
fn pause(ttl: Duration) -> Instant {
    Instant::now() + (ttl / 2).mul_f64(0.9 + fastrand::f64() / 10.0)
}

/// One round: what it says of a loss.
async fn round(record: &Arc<Record>) -> Result<Option<Loss>> {
    let connection = record.shared.client.connection().await?;
    let is_new = record.lock().on.as_ref().is_none_or(|on| !Arc::ptr_eq(on, &connection));
    // A server that refuses us may take heartbeats all the same.
    if is_new {
        match register_again(record, &connection).await {
            Ok(loss) => return Ok(loss),
            Err(error) if error.is_retryable() => return Err(error),
            Err(_) => {}
        }
    }
    let is_young = || record.lock().registered.is_some_and(|at| at.elapsed() < NOT_YET);
    let sent = Instant::now();
    for beat in beat(record, &connection).await {
        if beat? == Answered::Unknown && !is_young() {
            return Ok(Some(Loss::Gone(format!(
                "Polaris at {} does not know it",
                connection.address()
            ))));
        }
    }
    record.lock().renewed = Some(sent);
    let lists = match record.shared.read(&connection, &record.name).await {
        Ok(lists) => lists,
        Err(error) if error.is_retryable() => return Err(error),
        Err(_) => return Ok(None), // its heartbeats are taken
    };
    match record.stands(&lists) {
        Stands::Replaced => Ok(Some(Loss::Replaced)),
        Stands::Missing if !is_young() => {
            let why = format!("Polaris at {} does not list it any more", connection.address());
            Ok(Some(Loss::Gone(why)))
        }
        // One heartbeat may not be enough.
        Stands::Unhealthy if !is_young() => register_again(record, &connection).await,
        Stands::Whole | Stands::Missing | Stands::Unhealthy => Ok(None),
    }
}

/// Writes what was published last once more, if it is still ours.
async fn register_again(record: &Arc<Record>, connection: &Arc<Connection>) -> Result<Option<Loss>> {
    // A publication writes it right now.
    let Ok(_moving) = record.moving.try_lock() else {
        return Ok(None);
    };
    let lists = record.shared.read(connection, &record.name).await?;
    if record.stands(&lists) == Stands::Replaced {
        return Ok(Some(Loss::Replaced));
    }
    let records = record.lock().records.clone();
    record.register(connection, &lists, &records).await?;
    Ok(None)
}
