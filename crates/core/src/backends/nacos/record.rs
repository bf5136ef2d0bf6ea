//! An instance as Nacos holds it: a host for each endpoint, in the service of its scheme.
//!
//! Go Kratos calls a service `{name}.{scheme}`, knows four schemes, and writes `kind` and `version` into the metadata. What of
//! an instance has no place there travels in four keys of our own: whose host it is, which of how many, and the endpoint where
//! it is more than scheme and address. An endpoint of any other scheme, and an instance without endpoints, lie in the service
//! `{name}`.

use std::collections::BTreeMap;

use super::client::{Host, bare};
use super::options::{MAX_WEIGHT, NacosForm};
use crate::error::{Error, Result};
use crate::instance::ServiceInstance;
use crate::parts::{Address, ENDPOINT, ID, Mark, OURS, OWNER, PART, Reading, nowhere};

/// The schemes that Kratos's clients ask for.
const KINDS: [&str; 4] = ["grpc", "grpcs", "http", "https"];
pub(super) const KIND: &str = "kind";
const VERSION: &str = "version";
const WEIGHT: &str = "weight";
/// What an original server takes of keys and values of the metadata of one host together, in UTF-16.
const MOST_METADATA: usize = 1024;
/// The longest service, and the longest host.
const MOST_SERVICE: usize = 512;
const MOST_IP: usize = 128;
/// What `check` leaves room for.
const SAMPLE_OWNER: &str = "0123456789abcdef";
const SAMPLE_WRITING: u64 = 9_999_999_999;

/// The form of records, of the options.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) codec: NacosForm,
    pub(super) cluster: String,
    pub(super) weight: f64,
}

/// Where a host lies: service, ip and port. A server has one host there, of all its clients or of each.
pub(super) type Place = (String, String, u16);

/// The mark of a host; `None` where it is no host of ours.
pub(super) fn mark_of(host: &Host) -> Option<Mark> {
    Mark::of(|key| host.get(key))
}

impl Form {
    /// The services in which instances of a name lie.
    pub(super) fn services(&self, name: &str) -> Vec<String> {
        let mut services = vec![name.to_owned()];
        if self.codec == NacosForm::Kratos {
            services.extend(KINDS.iter().map(|kind| format!("{name}.{kind}")));
        }
        services
    }

    /// The name that a host of a service is an instance of, and the scheme of its endpoint.
    pub(super) fn belongs<'a>(&self, service: &'a str, host: &'a Host) -> (&'a str, &'a str) {
        let kind = host.get(KIND);
        let of_kind = KINDS
            .iter()
            .find_map(|kind| Some((service.strip_suffix(kind)?.strip_suffix('.')?, *kind)));
        match of_kind.filter(|(name, _)| self.codec == NacosForm::Kratos && !name.is_empty()) {
            Some((name, suffix)) if kind == Some(suffix) || (kind.is_none() && host.get(ID).is_none()) => {
                (name, suffix)
            }
            _ => (service, kind.unwrap_or("http")),
        }
    }

    /// The hosts of an instance, each with its place.
    pub(super) fn write(&self, instance: &ServiceInstance, owner: &str, writing: u64) -> Result<BTreeMap<Place, Host>> {
        check_name("instance.name", &instance.name)?;
        let mut hosts = BTreeMap::new();
        let of = instance.endpoints.len();
        for (at, endpoint) in instance.endpoints.iter().enumerate() {
            let path = format!("instance.endpoints[{at}]");
            let address = Address::of(&path, endpoint)?;
            let is_kratos = self.codec == NacosForm::Kratos && KINDS.contains(&&*address.scheme);
            let service = if is_kratos {
                format!("{}.{}", instance.name, address.scheme)
            } else {
                instance.name.to_string()
            };
            if !address.has_host() || address.host.len() > MOST_IP {
                return Err(Error::invalid(format!(
                    "{path}: Nacos takes a host of 1 to {MOST_IP} characters, got {endpoint:?}"
                )));
            }
            let told = Address::url(&address.scheme, &address.host, address.port.into());
            let mut more = vec![
                (KIND, address.scheme.clone()),
                (PART, format!("{}/{of}/{writing}", at + 1)),
            ];
            if told != **endpoint {
                more.push((ENDPOINT, endpoint.to_string()));
            }
            let host = self.host(instance, owner, more, (address.host, address.port), &path)?;
            let place = (service, host.ip.clone(), host.port);
            if hosts.insert(place, host).is_some() {
                return Err(Error::invalid(format!(
                    "{path}: Nacos holds one endpoint of each host and port{}, and another one has these; got {endpoint:?}",
                    if is_kratos { " and scheme" } else { "" }
                )));
            }
        }
        if hosts.is_empty() {
            let nowhere = (nowhere(&instance.id), 0);
            let more = vec![(PART, format!("0/0/{writing}"))];
            let mut host = self.host(instance, owner, more, nowhere, "instance.id")?;
            host.weight = 0.0; // nobody can call it
            hosts.insert((instance.name.to_string(), host.ip.clone(), host.port), host);
        }
        Ok(hosts)
    }

    fn host(
        &self,
        instance: &ServiceInstance,
        owner: &str,
        more: Vec<(&str, String)>,
        (ip, port): (String, u16),
        path: &str,
    ) -> Result<Host> {
        let mut metadata: Vec<(String, String)> = Vec::with_capacity(instance.metadata.len() + more.len() + 3);
        for (key, value) in instance.metadata.iter() {
            if key == KIND || key == VERSION || key.starts_with(OURS) {
                return Err(Error::invalid(format!(
                    "instance.metadata[{key:?}]: the key has a meaning of its own in Nacos; choose another"
                )));
            }
            metadata.push((key.to_owned(), value.to_owned()));
        }
        let given: usize = metadata.iter().map(|(key, value)| utf16(key) + utf16(value)).sum();
        let own = [(ID, &*instance.id), (OWNER, owner), (VERSION, &*instance.version)];
        metadata.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
        metadata.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        let all: usize = metadata.iter().map(|(key, value)| utf16(key) + utf16(value)).sum();
        if all > MOST_METADATA {
            // What is largest is named.
            let field = [
                (given, "instance.metadata"),
                (utf16(&instance.version), "instance.version"),
                (utf16(&instance.id), "instance.id"),
                (0, path),
            ];
            let rest = all - given - utf16(&instance.version) - utf16(&instance.id);
            let named = field
                .iter()
                .max_by_key(|(size, _)| *size)
                .map_or(path, |(_, field)| field);
            let named = if rest > MOST_METADATA / 2 { path } else { named };
            return Err(Error::invalid(format!(
                "{named}: Nacos takes {MOST_METADATA} characters of metadata, keys, values, id and version together, and this \
                 is {all}; keep large values elsewhere"
            )));
        }
        metadata.sort();
        let weight = weight_of(instance.metadata.get(WEIGHT)).unwrap_or(self.weight);
        Ok(Host {
            ip,
            port,
            weight,
            healthy: true,
            enabled: true,
            cluster: self.cluster.clone(),
            metadata,
        })
    }

    /// Refuses what Nacos can't hold.
    pub(super) fn check(&self, instance: &ServiceInstance) -> Result<()> {
        self.write(instance, SAMPLE_OWNER, SAMPLE_WRITING).map(drop)
    }
}

