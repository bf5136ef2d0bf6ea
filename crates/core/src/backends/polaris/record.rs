//! An instance as Polaris holds it: a record for each endpoint, which a server knows by its place, that is service, host and
//! port.
//!
//! Kratos has two layouts. What of an instance has no place in them travels in four keys of our own, see
//! [`parts`](crate::parts).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::client::{HealthCheck, Heartbeat, Instance};
use super::options::{MOST_WEIGHT, PolarisLayout, PolarisOptions, check_word};
use crate::backend::Snapshot;
use crate::error::{Error, Result};
use crate::instance::ServiceInstance;
use crate::parts::{Address, ENDPOINT, ID, Mark, Merged, OURS, OWNER, PART, Parts, Reading, instance_of, nowhere};

/// The schemes that Kratos's clients ask for.
const KINDS: [&str; 4] = ["grpc", "grpcs", "http", "https"];
/// By which Kratos's `contrib/polaris` knows the records of one instance.
const MERGE: &str = "merge";
const KIND: &str = "kind";
/// The server writes these two into what it tells.
const VERSION: &str = "version";
const PROTOCOL: &str = "protocol";
const WEIGHT: &str = "weight";
/// What begins so is of the server.
const INTERNAL: &str = "internal-";
/// What everybody takes for the weight of an instance that has none.
const USUAL_WEIGHT: u32 = 100;

const MOST_PAIRS: usize = 64;
const MOST_KEY: usize = 128;
const MOST_VALUE: usize = 4096;
const MOST_VERSION: usize = 32;
const MOST_PROTOCOL: usize = 32;
const MOST_HOST: usize = 128;
/// What `check` leaves room for.
const SAMPLE_OWNER: &str = "0123456789abcdef";

/// The form of records, of the options.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) layout: PolarisLayout,
    pub(super) namespace: String,
    weight: u32,
    ttl_seconds: u32,
}

/// Where a record lies: service, host and port. There is one at most, whoever writes it.
pub(super) type Place = (String, String, u32);

/// The place of a record that was read.
pub(super) fn place_of(service: &str, instance: &Instance) -> Place {
    let host = instance.host.clone().unwrap_or_default();
    (service.to_owned(), host, instance.port.unwrap_or(0))
}

/// The mark of a record; `None` where it is none of ours.
pub(super) fn mark_of(instance: &Instance) -> Option<Mark> {
    Mark::of(|key| instance.metadata.get(key).map(String::as_str))
}

/// Whose writing it is.
pub(super) struct Writing<'a> {
    pub(super) owner: &'a str,
    pub(super) merge: &'a str,
    pub(super) number: u64,
}

impl Form {
    pub(super) fn of(options: &PolarisOptions) -> Self {
        Self {
            layout: options.layout,
            namespace: options.namespace.clone(),
            weight: options.weight,
            ttl_seconds: u32::try_from(options.ttl_seconds()).unwrap_or(u32::MAX),
        }
    }

    fn is_registry(&self) -> bool {
        self.layout == PolarisLayout::Registry
    }

    /// The services in which instances of a name lie. None where the server can't have any.
    pub(super) fn services(&self, name: &str) -> Vec<String> {
        let services = if self.is_registry() {
            KINDS.iter().map(|kind| format!("{name}{kind}")).collect()
        } else {
            vec![name.to_owned()]
        };
        let is_possible = |service: &String| check_word("", "", service).is_ok();
        services.into_iter().filter(is_possible).collect()
    }

