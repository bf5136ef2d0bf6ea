//! Records: how an instance is written to an agent, byte for byte as Go Kratos does, and how the entries of anybody are
//! read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::agents::Answer;
use super::options::{ConsulOptions, HealthCheck};
use super::words::{CONSUL, check_word};
use crate::backend::{BadRecord, Snapshot};
use crate::error::{Error, Result};
use crate::instance::{Metadata, ServiceInstance, push_json_string};

/// Consul's limits of the metadata of a service.
const MAX_PAIRS: usize = 64;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 512;

/// Who wrote a record, and which of its writings it is. Travels in the `Notes` of the TTL check, where Kratos has nothing:
/// `rollcall:{order in hex}-{owner}:{generation}`, or without an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Grows from one owner of an id to the next; see [`Record`](super::service::Record).
    pub order: Option<u64>,
    pub owner: String,
    pub generation: u64,
}

/// Grows with each writing of an id, whoever writes.
type Age = (u64, u64);

impl Mark {
    pub(super) fn parse(notes: &str) -> Option<Self> {
        let (who, generation) = notes.strip_prefix("rollcall:")?.split_once(':')?;
        let ordered = who.split_once('-').and_then(|(order, owner)| {
            // Four dashes are those of a UUID, a fifth one is before it.
            let is_after_order = owner.matches('-').count() == 4;
            let order = u64::from_str_radix(order, 16).ok()?;
            is_after_order.then_some((order, owner))
        });
        Some(Self {
            order: ordered.map(|(order, _)| order),
            owner: ordered.map_or(who, |(_, owner)| owner).to_owned(),
            generation: generation.parse().ok()?,
        })
    }

    /// Unknown without an order.
    fn age(&self) -> Option<Age> {
        self.order.map(|order| (order, self.generation))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rollcall:")?;
        if let Some(order) = self.order {
            write!(f, "{order:x}-")?;
        }
        write!(f, "{}:{}", self.owner, self.generation)
    }
}

/// The status of a check that lets its service be seen, and of one that does not.
pub(super) const PASSING: &str = "passing";
pub(super) const CRITICAL: &str = "critical";

/// The id of the TTL check of a service, as Kratos has it.
pub(super) fn check_id(id: &str) -> String {
    format!("service:{id}")
}

/// Refuses what Consul would refuse, or keep only a part of; names what it is.
pub(super) fn check_instance(instance: &ServiceInstance) -> Result<()> {
    check_word("instance.name", &instance.name)?;
    check_word("instance.id", &instance.id)?;
    if instance.name.eq_ignore_ascii_case(CONSUL) {
        return Err(Error::invalid(format!(
            "instance.name: {:?} is the service of Consul's own servers; take another name",
            instance.name
        )));
    }
    let pairs = instance.metadata.len();
    if pairs > MAX_PAIRS {
        return Err(Error::invalid(format!(
            "instance.metadata: Consul takes at most {MAX_PAIRS} pairs, got {pairs}"
        )));
    }
    for (key, value) in instance.metadata.iter() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(plain) {
            return Err(Error::invalid(format!(
                "instance.metadata[{}]: Consul takes keys of 1 to {MAX_KEY} letters, digits, \"-\" and \"_\" only",
                shown(key)
            )));
        }
        if key.starts_with("consul-") {
            return Err(Error::invalid(format!(
                "instance.metadata[{key:?}]: Consul keeps keys that begin with \"consul-\" to itself"
            )));
        }
        if value.len() > MAX_VALUE {
            return Err(Error::invalid(format!(
                "instance.metadata[{key:?}]: Consul takes values of at most {MAX_VALUE} bytes, got {}",
                value.len()
            )));
        }
    }
    let mut schemes = BTreeMap::new();
    for (i, endpoint) in instance.endpoints.iter().enumerate() {
        let scheme = Endpoint::of(endpoint).scheme;
        if is_address_of_consul(&scheme) {
            return Err(Error::invalid(format!(
                "instance.endpoints[{i}]: Consul keeps {scheme:?} to addresses of its own; take another scheme"
            )));
        }
        if let Some(before) = schemes.insert(scheme.clone(), i) {
            return Err(Error::invalid(format!(
                "instance.endpoints[{i}]: a second {scheme:?} beside endpoints[{before}]; a record in Consul holds one endpoint of each scheme"
            )));
        }
    }
    Ok(())
}

