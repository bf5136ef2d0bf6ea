//! Pods with the labels and annotations of Kratos: how they are read, and the JSON Patch by which our own is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::model::{Meta, Pod};
use super::options::KubernetesOptions;
use crate::backend::BadRecord;
use crate::error::{Error, Result};
use crate::instance::{Codec, Endpoints, Metadata, ServiceInstance};

pub(super) const APP: &str = "kratos-service-app";
pub(super) const ID: &str = "kratos-service-id";
const VERSION: &str = "kratos-service-version";
const METADATA: &str = "kratos-service-metadata";
const PROTOCOLS: &str = "kratos-service-protocols";
/// The endpoints as they were registered: Kratos's form keeps a scheme for each port alone. Kratos does not read it.
const ENDPOINTS: &str = "rollcall-endpoints";

/// All annotations of an object together, with their keys, in bytes.
const ANNOTATIONS: usize = 256 * 1024;

/// What [`ENDPOINTS`] holds. Whose it is, it says itself: another program that labels the pod leaves it as it is.
#[derive(Deserialize)]
struct Registered {
    id: Box<str>,
    endpoints: Endpoints,
}

/// The name that a pod is an instance of, and the instance, or why it is none. `None`: it is no instance, or takes no calls.
pub(super) fn read(options: &KubernetesOptions, pod: Pod) -> Option<(String, Result<ServiceInstance, BadRecord>)> {
    let Pod {
        mut metadata,
        spec,
        status,
    } = pod;
    let name = metadata.labels.remove(APP).filter(|name| !name.is_empty())?;
    let is_ready = status
        .conditions
        .iter()
        .any(|c| c.kind == "Ready" && c.status == "True");
    let is_left_out = metadata.deletion_timestamp.is_some() && !options.terminating;
    if is_left_out || status.phase != "Running" || !(is_ready || options.not_ready) {
        return None;
    }
    let ips = status.ips.iter().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty());
    let wanted = ips.clone().find(|ip| ip.contains(':') == options.prefers_ipv6);
    let ip = wanted.unwrap_or(&status.ip);
    let ports = spec.containers.iter().flat_map(|container| &container.ports);
    let ports = ports.map(|port| (port.port, port.name.as_str(), port.protocol.as_str()));
    let read = instance(&name, &mut metadata, ip, ports).map_err(|reason| BadRecord {
        key: format!("pod {}/{}", metadata.namespace, metadata.name),
        reason,
    });
    Some((name, read))
}

fn instance<'a>(
    name: &str,
    meta: &mut Meta,
    ip: &str,
    ports: impl Iterator<Item = (u32, &'a str, &'a str)>,
) -> Result<ServiceInstance, String> {
    let mut label = |key| meta.labels.remove(key).unwrap_or_default();
    let (id, version) = (label(ID), label(VERSION));
    let text = |key| meta.annotations.get(key).map(|text| text.trim());
    let metadata = match text(METADATA).filter(|text| !is_none(text)) {
        None => Metadata::default(),
        Some(text) => {
            let read = Codec::Metadata.decode(&Arc::from(name), &id, text.as_bytes());
            let read = read.map_err(|why| format!("annotation {METADATA}: {why}"))?;
            read.unwrap_or_default().metadata
        }
    };
    let registered = text(ENDPOINTS).and_then(|text| serde_json::from_str::<Registered>(text).ok());
    let endpoints = match registered.filter(|registered| *registered.id == *id) {
        Some(registered) => registered.endpoints,
        None => by_ports(text(PROTOCOLS), ip, ports)?,
    };
    Ok(ServiceInstance {
        id: if id.is_empty() {
            meta.name.as_str().into()
        } else {
            id.into()
        },
        name: Arc::from(name),
        version: version.into(),
        metadata,
        endpoints,
        since: None,
    })
}

/// An endpoint for each port that the annotation names or a container declares. Of a declared port that is not named, the
/// scheme is its name up to a dash, else its protocol.
fn by_ports<'a>(
    protocols: Option<&str>,
    ip: &str,
    declared: impl Iterator<Item = (u32, &'a str, &'a str)>,
) -> Result<Endpoints, String> {
    let named: BTreeMap<String, String> = match protocols.filter(|text| !is_none(text)) {
        None => BTreeMap::new(),
        Some(text) => serde_json::from_str(text).map_err(|why| format!("annotation {PROTOCOLS}: {why}"))?,
    };
    let mut schemes: BTreeMap<u32, &str> = BTreeMap::new();
    for (port, name, protocol) in declared {
        let prefix = name.split('-').next().unwrap_or_default();
        let scheme = if prefix.is_empty() { protocol } else { prefix };
        schemes.insert(port, scheme);
    }
    for (port, scheme) in &named {
        let number: u16 = port
            .parse()
            .map_err(|_| format!("annotation {PROTOCOLS}: expected a port, got {port:?}"))?;
        schemes.insert(number.into(), scheme);
    }
    if ip.is_empty() && !schemes.is_empty() {
        return Err("the pod runs and has no address".to_owned());
    }
    let host = host(ip);
    let each = schemes.iter().filter(|(port, _)| **port > 0);
    Ok(each
        .map(|(port, scheme)| format!("{}://{host}:{port}", scheme.to_lowercase()).into())
        .collect())
}

