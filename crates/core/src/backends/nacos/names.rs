//! The names. Nacos lists services, those that have lost their last instance too, so each is looked into.
//!
//! To follow them, the services are listed every second, which is one short question, and each is subscribed to.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::client::{Connection, List, Packed, Subscription, bare};
use super::merge::names_of;
use super::shared::Shared;
use crate::backend::{ServiceName, Steps, steps};
use crate::error::{Error, Result};
use crate::instance::validate_name;

/// How often the services are listed.
const EVERY: Duration = Duration::from_secs(1);
/// The least time between two lists of names, when many services change.
const GAP: Duration = Duration::from_millis(50);
/// Services of one answer.
const PAGE: usize = 500;
/// The most pages: half a million services.
const PAGES: usize = 1000;
/// Services that are asked at once.
const AT_ONCE: usize = 32;

/// The services of the namespace and group.
pub(super) async fn services(connection: &Connection) -> Result<BTreeSet<String>> {
    let scope = connection.scope();
    let mut all = BTreeSet::new();
    for page in 1..=PAGES {
        let body = json!({
            "namespace": scope.namespace, "groupName": scope.group, "serviceName": "",
            "pageNo": page, "pageSize": PAGE, "selector": "", "module": "naming",
        });
        let answer = connection.request("ServiceListRequest", &body).await?;
        let names = answer.get("serviceNames").and_then(Value::as_array);
        let names: Vec<&str> = names.into_iter().flatten().filter_map(Value::as_str).collect();
        all.extend(names.iter().map(|name| bare(name).to_owned()));
        let count = answer.get("count").and_then(Value::as_u64).unwrap_or(0);
        if names.is_empty() || u64::try_from(page * PAGE).is_ok_and(|seen| seen >= count) {
            break;
        }
    }
    Ok(all)
}

/// Reads the names.
pub(super) async fn read(shared: &Shared) -> Result<Vec<String>> {
    let connection = shared.client.connection().await?;
    let services = services(&connection).await?;
    let names: BTreeSet<String> = stream::iter(services)
        .map(|service| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Error>(names_in(shared, &connection.query(&service).await?)) }
        })
        .buffer_unordered(AT_ONCE)
        .try_fold(BTreeSet::new(), |mut all, names| async move {
            all.extend(names);
            Ok(all)
        })
        .await?;
    Ok(names.into_iter().collect())
}

/// The names that have an instance in a list.
fn names_in(shared: &Shared, list: &List) -> BTreeSet<String> {
    let names = names_of(&shared.form, list).filter(|name| is_name(name));
    names.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}

/// What has no place in the contract is no name.
fn is_name(name: &str) -> bool {
    validate_name("", name).is_ok()
}

struct Following {
    shared: Arc<Shared>,
    on: Option<On>,
    /// The last list, whose names are shared with the next.
    last: HashMap<Arc<str>, Arc<ServiceName>>,
}

struct On {
    connection: Arc<Connection>,
    rung: watch::Receiver<u64>,
    subscriptions: HashMap<String, Known>,
    list_at: Instant,
}

/// A service, and the names of the list that was looked into last.
struct Known {
    subscription: Arc<Subscription>,
    list: Option<Arc<Packed>>,
    names: BTreeSet<String>,
}

pub(super) fn follow(shared: Arc<Shared>) -> BoxStream<'static, Result<Vec<Arc<ServiceName>>>> {
    let start = Following {
        shared,
        on: None,
        last: HashMap::new(),
    };
    steps(start)
}

impl Steps for Following {
    type Read = Vec<Arc<ServiceName>>;

    async fn next(&mut self) -> Result<Vec<Arc<ServiceName>>> {
        let Some(on) = &mut self.on else {
            let connection = self.shared.client.connection().await?;
            let on = self.on.insert(On {
                rung: connection.subscriptions.rung(),
                connection,
                subscriptions: HashMap::new(),
                list_at: Instant::now(),
            });
            on.look().await?;
            return Ok(self.names());
        };
        loop {
            tokio::select! {
                _ = on.rung.changed() => {
                    let gap = Instant::now() + GAP;
                    tokio::select! {
                        () = sleep_until(gap) => {}
                        error = on.connection.over() => return Err(error),
                    }
                    on.rung.borrow_and_update();
                    break;
                }
                () = sleep_until(on.list_at) => if on.look().await? { break },
                error = on.connection.over() => return Err(error),
            }
        }
        Ok(self.names())
    }
}

impl Following {
    fn names(&mut self) -> Vec<Arc<ServiceName>> {
        let mut names: HashMap<Arc<str>, Arc<ServiceName>> = HashMap::new();
        for known in self.on.iter_mut().flat_map(|on| on.subscriptions.values_mut()) {
            known.look(&self.shared);
            for name in &known.names {
                if !names.contains_key(name.as_str()) {
                    let entry = self.last.get(name.as_str()).cloned().unwrap_or_else(|| {
                        Arc::new(ServiceName {
                            name: name.as_str().into(),
                            count: None,
                        })
                    });
                    names.insert(Arc::clone(&entry.name), entry);
                }
            }
        }
        self.last = names;
        self.last.values().cloned().collect()
    }
}

impl Known {
    /// Looks into the list, if it is another one.
    fn look(&mut self, shared: &Shared) {
        let list = self.subscription.list().and_then(Result::ok);
        if list.as_ref().map(Arc::as_ptr) != self.list.as_ref().map(Arc::as_ptr) {
            self.names = list
                .as_ref()
                .map(|list| names_in(shared, &list.unpack()))
                .unwrap_or_default();
            self.list = list;
        }
    }
}

impl On {
    /// Lists the services and subscribes to those that are new. Whether any is new or gone.
    async fn look(&mut self) -> Result<bool> {
        let services = services(&self.connection).await?;
        self.list_at = Instant::now() + EVERY;
        let before = self.subscriptions.len();
        self.subscriptions.retain(|service, _| services.contains(service));
        let is_new = |service: &String| !self.subscriptions.contains_key(service);
        let new: Vec<String> = services.into_iter().filter(is_new).collect();
        let is_changed = before != self.subscriptions.len() || !new.is_empty();
        let subscribed: Vec<(String, Known)> = stream::iter(new)
            .map(|service| {
                let connection = Arc::clone(&self.connection);
                async move {
                    let subscription = connection.subscribe(&service, true).await?;
                    let known = Known {
                        subscription,
                        list: None,
                        names: BTreeSet::new(),
                    };
                    Ok::<_, Error>((service, known))
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.subscriptions.extend(subscribed);
        Ok(is_changed)
    }
}
