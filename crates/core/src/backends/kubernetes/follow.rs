//! Names followed, and the names, in pods, in slices, or in whichever of the two has something.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::select_all;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::feed::{Feed, Follower, Names, Told};
use crate::backend::{ServiceName, Snapshot};
use crate::error::{Error, ErrorKind, Result};

/// One read of several sources: the first that has something counts, and what is no instance is told of all.
pub(super) fn first_of(lists: impl IntoIterator<Item = Snapshot>) -> Snapshot {
    let mut all = Snapshot::default();
    for list in lists {
        if all.instances.is_empty() {
            all.instances = list.instances;
        }
        all.bad.extend(list.bad);
    }
    all
}

/// Each name once, of several sources.
fn union(lists: impl IntoIterator<Item = Names>) -> Names {
    let mut all: HashMap<Arc<str>, Arc<ServiceName>> = HashMap::new();
    for name in lists.into_iter().flatten() {
        all.entry(Arc::clone(&name.name)).or_insert(name);
    }
    all.into_values().collect()
}

/// What failed of several sources ends it, but a refusal while another one is allowed.
pub(super) fn allowed<T>(read: Vec<Result<T>>) -> Result<Vec<T>> {
    let mut refusal = None;
    let mut lists = Vec::with_capacity(read.len());
    for one in read {
        match one {
            Ok(list) => lists.push(list),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => refusal = Some(error),
            Err(error) => return Err(error),
        }
    }
    match refusal {
        Some(error) if lists.is_empty() => Err(error),
        _ => Ok(lists),
    }
}

/// Whole lists of a name.
pub(super) fn follow(feeds: &[Arc<Feed>], name: &str) -> BoxStream<'static, Result<Snapshot>> {
    let name: Arc<str> = name.into();
    joined(feeds, move |feed| feed.follow(&name), first_of)
}

/// Whole lists of the names.
pub(super) fn follow_names(feeds: &[Arc<Feed>]) -> BoxStream<'static, Result<Names>> {
    joined(feeds, Feed::follow_names, union)
}

/// One source of a stream, and what it has told last.
struct Part<T> {
    follower: Follower<T>,
    told: Told<T>,
}

enum State<T> {
    Start,
    On(Vec<Part<T>>),
    Over,
}

fn joined<T: Clone + Send + Sync + 'static>(
    feeds: &[Arc<Feed>],
    follow: impl Fn(&Arc<Feed>) -> Follower<T> + Send + 'static,
    join: fn(Vec<T>) -> T,
) -> BoxStream<'static, Result<T>> {
    let feeds = feeds.to_vec();
    stream::unfold((State::Start, follow), move |(state, follow)| {
        let feeds = feeds.clone();
        async move {
            let mut parts = match state {
                State::Start => feeds
                    .iter()
                    .map(|feed| Part {
                        follower: follow(feed),
                        told: Told::Nothing,
                    })
                    .collect(),
                State::On(parts) => parts,
                State::Over => return None,
            };
            Some(match next(&mut parts).await {
                Ok(lists) => (Ok(join(lists)), (State::On(parts), follow)),
                Err(error) => (Err(error), (State::Over, follow)),
            })
        }
    })
    .boxed()
}

/// Waits until a source tells something, and all have told something.
async fn next<T: Clone + Send + Sync>(parts: &mut [Part<T>]) -> Result<Vec<T>> {
    loop {
        let changes = parts.iter_mut().filter(|part| !matches!(part.told, Told::Broken(_)));
        let changes: Vec<_> = changes.map(|part| Box::pin(changed(part))).collect();
        if changes.is_empty() {
            return Err(Error::new(ErrorKind::Internal, "nothing is followed any more"));
        }
        select_all(changes).await;
        let told = parts.iter().filter_map(|part| match &part.told {
            Told::Nothing => None,
            Told::List(list) => Some(Ok(list.clone())),
            Told::Broken(error) => Some(Err(error.clone())),
        });
        let told: Vec<_> = told.collect();
        let is_broken = |told: &Result<T>| {
            let error = told.as_ref().err();
            error.is_some_and(|error| error.kind() != ErrorKind::PermissionDenied)
        };
        if told.len() == parts.len() || told.iter().any(is_broken) {
            return allowed(told);
        }
    }
}

async fn changed<T: Clone>(part: &mut Part<T>) {
    let Some(told) = &mut part.follower.told else {
        return std::future::pending().await;
    };
    part.told = match told.changed().await {
        Ok(()) => told.borrow_and_update().clone(),
        Err(_) => Told::Broken(Error::new(ErrorKind::Closed, "the client is closed")),
    };
}