/// An address as it stands in a URL.
pub(super) fn host(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

/// What people and Kratos write for nothing.
fn is_none(text: &str) -> bool {
    matches!(text, "" | "{}" | "null" | "nil" | "[]")
}

/// Whether a label can have this value.
pub(super) fn is_label(value: &str) -> bool {
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && is_end(value.chars().next())
        && is_end(value.chars().next_back())
        && value.len() <= 63
}

/// Refuses what labels and annotations can't hold.
pub(super) fn check(instance: &ServiceInstance) -> Result<()> {
    let fields = [
        ("name", &*instance.name),
        ("id", &*instance.id),
        ("version", &*instance.version),
    ];
    for (field, value) in fields {
        if !is_label(value) {
            return Err(Error::invalid(format!(
                "instance.{field}: expected what a label of Kubernetes can hold, up to 63 of a-z, A-Z, 0-9, \"-\", \"_\" and \
                 \".\", with a letter or digit first and last; got {value:?}"
            )));
        }
    }
    let size: usize = annotations(instance)
        .iter()
        .map(|(key, text)| key.len() + text.len())
        .sum();
    if size > ANNOTATIONS {
        return Err(Error::invalid(format!(
            "instance.metadata: with the endpoints it is {size} bytes as annotations, expected at most {ANNOTATIONS}, which \
             all annotations of a pod share"
        )));
    }
    Ok(())
}

fn annotations(instance: &ServiceInstance) -> [(&'static str, String); 3] {
    let metadata = if instance.metadata.is_empty() {
        "null".to_owned() // as Go writes a map that is nil
    } else {
        Codec::Metadata.encode(instance)
    };
    let mut protocols = BTreeMap::new();
    for endpoint in &instance.endpoints {
        if let Ok(url) = Url::parse(endpoint)
            && let Some(port) = url.port_or_known_default()
        {
            protocols
                .entry(port.to_string())
                .or_insert_with(|| url.scheme().to_owned());
        }
    }
    let registered = json!({ "id": &*instance.id, "endpoints": instance.endpoints });
    [
        (METADATA, metadata),
        (PROTOCOLS, json!(protocols).to_string()),
        (ENDPOINTS, registered.to_string()),
    ]
}

/// Whose record stands on a pod: its id, unless there is none.
pub(super) fn owner(meta: &Meta) -> Option<&str> {
    meta.labels.get(ID).map(String::as_str).filter(|id| !id.is_empty())
}

/// The patch that writes an instance onto the pod as it was seen, and on no other. It fails where somebody has written one
/// since, so that a write that comes late undoes nothing.
pub(super) fn publishing(seen: &Meta, instance: &ServiceInstance) -> Value {
    let mut patch = guards(seen);
    if seen.labels.is_empty() {
        patch.push(json!({ "op": "add", "path": "/metadata/labels", "value": {} }));
    }
    if seen.annotations.is_empty() {
        patch.push(json!({ "op": "add", "path": "/metadata/annotations", "value": {} }));
    }
    for (key, value) in [
        (ID, &*instance.id),
        (APP, &*instance.name),
        (VERSION, &*instance.version),
    ] {
        patch.push(json!({ "op": "add", "path": format!("/metadata/labels/{key}"), "value": value }));
    }
    for (key, value) in annotations(instance) {
        patch.push(json!({ "op": "add", "path": format!("/metadata/annotations/{key}"), "value": value }));
    }
    Value::Array(patch)
}

/// The patch that takes an instance off the pod as it was seen.
pub(super) fn withdrawing(seen: &Meta) -> Value {
    let mut patch = guards(seen);
    for (path, _) in standing(seen) {
        patch.push(json!({ "op": "remove", "path": path }));
    }
    Value::Array(patch)
}

/// What is ours of a pod.
fn standing(seen: &Meta) -> Vec<(String, &String)> {
    let labels = [ID, APP, VERSION].map(|key| ("labels", key, &seen.labels));
    let annotations = [METADATA, PROTOCOLS, ENDPOINTS].map(|key| ("annotations", key, &seen.annotations));
    let all = labels.into_iter().chain(annotations);
    let there = all.filter_map(|(kind, key, of)| Some((format!("/metadata/{kind}/{key}"), of.get(key)?)));
    there.collect()
}

/// The tests of a patch: that it is this pod, and that what is ours stands as it was seen. Where nothing stood, an absence
/// can't be tested, and a map that is added would take the place of another: there the pod must be unchanged altogether.
fn guards(seen: &Meta) -> Vec<Value> {
    let mut guards = vec![json!({ "op": "test", "path": "/metadata/uid", "value": seen.uid })];
    let standing = standing(seen);
    if seen.labels.contains_key(ID) && !seen.annotations.is_empty() {
        let each = standing.into_iter();
        guards.extend(each.map(|(path, value)| json!({ "op": "test", "path": path, "value": value })));
    } else {
        guards.push(json!({ "op": "test", "path": "/metadata/resourceVersion", "value": seen.resource_version }));
    }
    guards
}