/// A tagged address that is none of ours, whoever wrote it.
fn is_address_of_consul(tag: &str) -> bool {
    matches!(tag, "lan_ipv4" | "wan_ipv4" | "lan_ipv6" | "wan_ipv6" | "lan" | "wan")
}

/// The beginning of a text that may be of any length, in quotes.
fn shown(text: &str) -> String {
    let beginning: String = text.chars().take(MAX_KEY).collect();
    let rest = if beginning.len() < text.len() { "…" } else { "" };
    format!("{beginning:?}{rest}")
}

/// The parts of an endpoint as Go's `net/url` sees them: the port is what is written, not what the scheme implies.
struct Endpoint {
    scheme: String,
    host: String,
    port: u16,
}

impl Endpoint {
    fn of(endpoint: &str) -> Self {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.trim_start_matches(':')),
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            port: port.parse().unwrap_or(0),
        }
    }

    /// `host:port` for somebody who connects to it; none without a port.
    fn address(&self) -> Option<String> {
        let port = match (self.port, self.scheme.as_str()) {
            (0, "http") => 80,
            (0, "https") => 443,
            (0, _) => return None,
            (port, _) => port,
        };
        Some(join(&self.host, port))
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Writes a JSON object field by field, in the order of Go's structs.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn raw(&mut self, name: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
        self.0.push_str(json);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &quoted(value));
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_json_string(&mut out, text);
    out
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// Whole seconds as Kratos writes them, else milliseconds.
pub(super) fn duration(of: Duration) -> String {
    let ms = of.as_millis();
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

/// The body of the registration. `status` is that of its checks until somebody looks.
pub(super) fn body(instance: &ServiceInstance, options: &ConsulOptions, mark: &Mark, status: &str) -> String {
    let endpoints: Vec<(&str, Endpoint)> = instance.endpoints.iter().map(|e| (&**e, Endpoint::of(e))).collect();
    let mut out = Object::new();
    out.text("ID", &instance.id);
    out.text("Name", &instance.name);
    let version = std::iter::once(format!("version={}", instance.version));
    out.raw(
        "Tags",
        &list(version.chain(options.tags.iter().cloned()).map(|tag| quoted(&tag))),
    );
    if let Some((_, first)) = endpoints.first() {
        if first.port != 0 {
            out.raw("Port", &first.port.to_string());
        }
        out.text("Address", &first.host);
        let by_scheme: BTreeMap<&str, String> = endpoints
            .iter()
            .map(|(endpoint, parts)| {
                let mut address = Object::new();
                address.text("Address", endpoint);
                address.raw("Port", &parts.port.to_string());
                (parts.scheme.as_str(), address.end())
            })
            .collect();
        let mut addresses = Object::new();
        for (scheme, address) in by_scheme {
            addresses.raw(scheme, &address);
        }
        out.raw("TaggedAddresses", &addresses.end());
    }
    if !instance.metadata.is_empty() {
        let mut meta = Object::new();
        for (key, value) in instance.metadata.iter() {
            meta.text(key, value);
        }
        out.raw("Meta", &meta.end());
    }
    if let Some((passing, warning)) = options.weights {
        out.raw("Weights", &format!("{{\"Passing\":{passing},\"Warning\":{warning}}}"));
    }
    out.raw("Check", "null");
    let mut checks: Vec<String> = endpoints
        .iter()
        .filter_map(|(endpoint, parts)| agent_check(endpoint, parts, options, status))
        .collect();
    if options.heartbeat {
        let mut check = Object::new();
        check.text("CheckID", &check_id(&instance.id));
        check.text("TTL", &duration(options.ttl));
        check.text("Status", status);
        check.text("Notes", &mark.to_string());
        check.text(
            "DeregisterCriticalServiceAfter",
            &duration(options.deregister_critical_after),
        );
        checks.push(check.end());
    }
    if checks.is_empty() {
        out.raw("Checks", "null");
    } else {
        out.raw("Checks", &list(checks.into_iter()));
    }
    out.end()
}

/// What the agent itself looks at. It passes until the agent has looked, so that the instance is visible at once.
fn agent_check(endpoint: &str, parts: &Endpoint, options: &ConsulOptions, status: &str) -> Option<String> {
    let address = parts.address()?;
    let mut check = Object::new();
    check.text("Interval", &duration(options.health_check_interval));
    check.text("Timeout", &duration(options.health_check_timeout));
    let secure = parts.scheme.ends_with('s');
    match (options.health_check, parts.scheme.as_str()) {
        (HealthCheck::Off, _) => return None,
        (HealthCheck::Http, "http" | "https") => {
            let end = endpoint.find("://").map_or(0, |at| at + 3);
            let authority = endpoint[end..].split(['/', '?', '#']).next().unwrap_or_default();
            let slash = if options.health_check_path.starts_with('/') {
                ""
            } else {
                "/"
            };
            let url = format!("{}://{authority}{slash}{}", parts.scheme, options.health_check_path);
            check.text("HTTP", &url);
            check.text("Status", status);
        }
        (HealthCheck::Grpc, "grpc" | "grpcs") => {
            check.text("Status", status);
            check.text("GRPC", &address);
            if secure {
                check.raw("GRPCUseTLS", "true");
            }
        }
        _ => {
            check.text("TCP", &address);
            check.text("Status", status);
        }
    }
    check.text(
        "DeregisterCriticalServiceAfter",
        &duration(options.deregister_critical_after),
    );
    Some(check.end())
}

/// One entry of `/v1/health/service`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceEntry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "Node", default)]
    name: String,
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "ID")]
    id: Box<str>,
    #[serde(rename = "Service")]
    name: Box<str>,
    #[serde(rename = "Tags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Meta", default)]
    meta: Option<HashMap<Box<str>, Box<str>>>,
    #[serde(rename = "Address", default)]
    address: String,
    #[serde(rename = "Port", default)]
    port: i64, // Consul takes any number
    #[serde(rename = "TaggedAddresses", default)]
    tagged_addresses: Option<BTreeMap<String, TaggedAddress>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaggedAddress {
    #[serde(default)]
    address: Box<str>,
}

