//! What the backend, its presences and its streams have in common, and how a list is read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::agents::{Agents, Answer};
use super::bell::Bells;
use super::leftovers::Leftovers;
use super::life::Lives;
use super::options::ConsulOptions;
use super::record;
use super::words::check_word;
use crate::backend::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::http::segment;
use crate::log::Log;

/// How long a server that lags behind is waited for, where reads may be stale.
pub(super) const LAG: Duration = Duration::from_secs(3);

/// What the backend, its presences and its streams have in common.
pub(super) struct Shared {
    pub(super) agents: Arc<Agents>,
    pub(super) options: Arc<ConsulOptions>,
    pub(super) bells: Bells,
    pub(super) lives: Lives,
    pub(super) leftovers: Arc<Leftovers>,
    pub(super) log: Log,
}

/// What is read of a check that does not pass.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FailedCheck {
    node: String,
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    service_name: String,
}

impl Shared {
    /// The path of the list of a name.
    pub(super) fn health_path(&self, name: &str) -> Result<String> {
        check_word("name", name)?;
        Ok(format!(
            "/v1/health/service/{}?{}{}",
            segment(name),
            if self.options.passing_only { "passing=1&" } else { "" },
            self.options.read_query()
        ))
    }

    /// The names of which an instance is not listed because of its checks, so that perhaps none is.
    pub(super) async fn doubtful(&self, names: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        if self.options.filter.is_some() {
            return Ok(names.clone());
        }
        let mut doubtful = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        let states: &[&str] = if self.options.passing_only {
            &["critical", "warning"]
        } else {
            &["critical"] // a switch of an operator is critical
        };
        for state in states {
            let path = format!("/v1/health/state/{state}?{}", self.options.read_query());
            for check in self.agents.read(&path).await?.1.list::<FailedCheck>()? {
                let Ok(check) = check else {
                    return Ok(names.clone()); // it may be of any of them
                };
                if !self.options.passing_only && !record::is_switch(&check.id) {
                    continue;
                }
                if check.service_name.is_empty() {
                    nodes.insert(check.node);
                } else {
                    doubtful.insert(check.service_name);
                }
            }
        }
        for node in nodes {
            let path = format!(
                "/v1/catalog/node-services/{}?{}",
                segment(&node),
                self.options.read_query()
            );
            let (_, answer) = self.agents.read(&path).await?;
            let services: Value = answer.json()?;
            let of_node = services.get("Services").and_then(Value::as_array);
            for service in of_node.into_iter().flatten() {
                if let Some(name) = service.get("Service").and_then(Value::as_str) {
                    doubtful.insert(name.to_owned());
                }
            }
        }
        Ok(doubtful.intersection(names).cloned().collect())
    }
}

/// Reads the list of a name out of an answer.
pub(super) fn snapshot(name: &str, answer: &Answer) -> Result<Snapshot> {
    let snapshot = record::read_list(&name.into(), answer)?;
    if snapshot.instances.is_empty() && answer.filtered {
        // An empty list because of a missing right would be an invented one.
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("the token may not read the service {name:?} (or its nodes); it needs service:read and node:read"),
        )
        .at(answer.base()));
    }
    Ok(snapshot)
}