/// Reads a host; `None` where it is out of traffic.
pub(super) fn read(host: &Host, scheme: &str) -> Option<Reading> {
    if !host.healthy || !host.enabled {
        return None;
    }
    let is_nowhere = mark_of(host).is_some_and(|mark| mark.is_of_nothing());
    let mut metadata: Vec<(String, String)> = host
        .metadata
        .iter()
        .filter(|(key, _)| key != KIND && key != VERSION && !key.starts_with(OURS))
        .cloned()
        .collect();
    let told = weight_of(host.get(WEIGHT));
    // What the writer wants, as far as can be known: Kratos says 100, whatever the metadata says, and Java 1.
    let is_wanted = [told, Some(100.0), (host.get(KIND).is_none()).then_some(1.0)].contains(&Some(host.weight));
    if !is_nowhere && !is_wanted {
        if host.weight <= 0.0 {
            return None; // an operator has taken it out
        }
        metadata.retain(|(key, _)| key != WEIGHT);
        metadata.push((WEIGHT.to_owned(), format!("{}", host.weight.ceil())));
    }
    let endpoint = host
        .get(ENDPOINT)
        .map_or_else(|| Address::url(scheme, &host.ip, host.port.into()), str::to_owned);
    Some(Reading {
        endpoint: (!is_nowhere).then_some(endpoint),
        version: host.get(VERSION).unwrap_or_default().to_owned(),
        metadata,
    })
}

/// The id of a host that has none of ours.
pub(super) fn foreign_id(service: &str, group: &str, host: &Host) -> String {
    format!("{}#{}#{}#{group}@@{service}", host.ip, host.port, host.cluster)
}

/// Refuses a name that an original server refuses.
pub(super) fn check_name(path: &str, name: &str) -> Result<()> {
    let wrong = |why: &str| {
        let text = format!("{path}: Nacos takes no service {why}; got {name:?}");
        Err(Error::invalid(text))
    };
    if name.starts_with('@') || bare(name) != name || name.ends_with('@') {
        return wrong("that begins or ends with \"@\", or has \"@@\" in it, which ends a group");
    }
    if name
        .chars()
        .any(|c| c.is_whitespace() || ('\u{4e00}'..='\u{9fa5}').contains(&c))
    {
        return wrong("with blanks or Chinese characters");
    }
    if utf16(name) + ".https".len() > MOST_SERVICE {
        return wrong("of more than 512 characters, six of which are for its scheme");
    }
    Ok(())
}

fn weight_of(text: Option<&str>) -> Option<f64> {
    let weight: f64 = text?.trim().parse().ok()?;
    (0.0..=MAX_WEIGHT).contains(&weight).then_some(weight)
}

fn utf16(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}