    /// The name whose instances lie in a service, if there are any of this layout.
    pub(super) fn name_in<'a>(&self, service: &'a str, instances: &[Instance]) -> Option<&'a str> {
        let name = if self.is_registry() {
            KINDS.iter().find_map(|kind| service.strip_suffix(kind))?
        } else {
            service
        };
        let is_listed = |instance: &Instance| {
            self.belongs(name, service, instance) && self.read(&service[name.len()..], instance).is_some()
        };
        (!name.is_empty() && instances.iter().any(is_listed)).then_some(name)
    }

    /// Whether a record in a service of a name is one of this layout.
    fn belongs(&self, name: &str, service: &str, instance: &Instance) -> bool {
        let kind = instance.metadata.get(KIND).map(String::as_str);
        !self.is_registry() || kind.is_none() || kind == service.strip_prefix(name)
    }

    /// The records of an instance, each with its place.
    pub(super) fn write(&self, instance: &ServiceInstance, writing: &Writing<'_>) -> Result<BTreeMap<Place, Instance>> {
        check_word("instance.name", "service", &instance.name)?;
        self.check_given(instance)?;
        let of = instance.endpoints.len();
        if of == 0 && self.is_registry() {
            return Err(Error::invalid(
                "instance.endpoints: expected at least one: the layout \"registry\" knows services by the schemes of endpoints",
            ));
        }
        let mut records = BTreeMap::new();
        for (at, endpoint) in instance.endpoints.iter().enumerate() {
            let path = format!("instance.endpoints[{at}]");
            let address = Address::of(&path, endpoint)?;
            if !address.has_host() {
                return Err(Error::invalid(format!("{path}: expected a host, got {endpoint:?}")));
            }
            let Address { scheme, host, port } = address;
            longest(&path, "a host", &host, MOST_HOST)?;
            longest(&path, "a scheme", &scheme, MOST_PROTOCOL)?;
            let service = if self.is_registry() {
                if !KINDS.contains(&&*scheme) {
                    return Err(Error::invalid(format!(
                        "{path}: the layout \"registry\" has services for the schemes {}; got {endpoint:?}",
                        KINDS.join(", ")
                    )));
                }
                format!("{}{scheme}", instance.name)
            } else {
                instance.name.to_string()
            };
            check_word("instance.name", "service (the name and a scheme here)", &service)?;
            let port = u32::from(port);
            let mut more = vec![(PART, format!("{}/{of}/{}", at + 1, writing.number))];
            if self.is_registry() {
                more.push((KIND, scheme.clone()));
            }
            if Address::url(&scheme, &host, port) != **endpoint {
                longest(&path, "an endpoint", endpoint, MOST_VALUE)?;
                more.push((ENDPOINT, endpoint.to_string()));
            }
            let place = (service, host, port);
            let record = self.record(instance, writing, more, &place, scheme)?;
            if records.insert(place, record).is_some() {
                return Err(Error::invalid(format!(
                    "{path}: Polaris holds one endpoint of each host and port, and another one has these; got {endpoint:?}"
                )));
            }
        }
        if of == 0 {
            let place = (instance.name.to_string(), nowhere(&instance.id), 0);
            let more = vec![(PART, format!("0/0/{}", writing.number))];
            let record = self.record(instance, writing, more, &place, String::new())?;
            records.insert(place, record);
        }
        Ok(records)
    }

    /// What does not depend on an endpoint.
    fn check_given(&self, instance: &ServiceInstance) -> Result<()> {
        longest("instance.version", "a version", &instance.version, MOST_VERSION)?;
        let own = [VERSION, PROTOCOL, if self.is_registry() { KIND } else { MERGE }];
        for (key, value) in instance.metadata.iter() {
            let path = format!("instance.metadata[{key:?}]");
            if own.contains(&key) || key.starts_with(OURS) || key.starts_with(INTERNAL) {
                return Err(Error::invalid(format!(
                    "{path}: the key has a meaning of its own in Polaris; choose another"
                )));
            }
            longest(&path, "a key", key, MOST_KEY)?;
            longest(&path, "a value", value, MOST_VALUE)?;
        }
        Ok(())
    }

    fn record(
        &self,
        instance: &ServiceInstance,
        writing: &Writing<'_>,
        more: Vec<(&str, String)>,
        (service, host, port): &Place,
        scheme: String,
    ) -> Result<Instance> {
        let given = instance
            .metadata
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut metadata: BTreeMap<String, String> = given.collect();
        let weight = match instance.metadata.get(WEIGHT) {
            Some(weight) => weight_of(weight).unwrap_or(USUAL_WEIGHT),
            None => self.weight,
        };
        if weight != USUAL_WEIGHT && !metadata.contains_key(WEIGHT) {
            metadata.insert(WEIGHT.to_owned(), weight.to_string()); // Kratos's clients read it there
        }
        let mut own = vec![(ID, instance.id.to_string()), (OWNER, writing.owner.to_owned())];
        if self.is_registry() {
            own.push((VERSION, instance.version.to_string()));
        } else {
            own.push((MERGE, writing.merge.to_owned()));
        }
        own.extend(more);
        metadata.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value)));
        if metadata.len() > MOST_PAIRS {
            return Err(Error::invalid(format!(
                "instance.metadata: Polaris takes {MOST_PAIRS} keys, and this is {} with {} that describe the instance",
                metadata.len(),
                metadata.len() - instance.metadata.len()
            )));
        }
        Ok(Instance {
            id: None,
            service: Some(service.clone()),
            namespace: Some(self.namespace.clone()),
            host: Some(host.clone()),
            port: Some(*port),
            protocol: Some(scheme),
            version: Some(instance.version.to_string()),
            weight: Some(weight),
            health_check: Some(HealthCheck {
                r#type: 1,
                heartbeat: Some(Heartbeat {
                    ttl: Some(self.ttl_seconds),
                }),
            }),
            healthy: Some(true),
            isolate: None, // an operator's
            metadata,
            enable_health_check: Some(true),
        })
    }

    /// Refuses what Polaris can't hold.
    pub(super) fn check(&self, instance: &ServiceInstance) -> Result<()> {
        let writing = Writing {
            owner: SAMPLE_OWNER,
            merge: SAMPLE_OWNER,
            number: 0,
        };
        self.write(instance, &writing).map(drop)
    }

    /// Reads a record; `None` where it is out of traffic. `suffix` is what its service has beside the name.
    fn read(&self, suffix: &str, instance: &Instance) -> Option<Reading> {
        if instance.healthy == Some(false) || instance.isolate == Some(true) {
            return None;
        }
        let told = |key: &str| instance.metadata.get(key).map(String::as_str);
        let is_own = |key: &str| {
            let of_layout = if self.is_registry() { KIND } else { MERGE };
            [of_layout, VERSION, PROTOCOL].contains(&key) || key.starts_with(OURS) || key.starts_with(INTERNAL)
        };
        let given = instance.metadata.iter().filter(|(key, _)| !is_own(key));
        let mut metadata: Vec<(String, String)> = given.map(|(key, value)| (key.clone(), value.clone())).collect();
        let mark = mark_of(instance);
        let wanted = told(WEIGHT).and_then(weight_of).unwrap_or(USUAL_WEIGHT);
        // Kratos's `contrib/registry/polaris` says 0 unless it is told otherwise.
        let is_unsaid = self.is_registry() && mark.is_none() && told(KIND).is_some();
        match instance.weight {
            Some(weight) if weight != wanted && !(weight == 0 && is_unsaid) => {
                if weight == 0 {
                    return None; // an operator has taken it out
                }
                metadata.retain(|(key, _)| key != WEIGHT);
                metadata.push((WEIGHT.to_owned(), weight.to_string()));
            }
            _ => {}
        }
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let endpoint = told(ENDPOINT).map_or_else(
            || {
                let scheme = if suffix.is_empty() {
                    text(&instance.protocol)
                } else {
                    Some(suffix.to_owned())
                };
                let host = instance.host.as_deref().unwrap_or_default();
                Address::url(scheme.as_deref().unwrap_or("http"), host, instance.port.unwrap_or(0))
            },
            str::to_owned,
        );
        Some(Reading {
            endpoint: (!mark.is_some_and(|mark| mark.is_of_nothing())).then_some(endpoint),
            version: text(&instance.version)
                .or_else(|| told(VERSION).map(str::to_owned))
                .unwrap_or_default(),
            metadata,
        })
    }

    /// The instances of a name in the lists of its services.
    pub(super) fn merge<'a>(&self, name: &Arc<str>, lists: impl Iterator<Item = (&'a str, &'a [Instance])>) -> Merged {
        let mut ours: HashMap<String, Parts> = HashMap::new();
        let mut groups: BTreeMap<String, BTreeMap<String, Reading>> = BTreeMap::new();
        let mut instances = Vec::new();
        for (service, list) in lists {
            let suffix = service.strip_prefix(&**name).unwrap_or_default();
            for instance in list.iter().filter(|instance| self.belongs(name, service, instance)) {
                let reading = self.read(suffix, instance);
                if let Some(mark) = mark_of(instance) {
                    ours.entry(mark.id.clone()).or_default().add(mark, reading);
                    continue;
                }
                let (Some(reading), Some(id)) = (reading, instance.id.clone()) else {
                    continue;
                };
                match instance.metadata.get(MERGE) {
                    Some(merge) if !merge.is_empty() && !self.is_registry() => {
                        groups.entry(merge.clone()).or_default().insert(id, reading);
                    }
                    _ => instances.extend(instance_of(name, &id, &[reading])),
                }
            }
        }
        // Kratos calls a group by the first of its records, which a server tells in any order.
        for group in groups.into_values() {
            let id = group.keys().next().cloned().unwrap_or_default();
            instances.extend(instance_of(name, &id, &group.into_values().collect::<Vec<_>>()));
        }
        let mut are_whole = true;
        for (id, parts) in ours {
            let (readings, is_whole) = parts.finish();
            are_whole &= is_whole;
            instances.extend(instance_of(name, &id, &readings));
        }
        Merged {
            snapshot: Snapshot {
                instances: instances.into_iter().map(Arc::new).collect(),
                bad: Vec::new(),
            },
            is_whole: are_whole,
        }
    }
}