/// A check, of an entry or of an agent.
#[derive(Deserialize)]
pub(super) struct Check {
    #[serde(rename = "CheckID", default)]
    pub id: String,
    #[serde(rename = "Status", default)]
    pub status: String,
    #[serde(rename = "Notes", default)]
    pub notes: String,
    /// Empty for a check of the whole node.
    #[serde(rename = "ServiceID", default)]
    pub service: String,
}

/// The switch of one service: a check that Consul takes away with the service.
const SERVICE_SWITCH: &str = "_service_maintenance:";

/// The reason that an operator gave for the switch of a service, if it is on.
pub(super) fn switched_off(checks: &[Check]) -> Option<&str> {
    let switch = checks.iter().find(|check| check.id.starts_with(SERVICE_SWITCH));
    switch.map(|check| &*check.notes)
}

/// Whether a check is an operator's switch, which takes a service or a node out of traffic while it is there:
/// <https://developer.hashicorp.com/consul/commands/maint>.
pub(super) fn is_switch(check: &str) -> bool {
    check == "_node_maintenance" || check.starts_with(SERVICE_SWITCH)
}

/// The ids that the agent gives the checks of [`body`].
pub(super) fn check_ids(instance: &ServiceInstance, options: &ConsulOptions) -> Vec<String> {
    let of_agent = instance
        .endpoints
        .iter()
        .filter(|endpoint| agent_check(endpoint, &Endpoint::of(endpoint), options, PASSING).is_some())
        .count();
    let own = check_id(&instance.id);
    let mut ids: Vec<String> = match of_agent + usize::from(options.heartbeat) {
        1 => vec![own.clone()],
        _ => (1..=of_agent).map(|at| format!("{own}:{at}")).collect(),
    };
    if options.heartbeat {
        ids.push(own);
    }
    ids
}

/// The mark of a service among its checks: none, if it was not us who wrote it.
pub(super) fn mark_of(checks: &[Check], id: &str) -> Option<Mark> {
    let wanted = check_id(id);
    Mark::parse(&checks.iter().find(|check| check.id == wanted)?.notes)
}

impl ServiceEntry {
    pub(super) fn id(&self) -> &str {
        &self.service.id
    }

    /// The node that has it: an agent by its name.
    pub(super) fn node(&self) -> &str {
        &self.node.name
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        mark_of(self.checks.as_deref().unwrap_or_default(), &self.service.id)
    }

