//! Lists of instances as a server tells them, and an instance as it is sent.

use serde_json::{Map, Value, json};

/// What stands between group and name where a server writes both.
const GROUPED: &str = "@@";

/// One instance of Nacos: one address.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Host {
    pub(in super::super) ip: String,
    pub(in super::super) port: u16,
    pub(in super::super) weight: f64,
    pub(in super::super) healthy: bool,
    pub(in super::super) enabled: bool,
    pub(in super::super) cluster: String,
    /// Sorted by key.
    pub(in super::super) metadata: Vec<(String, String)>,
}

/// The instances of one service.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct List {
    /// Without its group.
    pub(in super::super) service: String,
    pub(in super::super) group: String,
    /// By their addresses.
    pub(in super::super) hosts: Vec<Host>,
    /// When it was true, by the server's clock, in milliseconds; 0 where the server does not say.
    pub(in super::super) at_ms: i64,
    /// What is no instance: where it is, and why.
    pub(in super::super) bad: Vec<(String, String)>,
}

impl List {
    /// Reads what is called `serviceInfo`. What can't be read of it is bad or missing, never an error.
    pub(super) fn read(info: &Value) -> Self {
        let text = |key: &str| info.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut list = Self {
            service: bare(text("name")).to_owned(),
            group: text("groupName").to_owned(),
            at_ms: info.get("lastRefTime").and_then(Value::as_i64).unwrap_or(0),
            ..Self::default()
        };
        for host in info.get("hosts").and_then(Value::as_array).into_iter().flatten() {
            match Host::read(host) {
                Ok(host) => list.hosts.push(host),
                Err(why) => {
                    let ip = host.get("ip").and_then(Value::as_str).unwrap_or("?");
                    list.bad.push((format!("{}#{ip}", list.service), why));
                }
            }
        }
        let place = |host: &Host| (host.ip.clone(), host.port, host.metadata.clone());
        list.hosts.sort_by_cached_key(place);
        list
    }

    /// Whether it is one of a group; one that does not say is.
    pub(super) fn is_of(&self, group: &str) -> bool {
        self.group.is_empty() || self.group == group
    }

    pub(in super::super) fn at(&self, ip: &str, port: u16) -> impl Iterator<Item = &Host> {
        let ip = ip.to_owned();
        self.hosts.iter().filter(move |host| host.ip == ip && host.port == port)
    }
}

/// A name without its group.
pub(in super::super) fn bare(name: &str) -> &str {
    name.split_once(GROUPED).map_or(name, |(_, name)| name)
}

impl Host {
    pub(in super::super) fn get(&self, key: &str) -> Option<&str> {
        let at = self
            .metadata
            .binary_search_by(|(held, _)| held.as_str().cmp(key))
            .ok()?;
        Some(&self.metadata[at].1)
    }

    fn read(value: &Value) -> Result<Self, String> {
        let ip = value.get("ip").and_then(Value::as_str).filter(|ip| !ip.is_empty());
        let port = value
            .get("port")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok());
        let (Some(ip), Some(port)) = (ip, port) else {
            return Err("it has no address".to_owned());
        };
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(true);
        let mut metadata = Vec::new();
        match value.get("metadata") {
            None | Some(Value::Null) => {}
            Some(Value::Object(pairs)) => {
                for (key, value) in pairs {
                    match value {
                        Value::String(text) => metadata.push((key.clone(), text.clone())),
                        Value::Null => metadata.push((key.clone(), String::new())),
                        _ => return Err(format!("metadata[{key:?}]: expected a string")),
                    }
                }
            }
            Some(_) => return Err("metadata: expected an object".to_owned()),
        }
        metadata.sort();
        Ok(Self {
            ip: ip.to_owned(),
            port,
            weight: value.get("weight").and_then(Value::as_f64).unwrap_or(1.0),
            healthy: flag("healthy"),
            enabled: flag("enabled"),
            cluster: value
                .get("clusterName")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            metadata,
        })
    }

    /// As it is sent.
    pub(in super::super) fn to_json(&self) -> Value {
        let metadata: Map<String, Value> = self
            .metadata
            .iter()
            .map(|(k, v)| (k.clone(), v.clone().into()))
            .collect();
        json!({
            "ip": self.ip, "port": self.port, "weight": self.weight, "healthy": true, "enabled": true,
            "ephemeral": true, "clusterName": self.cluster, "metadata": metadata,
        })
    }
}