/// What is written once more before a record is removed: out of traffic, and otherwise as it was read.
pub(super) fn leaving(form: &Form, service: &str, read: &Instance) -> Instance {
    let mut leaving = read.clone();
    leaving.id = None;
    leaving.namespace = Some(form.namespace.clone());
    leaving.service = Some(service.to_owned());
    leaving.isolate = Some(true);
    let is_of_server = |key: &str| key.starts_with(INTERNAL) || key == PROTOCOL;
    leaving.metadata.retain(|key, _| !is_of_server(key));
    if !form.is_registry() {
        leaving.metadata.remove(VERSION);
    }
    leaving
}

/// What a removal or a heartbeat says: a place alone.
pub(super) fn at(form: &Form, (service, host, port): &Place) -> Instance {
    Instance {
        service: Some(service.clone()),
        namespace: Some(form.namespace.clone()),
        host: Some(host.clone()),
        port: Some(*port),
        ..Instance::default()
    }
}

fn weight_of(text: &str) -> Option<u32> {
    let weight: u32 = text.trim().parse().ok()?;
    (weight <= MOST_WEIGHT).then_some(weight)
}

fn longest(path: &str, what: &str, text: &str, most: usize) -> Result<()> {
    let length = text.chars().count();
    if length <= most {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{path}: Polaris takes {what} of at most {most} characters, got {length}"
    )))
}
