//! The names. Polaris lists services, those that have lost their last instance too, so each is looked into: again, with what is
//! known of it, when they are followed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use tokio::time::{Instant, sleep_until};

use super::client::{Connection, List};
use super::shared::Shared;
use crate::backend::{ServiceName, Steps, steps};
use crate::error::{Error, Result};
use crate::instance::validate_name;

/// How often all services are asked for.
const EVERY: Duration = Duration::from_secs(2);
/// Services that are asked for at once.
const AT_ONCE: usize = 32;

/// What is known of a service.
#[derive(Default)]
struct Known {
    revision: String,
    name: Option<Arc<str>>,
}

/// What is known of all services.
type Book = HashMap<String, Known>;

/// Reads the names.
pub(super) async fn read(shared: &Shared) -> Result<Vec<String>> {
    let connection = shared.client.connection().await?;
    let mut book = Book::new();
    look(shared, &connection, &mut book).await?;
    Ok(names(&book).iter().map(std::string::ToString::to_string).collect())
}

fn names(book: &Book) -> BTreeSet<Arc<str>> {
    book.values().filter_map(|known| known.name.clone()).collect()
}

/// Asks for all services and for what has changed of each.
async fn look(shared: &Shared, connection: &Connection, book: &mut Book) -> Result<()> {
    let form = &shared.form;
    let services = connection.services(&form.namespace).await?;
    let before = std::mem::take(book);
    let revision = |service: &str| before.get(service).map_or("", |known| &known.revision);
    let changes: Vec<(String, Option<List>)> = stream::iter(services)
        .map(|service| async {
            let list = connection.list(&form.namespace, &service, revision(&service)).await?;
            Ok::<_, Error>((service, list))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut before = before;
    for (service, list) in changes {
        let mut known = before.remove(&service).unwrap_or_default();
        if let Some(list) = list {
            known.revision = list.revision;
            let name = form.name_in(&service, &list.instances);
            // What has no place in the contract is no name.
            let name = name.filter(|name| validate_name("", name).is_ok());
            if known.name.as_deref() != name {
                known.name = name.map(Into::into);
            }
        }
        book.insert(service, known);
    }
    Ok(())
}

struct Following {
    shared: Arc<Shared>,
    on: Option<Arc<Connection>>,
    book: Book,
    next: Instant,
    /// The last list, which the next shares its names with.
    last: HashMap<Arc<str>, Arc<ServiceName>>,
}

pub(super) fn follow(shared: Arc<Shared>) -> BoxStream<'static, Result<Vec<Arc<ServiceName>>>> {
    let start = Following {
        shared,
        on: None,
        book: Book::new(),
        next: Instant::now(),
        last: HashMap::new(),
    };
    steps(start)
}

impl Steps for Following {
    type Read = Vec<Arc<ServiceName>>;

    async fn next(&mut self) -> Result<Vec<Arc<ServiceName>>> {
        let is_first = self.on.is_none();
        let connection = match &self.on {
            Some(connection) => Arc::clone(connection),
            None => Arc::clone(self.on.insert(self.shared.client.connection().await?)),
        };
        loop {
            if !is_first {
                tokio::select! {
                    () = sleep_until(self.next) => {}
                    error = connection.over() => return Err(error),
                }
            }
            look(&self.shared, &connection, &mut self.book).await?;
            self.next = Instant::now() + EVERY;
            let names = names(&self.book);
            if is_first || names.len() != self.last.len() || !names.iter().all(|name| self.last.contains_key(name)) {
                let entry = |name: Arc<str>| {
                    let entry = self.last.get(&name).cloned();
                    let entry = entry.unwrap_or_else(|| {
                        Arc::new(ServiceName {
                            name: Arc::clone(&name),
                            count: None,
                        })
                    });
                    (name, entry)
                };
                self.last = names.into_iter().map(entry).collect();
                return Ok(self.last.values().cloned().collect());
            }
        }
    }
}
