//! Consul's key-value store as a store. A key has no slash in front there, as usual with Consul.
//!
//! Ranges are read in one transaction, so at one moment. They are followed by one blocking query for the names of all keys
//! below what the ranges have in common, which comes back when one of them has changed; then all is read anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::BoxStream;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::agents::{Answer, Own, Queue};
use super::bell::SLACK;
use super::life::Life;
use super::shared::Shared;
use crate::backend::{Steps, steps};
use crate::error::{Error, ErrorKind, Result};
use crate::http::segment;
use crate::store::{Commit, Compare, Moment, Pair, Range, Read, Store, Write, common_folder};

/// Between two looks where no connection is left for a held query.
const LOOK: Duration = Duration::from_secs(1);
/// No key: asked for, it tells the index of the whole store.
const NO_KEY: &str = "@rollcall-none";

/// Consul as a store, over the agents of the backend.
pub(super) struct ConsulStore(pub(super) Arc<Shared>);

#[async_trait]
impl Store for ConsulStore {
    async fn read(&self, ranges: &[Range]) -> Result<Read> {
        let agent = self.0.agents.order(None).next().unwrap_or_default();
        let result = read(&self.0, agent, ranges).await;
        result
            .inspect_err(|error| self.0.agents.failed_by(agent, error))
            .map_err(|error| about(error, ranges))
    }

    fn follow(&self, ranges: &Arc<[Range]>) -> BoxStream<'static, Result<Read>> {
        steps(Following {
            shared: Arc::clone(&self.0),
            prefix: common_folder(ranges).to_owned(),
            ranges: Arc::clone(ranges),
            at: None,
            index: 0,
            own: None,
            known: HashMap::new(),
        })
    }

    async fn commit(&self, compares: &[Compare], writes: &[Write], within: Duration) -> Result<Commit> {
        let deadline = Instant::now() + within;
        let agent = self.0.agents.order(None).next().unwrap_or_default();
        let result = commit(&self.0, agent, compares, writes, deadline).await;
        if let Err(error) = &result
            && (error.is_retryable() || error.is_outcome_unknown())
        {
            self.0.agents.failed(agent);
        }
        result.map_err(|error| error.about(writes.first().map(Write::key).unwrap_or_default()))
    }
}