    /// A check that does not pass, if there is one.
    pub(super) fn failing(&self) -> Option<&Check> {
        self.checks.iter().flatten().find(|check| check.status != "passing")
    }

    /// Whether an operator has taken it out of traffic.
    pub(super) fn is_switched_off(&self) -> bool {
        let mut checks = self.checks.iter().flatten();
        checks.any(|check| is_switch(&check.id) && check.status == "critical")
    }

    /// The instance, or why it is none.
    pub(super) fn into_instance(self, name: &Arc<str>) -> Result<ServiceInstance, String> {
        let Self { node, service, .. } = self;
        let version = service
            .tags
            .iter()
            .flatten()
            .find_map(|tag| tag.strip_prefix("version="));
        let version = version.unwrap_or_default().into();
        // In the order of their schemes: Consul keeps no other.
        let mut endpoints: Vec<Box<str>> = service
            .tagged_addresses
            .unwrap_or_default()
            .into_iter()
            .filter(|(tag, _)| !is_address_of_consul(tag))
            .filter(|(_, tagged)| Url::parse(&tagged.address).is_ok_and(|url| url.has_host()))
            .map(|(_, tagged)| tagged.address)
            .collect();
        if endpoints.is_empty() && service.port != 0 {
            // Of someone who is not Kratos. Without an address of its own it is at its node's.
            let port = u16::try_from(service.port).map_err(|_| format!("{} is no port", service.port))?;
            let address = if service.address.is_empty() {
                node.address
            } else {
                service.address
            };
            if !address.is_empty() {
                endpoints.push(format!("http://{}", join(&address, port)).into());
            }
        }
        Ok(ServiceInstance {
            id: service.id,
            name: Arc::clone(name),
            version,
            metadata: service.meta.unwrap_or_default().into_iter().collect::<Metadata>(),
            endpoints: endpoints.into(),
            since: None,
        })
    }
}

/// An answer of `/v1/health/service` as a list. Consul looks names up without regard to case; here case counts.
pub(super) fn read_list(name: &Arc<str>, answer: &Answer) -> Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    let mut found = Vec::new();
    for (at, read) in answer.list::<ServiceEntry>()?.into_iter().enumerate() {
        let entry = match read {
            Ok(entry) => entry,
            Err(unread) => {
                let said = |field: &str| unread.value.pointer(field).and_then(Value::as_str);
                if said("/Service/Service").is_none_or(|of| *of == **name) {
                    let key = said("/Service/ID").map_or_else(|| format!("{name}[{at}]"), str::to_owned);
                    snapshot.bad.push(BadRecord {
                        key,
                        reason: unread.reason,
                    });
                }
                continue;
            }
        };
        if *entry.service.name != **name || entry.is_switched_off() {
            continue;
        }
        let key = entry.id().to_owned();
        let age = entry.mark().and_then(|mark| mark.age());
        match entry.into_instance(name) {
            Ok(instance) => found.push((age, Arc::new(instance))),
            Err(reason) => snapshot.bad.push(BadRecord { key, reason }),
        }
    }
    snapshot.instances = newest(&found);
    Ok(snapshot)
}

/// Of the records of one instance at several agents, which differ in what it says of itself, those that no mark shows to be
/// older: an agent that was away comes back with the record of an earlier life, which passes until its time to live is over.
fn newest(found: &[(Option<Age>, Arc<ServiceInstance>)]) -> Vec<Arc<ServiceInstance>> {
    let mut latest: HashMap<_, Age> = HashMap::new();
    for (age, instance) in found {
        if let Some(age) = *age {
            let known = latest.entry((&instance.id, &instance.endpoints)).or_insert(age);
            *known = age.max(*known);
        }
    }
    found
        .iter()
        .filter(|(age, instance)| age.is_none_or(|age| latest.get(&(&instance.id, &instance.endpoints)) == Some(&age)))
        .map(|(_, instance)| Arc::clone(instance))
        .collect()
}

/// An instance as it will be read.
pub(super) fn as_read(instance: &ServiceInstance) -> ServiceInstance {
    let mut instance = instance.clone();
    instance.endpoints.sort_by_key(|endpoint| Endpoint::of(endpoint).scheme);
    instance
}
