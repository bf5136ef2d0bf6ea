//! Lists of a kind, and the watch that goes on from them.
//!
//! A watch is resumed only after the server has ended it in order and has said something in it. After anything else all is
//! listed anew: a server that was restored from an older state takes a version that it has not reached yet, and says nothing.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::client::Cluster;
use super::lines::{LONGEST, Lines};
use super::model::{Event, Head, Status};
use super::reading::{list, question};
use super::store::{Kind, Store};
use crate::error::Result;

/// How much longer than it was asked to be a watch may be silent.
const SLACK: Duration = Duration::from_secs(5);
/// So many lists one after the other, without a watch that said anything, are a fault.
const FRUITLESS: u32 = 3;
/// The pause between two of them.
const AGAIN: Duration = Duration::from_millis(200);

/// Who is told of what is read.
pub(super) trait Sink: Send + Sync {
    /// All of it was read anew.
    fn install(&self, store: Store);

    /// Some of it changes. Returns when there is more to tell without a change.
    fn change(&self, apply: &mut (dyn FnMut(&mut Store, &mut HashSet<Arc<str>>) + Send)) -> Option<Instant>;
}

/// The watch of one kind.
pub(super) struct Watching<S> {
    pub sink: S,
    pub cluster: Arc<Cluster>,
    pub kind: Kind,
}

/// What follows a watch.
enum Next {
    /// Another from this version on.
    From(String),
    /// All is listed anew; and whether the watch ended before its time, and said nothing.
    List { is_early: bool },
}

impl<S: Sink> Watching<S> {
    /// Until something breaks, and why.
    pub(super) async fn go(&self) -> Result<Infallible> {
        let (mut seen, mut fruitless) = (0, 0);
        loop {
            let (store, version) = list(&self.cluster, self.kind, None).await?;
            let number = version.parse::<u64>().unwrap_or(0);
            if number < seen {
                let why = "has another history than before: its data was restored or emptied";
                return Err(self.cluster.broken(why));
            }
            self.sink.install(store);
            let mut from = version;
            loop {
                let begun = from.clone();
                match self.watch(&mut from).await? {
                    Next::From(version) => {
                        fruitless = 0;
                        from = version;
                    }
                    Next::List { is_early } => {
                        fruitless = if is_early && from == begun { fruitless + 1 } else { 0 };
                        seen = seen.max(from.parse().unwrap_or(0));
                        break;
                    }
                }
            }
            if fruitless > FRUITLESS {
                return Err(self.cluster.broken("ends each watch before it has said anything"));
            }
            if fruitless > 1 {
                sleep(AGAIN).await;
            }
        }
    }

    /// One watch, from a version on, which moves with what is told.
    async fn watch(&self, from: &mut String) -> Result<Next> {
        let cluster = &self.cluster;
        let whole = cluster.options.watch_timeout.as_secs().max(1);
        // To the early side, so that a thousand clients do not fall into step.
        let seconds = whole - fastrand::u64(0..=whole / 4);
        let question = question(cluster, self.kind, None).await?;
        let question =
            format!("{question}&watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}");
        let mut response = match cluster.watch(&question).await {
            Ok(response) => response,
            Err(refused) if refused.status == 410 => return Ok(Next::List { is_early: true }),
            Err(refused) => return Err(refused.error),
        };
        let (mut lines, mut said, mut due) = (Lines::default(), false, None::<Instant>);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut dead = end + SLACK;
        loop {
            let tells = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let piece = tokio::select! {
                piece = response.chunk() => piece.map_err(|error| cluster.lost(error))?,
                () = tells => {
                    due = self.sink.change(&mut |_, _| ());
                    continue;
                }
                () = sleep_until(dead) => {
                    return Err(cluster.broken(&format!("has said nothing in a watch for {seconds} s and 5 s more")));
                }
            };
            dead = dead.max(Instant::now() + SLACK);
            let Some(piece) = piece else {
                if lines.is_half() {
                    return Err(cluster.broken("ended a watch in the middle of a line"));
                }
                if said {
                    return Ok(Next::From(from.clone()));
                }
                let is_early = Instant::now() + SLACK / 10 < end;
                return Ok(Next::List { is_early });
            };
            lines.push(&piece);
            let mut ended = None;
            due = self.sink.change(&mut |store, changed| {
                ended = self.take_in(&mut lines, from, &mut said, store, changed).transpose();
            });
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Takes in the lines that are there. Returns what follows the watch, when one of them ends it.
    fn take_in(
        &self,
        lines: &mut Lines,
        from: &mut String,
        said: &mut bool,
        store: &mut Store,
        changed: &mut HashSet<Arc<str>>,
    ) -> Result<Option<Next>> {
        let cluster = &self.cluster;
        let too_long = |_| cluster.broken(&format!("told of something larger than {LONGEST} bytes"));
        while let Some(line) = lines.next().map_err(too_long)? {
            let strange =
                |error: serde_json::Error| cluster.broken(&format!("told of something that is no event: {error}"));
            let event: Event<'_> = serde_json::from_slice(line).map_err(strange)?;
            let version = match event.kind {
                "ADDED" | "MODIFIED" => {
                    let put = store.put(self.kind, &cluster.options, event.object, changed);
                    put.map(|(_, version)| version).unwrap_or_default()
                }
                "DELETED" | "BOOKMARK" => {
                    let head: Head = serde_json::from_str(event.object.get()).map_err(strange)?;
                    if event.kind == "DELETED" {
                        let key = format!("{}/{}", head.metadata.namespace, head.metadata.name);
                        store.take(&key, changed);
                    }
                    head.metadata.resource_version
                }
                "ERROR" => {
                    let status: Status = serde_json::from_str(event.object.get()).unwrap_or_default();
                    if status.code == 410 {
                        return Ok(Some(Next::List { is_early: true }));
                    }
                    return Err(cluster.told(status).error);
                }
                _ => String::new(), // of a later version of the API
            };
            *said = true;
            if !version.is_empty() {
                *from = version;
            }
        }
        Ok(None)
    }
}