/// How Consul calls a key, or what keys begin with.
fn bare(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

/// A key in a path.
fn path_of(key: &str) -> String {
    let parts: Vec<String> = bare(key).split('/').map(segment).collect();
    format!("/v1/kv/{}", parts.join("/"))
}

fn about(error: Error, ranges: &[Range]) -> Error {
    error.about(ranges.first().map(Range::text).unwrap_or_default())
}

impl Shared {
    /// Of a question that the leader answers after asking the others whether it still is.
    fn store_query(&self) -> String {
        match &self.options.datacenter {
            Some(datacenter) => format!("?consistent&dc={}", segment(datacenter)),
            None => "?consistent".to_owned(),
        }
    }
}

/// What a transaction gave for one of its reads and writes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    key: String,
    #[serde(default)]
    value: Option<String>,
    modify_index: u64,
}

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "KV")]
    pair: Option<Found>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Results {
    #[serde(default)]
    results: Option<Vec<Given>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    #[serde(default)]
    errors: Option<Vec<Why>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Why {
    #[serde(default)]
    what: String,
}

/// All pairs of some ranges, at one moment.
async fn read(shared: &Shared, agent: usize, ranges: &[Range]) -> Result<Read> {
    let agents = &shared.agents;
    // Before what it is of: what is read later may be newer, and is told again at the next change.
    let index = index(shared, agent, ranges).await?;
    let get = |range: &Range| {
        let (verb, key) = match range {
            Range::Key(key) => ("get-or-empty", key),
            Range::Under(prefix) => ("get-tree", prefix),
        };
        json!({ "KV": { "Verb": verb, "Key": bare(key) } })
    };
    let body = Value::from(ranges.iter().map(get).collect::<Vec<_>>()).to_string();
    let path = format!("/v1/txn{}", shared.store_query());
    let answer = agents
        .call(agent, Queue::Reads, Method::PUT, &path, Some(body), agents.limit())
        .await?;
    if answer.status == 409 {
        return Err(refused(&answer).unwrap_or_else(|| answer.refusal("the read failed")));
    }
    let results: Results = answer.checked()?.json()?;
    let mut pairs = Vec::new();
    let mut revision = index;
    for found in results.results.into_iter().flatten().filter_map(|given| given.pair) {
        if found.modify_index == 0 {
            continue; // there is none
        }
        let pair = pair(found)?;
        revision = revision.max(pair.revision);
        pairs.push(Arc::new(pair));
    }
    Ok(Read {
        pairs,
        moment: Moment { cluster: 0, revision },
    })
}

fn pair(found: Found) -> Result<Pair> {
    let value = STANDARD.decode(found.value.unwrap_or_default());
    Ok(Pair {
        key: format!("/{}", found.key).into(),
        value: value
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the answer is none of Consul's"))?
            .into(),
        revision: revision_of(found.modify_index),
    })
}

fn revision_of(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// The index of the last change of the whole store: what Consul tells of a key that is not there.
async fn index(shared: &Shared, agent: usize, ranges: &[Range]) -> Result<i64> {
    let folder = ranges.first().map(Range::text).unwrap_or_default();
    let path = path_of(&format!("{}/{NO_KEY}", folder.trim_end_matches('/')));
    let path = format!("{path}{}", shared.store_query());
    let agents = &shared.agents;
    let answer = agents
        .call(agent, Queue::Reads, Method::GET, &path, None, agents.limit())
        .await?;
    Ok(revision_of(found_or_none(answer)?.index.unwrap_or(0).max(1)))
}

/// The answer, where there is something and where there is nothing.
fn found_or_none(answer: Answer) -> Result<Answer> {
    if answer.status == 404 && answer.index.is_some() {
        Ok(answer)
    } else {
        answer.checked()
    }
}

/// Why a transaction was refused, unless it is that a key is not as it was expected.
fn refused(answer: &Answer) -> Option<Error> {
    let Refused { errors } = answer.json().ok()?;
    let mut denied = errors
        .into_iter()
        .flatten()
        .filter(|why| why.what.contains("ermission denied"));
    denied.next().map(|why| {
        let text = format!("the token may not: {} (it needs key:read and key:write)", why.what);
        Error::new(ErrorKind::PermissionDenied, text).at(answer.base())
    })
}

/// One transaction. It is sent once, and again only where it has changed nothing.
async fn commit(
    shared: &Shared,
    agent: usize,
    compares: &[Compare],
    writes: &[Write],
    deadline: Instant,
) -> Result<Commit> {
    let agents = &shared.agents;
    loop {
        // Consul does not say how many it has deleted: what is there is read before, and has to stay so.
        let gone = deleted(shared, agent, compares, writes).await?;
        let all = compares.iter().chain(&gone);
        let ops: Vec<Value> = all.map(check).chain(writes.iter().map(operation)).collect();
        let path = match &shared.options.datacenter {
            Some(datacenter) => format!("/v1/txn?dc={}", segment(datacenter)),
            None => "/v1/txn".to_owned(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(agents.silent(agent, left));
        }
        let answer = agents
            .once(agent, Method::PUT, &path, Value::from(ops).to_string(), left)
            .await?;
        if answer.status == 409 {
            if let Some(error) = refused(&answer) {
                return Err(error);
            }
            if compares.is_empty() {
                continue; // it was one of `gone`
            }
            let keys: Vec<Range> = compares
                .iter()
                .map(|compare| Range::Key(Arc::clone(&compare.key)))
                .collect();
            let mut there: HashMap<_, _> = by_key(read(shared, agent, &keys).await?);
            let current: Vec<_> = compares.iter().map(|compare| there.remove(&compare.key)).collect();
            let holds = |(compare, pair): (&Compare, &Option<Arc<Pair>>)| compare.revision == revision(pair.as_ref());
            if compares.iter().zip(&current).all(holds) {
                continue;
            }
            return Ok(Commit::Conflict { current });
        }
        let results: Results = answer.checked()?.json().map_err(Error::with_unknown_outcome)?;
        let written = results.results.into_iter().flatten().filter_map(|given| given.pair);
        let last = written.map(|pair| revision_of(pair.modify_index)).max();
        let keys: Vec<Range> = writes.iter().map(|write| Range::Key(write.key().into())).collect();
        let revision = match last {
            Some(revision) => revision,
            // It was made; only when is not known.
            None => index(shared, agent, &keys).await.map_err(Error::with_unknown_outcome)?,
        };
        let is_gone = |key: &str| compares.iter().chain(&gone).any(|c| *c.key == *key && c.revision > 0);
        let deletes = writes
            .iter()
            .filter(|write| matches!(write, Write::Delete(key) if is_gone(key)));
        return Ok(Commit::Done {
            moment: Moment { cluster: 0, revision },
            deleted: deletes.count(),
        });
    }
}

/// What stands at the keys that are deleted, and that nothing is expected of.
async fn deleted(shared: &Shared, agent: usize, compares: &[Compare], writes: &[Write]) -> Result<Vec<Compare>> {
    let free = |key: &Arc<str>| !compares.iter().any(|compare| compare.key == *key);
    let keys: Vec<Arc<str>> = writes
        .iter()
        .filter_map(|write| match write {
            Write::Delete(key) if free(key) => Some(Arc::clone(key)),
            _ => None,
        })
        .collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let ranges: Vec<Range> = keys.iter().cloned().map(Range::Key).collect();
    let there = by_key(read(shared, agent, &ranges).await?);
    let compare = |key: Arc<str>| Compare {
        revision: revision(there.get(&key)),
        key,
    };
    Ok(keys.into_iter().map(compare).collect())
}

fn by_key(read: Read) -> HashMap<Arc<str>, Arc<Pair>> {
    read.pairs
        .into_iter()
        .map(|pair| (Arc::clone(&pair.key), pair))
        .collect()
}

fn revision(pair: Option<&Arc<Pair>>) -> i64 {
    pair.map_or(0, |pair| pair.revision)
}

fn check(compare: &Compare) -> Value {
    let key = bare(&compare.key);
    if compare.revision == 0 {
        json!({ "KV": { "Verb": "check-not-exists", "Key": key } })
    } else {
        json!({ "KV": { "Verb": "check-index", "Key": key, "Index": compare.revision } })
    }
}

fn operation(write: &Write) -> Value {
    match write {
        Write::Put(key, value) => {
            json!({ "KV": { "Verb": "set", "Key": bare(key), "Value": STANDARD.encode(value) } })
        }
        Write::Delete(key) => json!({ "KV": { "Verb": "delete", "Key": bare(key) } }),
    }
}

struct Following {
    shared: Arc<Shared>,
    ranges: Arc<[Range]>,
    /// What all of them have in common.
    prefix: String,
    /// The agent that is asked, once there was an answer.
    at: Option<(usize, Arc<Life>)>,
    /// Of the keys below the prefix.
    index: u64,
    own: Option<Own>,
    known: HashMap<Arc<str>, Arc<Pair>>,
}

impl Steps for Following {
    type Read = Read;

    async fn next(&mut self) -> Result<Read> {
        let Some((agent, life)) = self.at.clone() else {
            let agent = self.shared.agents.order(None).next().unwrap_or_default();
            let first = async {
                self.index = self.look(agent, None).await?.unwrap_or(1);
                self.read(agent).await
            };
            let read = first.await;
            let read = read.inspect_err(|error| self.shared.agents.failed_by(agent, error))?;
            self.at = Some((agent, self.shared.lives.of(&self.shared.agents, agent)));
            return Ok(read);
        };
        tokio::select! {
            error = life.over() => Err(error),
            read = self.changed(agent) => read,
        }
    }

    fn ended(&mut self, error: Error) -> Error {
        if let Some((agent, _)) = &self.at {
            self.shared.agents.failed_by(*agent, &error);
        }
        about(error, &self.ranges)
    }
}

impl Following {
    /// What there is after the next change.
    async fn changed(&mut self, agent: usize) -> Result<Read> {
        loop {
            if !self
                .own
                .as_ref()
                .is_some_and(|own| self.shared.agents.suits(agent, own))
            {
                self.own = self.shared.agents.own(agent);
            }
            let index = if self.own.is_some() {
                self.look(agent, Some(self.index)).await?
            } else {
                None
            };
            let index = if let Some(index) = index {
                index
            } else {
                sleep(LOOK.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                self.look(agent, None).await?.unwrap_or(self.index)
            };
            if index != self.index {
                self.index = index;
                return self.read(agent).await;
            }
        }
    }

    /// The index of the keys; with one that is known, as soon as it is another one. `None` when there is no connection for that.
    async fn look(&mut self, agent: usize, known: Option<u64>) -> Result<Option<u64>> {
        let agents = &self.shared.agents;
        let path = format!("{}{}&keys", path_of(&self.prefix), self.shared.store_query());
        let answer = match known {
            None => {
                let answer = agents.call(agent, Queue::Reads, Method::GET, &path, None, agents.limit());
                Some(answer.await?)
            }
            Some(index) => {
                let wait = self.shared.options.wait.mul_f64(0.9 + fastrand::f64() / 10.0);
                let path = format!("{path}&index={index}&wait={}ms", wait.as_millis());
                let limit = wait + wait / 8 + SLACK;
                timeout(limit, agents.held(agent, self.own.as_ref(), &path))
                    .await
                    .unwrap_or_else(|_| Err(agents.silent(agent, limit)))?
            }
        };
        let index = |answer: Answer| Ok(found_or_none(answer)?.index.unwrap_or(0).max(1));
        answer.map(index).transpose()
    }

    async fn read(&mut self, agent: usize) -> Result<Read> {
        let mut read = read(&self.shared, agent, &self.ranges).await?;
        for pair in &mut read.pairs {
            // One that has not changed keeps its `Arc`.
            if let Some(same) = self.known.get(&pair.key).filter(|known| *known == pair) {
                *pair = Arc::clone(same);
            }
        }
        self.known = read
            .pairs
            .iter()
            .map(|pair| (Arc::clone(&pair.key), Arc::clone(pair)))
            .collect();
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_query_is_for_what_all_ranges_have_in_common() {
        let under = |prefix: &str| Range::Under(prefix.into());
        assert_eq!(common_folder(&[under("/config/a/")]), "/config/a/");
        assert_eq!(common_folder(&[Range::Key("/config/a".into())]), "/config/");
        assert_eq!(
            common_folder(&[under("/config/dev/orders/"), under("/config/dev/über/")]),
            "/config/dev/"
        );
        assert_eq!(common_folder(&[under("/config/"), under("/other/")]), "/");
        assert_eq!(path_of("/config/dev/"), "/v1/kv/config/dev/");
        assert_eq!(path_of("/"), "/v1/kv/");
        assert_eq!(path_of("/a b/@x=ü"), "/v1/kv/a%20b/%40x%3D%C3%BC");
    }
}
