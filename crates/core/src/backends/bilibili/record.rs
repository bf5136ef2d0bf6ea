//! Records: how an instance is written, byte for byte as Go Kratos does, and how those of anybody are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::options::BilibiliOptions;
use crate::backend::{BadRecord, Snapshot};
use crate::error::{Error, Result};
use crate::http::{or_null, segment};
use crate::instance::{Codec, Metadata, ServiceInstance};

/// Where Kratos keeps the id of an instance: discovery knows a host name alone.
const ID_KEY: &str = "kratos.v2.serviceinstance.id";
/// Who wrote a record, and which of its writings it is: `{owner}:{generation}`.
const OWNER_KEY: &str = "rollcall.owner";
/// The status of an instance that takes calls, a bit of those that a read may ask for.
pub(super) const UP: u32 = 1;
/// The application under which the nodes register themselves.
pub(super) const ITSELF: &str = "infra.discovery";

/// What is read of an instance.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Raw {
    zone: String,
    env: String,
    #[serde(rename = "appid")]
    app: String,
    hostname: String,
    #[serde(deserialize_with = "or_null")]
    addrs: Vec<String>,
    version: String,
    #[serde(deserialize_with = "or_null")]
    metadata: BTreeMap<String, String>,
    pub status: u32,
    #[serde(rename = "dirty_timestamp")]
    pub dirty: i64,
}

/// The instances of an application, by their zones.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
pub(super) struct Info<T> {
    #[serde(deserialize_with = "or_null", default = "BTreeMap::new")]
    pub instances: BTreeMap<String, Option<Vec<T>>>,
    /// A counter of this node and application, which only grows until the application has no instance left.
    pub latest_timestamp: i64,
}

/// An instance, or why it is none.
pub(super) struct Entry(pub Result<Raw, String>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        Ok(Self(Raw::deserialize(value).map_err(|error| error.to_string())))
    }
}

/// Parameters as Go's `url.Values` encodes them.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| segment(text).replace("%20", "+");
    let each = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    each.collect::<Vec<_>>().join("&")
}

impl Raw {
    /// Whether its owner, and which of its writings it is.
    pub(super) fn mark(&self) -> Option<(&str, u64)> {
        let (owner, generation) = self.metadata.get(OWNER_KEY)?.rsplit_once(':')?;
        Some((owner, generation.parse().ok()?))
    }

    /// Its addresses. A node that was told of it by another has all of them in one text.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        let each = self.addrs.iter().flat_map(|addresses| addresses.split(','));
        each.filter(|address| !address.is_empty())
    }

    /// Whether it is what it was asked for: the server joins application and environment by a dash.
    fn is_of(&self, name: &str, env: &str) -> bool {
        self.app == name && self.env == env && self.status & UP != 0
    }

    fn into_instance(mut self, name: &Arc<str>) -> ServiceInstance {
        let id = self.metadata.remove(ID_KEY).filter(|id| !id.is_empty());
        self.metadata.remove(OWNER_KEY);
        ServiceInstance {
            endpoints: self.addresses().map(Box::from).collect(),
            id: id.unwrap_or(self.hostname).into(),
            name: Arc::clone(name),
            version: self.version.into(),
            metadata: self.metadata.into_iter().collect(),
            since: None,
        }
    }
}

/// Refuses what discovery can't hold as it is; names what it is.
pub(super) fn check_instance(instance: &ServiceInstance) -> Result<()> {
    if *instance.name == *ITSELF {
        return Err(Error::invalid(format!(
            "instance.name: {ITSELF:?} is what discovery's own nodes are registered as; take another name"
        )));
    }
    if let Some(key) = [ID_KEY, OWNER_KEY]
        .into_iter()
        .find(|key| instance.metadata.get(key).is_some())
    {
        return Err(Error::invalid(format!(
            "instance.metadata[{key:?}]: it is written by itself; take another key"
        )));
    }
    for (i, endpoint) in instance.endpoints.iter().enumerate() {
        if endpoint.contains(',') {
            return Err(Error::invalid(format!(
                "instance.endpoints[{i}]: the nodes of discovery join endpoints by commas, so one may have none; write %2C"
            )));
        }
    }
    Ok(())
}

/// Which record is meant, as renewal and removal call it.
pub(super) fn key(options: &BilibiliOptions, name: &str, id: &str) -> String {
    form(&[
        ("appid", name),
        ("env", &options.env),
        ("hostname", id),
        ("region", &options.region),
        ("zone", &options.zone),
    ])
}

/// One writing of a record.
pub(super) struct Writing<'a> {
    pub owner: &'a str,
    pub generation: u64,
    /// Which of two writings stays: the one with the higher.
    pub dirty: i64,
    pub status: u32,
}

/// The parameters of a registration, sorted by their names.
pub(super) fn registration(options: &BilibiliOptions, instance: &ServiceInstance, writing: &Writing<'_>) -> String {
    let mark = format!("{}:{}", writing.owner, writing.generation);
    let own = [(ID_KEY, &*instance.id), (OWNER_KEY, mark.as_str())];
    let metadata: Metadata = instance.metadata.iter().chain(own).collect();
    let metadata = Codec::Metadata.encode(&ServiceInstance {
        metadata,
        ..ServiceInstance::default()
    });
    let (dirty, status) = (writing.dirty.to_string(), writing.status.to_string());
    let mut pairs: Vec<(&str, &str)> = instance
        .endpoints
        .iter()
        .map(|endpoint| ("addrs", &**endpoint))
        .collect();
    let rest: [(&str, &str); 9] = [
        ("appid", &*instance.name),
        ("dirty_timestamp", &dirty),
        ("env", &options.env),
        ("hostname", &instance.id),
        ("metadata", &metadata),
        ("region", &options.region),
        ("status", &status),
        ("version", &instance.version),
        ("zone", &options.zone),
    ];
    pairs.extend(rest);
    form(&pairs)
}

/// The list of a name out of what a node told of it: of the own zone, or of all others where that has none.
pub(super) fn snapshot(options: &BilibiliOptions, name: &Arc<str>, info: Info<Entry>) -> Snapshot {
    let mut others = Snapshot::default();
    let mut own = Snapshot::default();
    for (zone, list) in info.instances {
        let sorted = if zone == options.zone { &mut own } else { &mut others };
        for Entry(entry) in list.into_iter().flatten() {
            match entry {
                Ok(raw) if raw.is_of(name, &options.env) => sorted.instances.push(Arc::new(raw.into_instance(name))),
                Ok(_) => {}
                Err(reason) => sorted.bad.push(BadRecord {
                    key: format!("{zone}/{name}"),
                    reason,
                }),
            }
        }
    }
    if own.instances.is_empty() && options.zone_fallback {
        own.instances = others.instances;
        own.bad.extend(others.bad);
    }
    own
}

/// The names of which an instance would be listed, out of all that a node has.
pub(super) fn names(options: &BilibiliOptions, all: BTreeMap<String, Option<Vec<Raw>>>) -> Vec<String> {
    let listed = all.into_iter().filter(|(name, list)| {
        let mut up = list.iter().flatten().filter(|raw| raw.is_of(name, &options.env));
        name != ITSELF && up.any(|raw| options.zone_fallback || raw.zone == options.zone)
    });
    listed.map(|(name, _)| name).collect()
}
