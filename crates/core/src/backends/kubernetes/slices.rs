//! EndpointSlices: what is kept of one, and how those of a service become its instances.
//!
//! A service is the set of its slices. One pod stands in a slice for each family of addresses, and for a while in two of one
//! family while it is moved, so its entries are joined by the uid of the pod.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::{EndpointSlice, SliceEndpoint, SlicePort};
use super::options::KubernetesOptions;
use super::pods::host;
use crate::backend::BadRecord;
use crate::instance::ServiceInstance;

/// The label by which a slice names its service.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";
/// What a port's name may begin with to say its scheme.
const SCHEMES: [&str; 11] = [
    "http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "udp", "h2c", "http2", "tls",
];

/// What is kept of a slice.
#[derive(Debug)]
pub(super) struct Slice {
    family: Family,
    /// Of slices that name one pod the later counts.
    version: u64,
    /// Scheme and port.
    ports: Box<[(Box<str>, u16)]>,
    endpoints: Box<[Entry]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Name,
}

#[derive(Debug)]
struct Entry {
    /// Of the pod; empty where there is none.
    uid: Box<str>,
    id: Box<str>,
    address: Box<str>,
    zone: Box<str>,
    node: Box<str>,
    /// It takes calls.
    is_listed: bool,
}

/// What is kept of a slice, and of which service it is. `None`: of none.
pub(super) fn read(
    options: &KubernetesOptions,
    mut slice: EndpointSlice,
) -> Option<(String, Result<Slice, BadRecord>)> {
    let service = slice.metadata.labels.remove(SERVICE).filter(|name| !name.is_empty())?;
    let key = format!("endpointslice {}/{}", slice.metadata.namespace, slice.metadata.name);
    let read = kept(options, slice).map_err(|reason| BadRecord { key, reason });
    Some((service, read))
}

fn kept(options: &KubernetesOptions, slice: EndpointSlice) -> Result<Slice, String> {
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => Family::Name,
        other => return Err(format!("addressType: expected IPv4, IPv6 or FQDN, got {other:?}")),
    };
    let wanted = |port: &&SlicePort| options.port_name.as_ref().is_none_or(|name| *name == port.name);
    let ports = slice.ports.iter().filter(wanted).filter_map(|port| {
        let number = u16::try_from(port.port?).ok().filter(|port| *port > 0)?; // none is all of them, which nobody can dial
        Some((scheme(port).into(), number))
    });
    let ports: Box<[_]> = ports.collect();
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    for endpoint in slice.endpoints {
        // Only the first counts, by the API.
        let Some(address) = endpoint.addresses.first() else {
            continue;
        };
        let is_of_family = match family {
            Family::V4 => address.parse::<std::net::Ipv4Addr>().is_ok(),
            Family::V6 => address.parse::<std::net::Ipv6Addr>().is_ok(),
            Family::Name => !address.is_empty() && !address.contains(['/', ':', '@', '?', '#', ' ']),
        };
        if !is_of_family {
            return Err(format!(
                "endpoints: {address:?} is no address of the type {}",
                slice.address_type
            ));
        }
        endpoints.push(entry(options, &endpoint, address));
    }
    Ok(Slice {
        family,
        version: slice.metadata.resource_version.parse().unwrap_or(0),
        ports,
        endpoints: endpoints.into(),
    })
}

fn entry(options: &KubernetesOptions, endpoint: &SliceEndpoint, address: &str) -> Entry {
    let conditions = &endpoint.conditions;
    let is_ready = conditions.ready.unwrap_or(true);
    let is_listed = if conditions.terminating.unwrap_or(false) {
        options.terminating && conditions.serving.unwrap_or(is_ready)
    } else {
        is_ready || options.not_ready
    };
    let target = &endpoint.target_ref;
    Entry {
        uid: target.uid.as_str().into(),
        id: if target.name.is_empty() { address } else { &target.name }.into(),
        address: address.into(),
        zone: endpoint.zone.as_str().into(),
        node: endpoint.node_name.as_str().into(),
        is_listed,
    }
}

/// The scheme of a port: by its `appProtocol`, else by its name up to a dash, else `tcp`.
fn scheme(port: &SlicePort) -> &str {
    match port.app_protocol.as_str() {
        "kubernetes.io/h2c" => return "grpc",
        "kubernetes.io/ws" => return "ws",
        "kubernetes.io/wss" => return "wss",
        other if SCHEMES.contains(&other) => return named(other),
        _ => {}
    }
    let prefix = port.name.split('-').next().unwrap_or_default();
    if SCHEMES.contains(&prefix) {
        named(prefix)
    } else {
        "tcp"
    }
}

/// What is dialed where a port says this of itself.
fn named(scheme: &str) -> &str {
    match scheme {
        "h2c" | "http2" => "grpc",
        "tls" => "tcp",
        other => other,
    }
}

/// The instances of a service.
pub(super) fn merge<'a>(
    options: &KubernetesOptions,
    name: &Arc<str>,
    slices: impl Iterator<Item = &'a Slice>,
) -> Vec<Arc<ServiceInstance>> {
    let preferred = if options.prefers_ipv6 { Family::V6 } else { Family::V4 };
    let mut best: HashMap<&str, (&Slice, &Entry)> = HashMap::new();
    for slice in slices.filter(|slice| !slice.ports.is_empty()) {
        for entry in &slice.endpoints {
            let key = if entry.uid.is_empty() {
                &entry.address
            } else {
                &entry.uid
            };
            let rank = |slice: &Slice, entry: &Entry| {
                let is_listed_elsewhere = entry.uid.is_empty() && entry.is_listed;
                (slice.family == preferred, is_listed_elsewhere, slice.version)
            };
            match best.get(&**key) {
                Some((slice_before, before)) if rank(slice_before, before) >= rank(slice, entry) => {}
                _ => drop(best.insert(key, (slice, entry))),
            }
        }
    }
    let listed = best.into_values().filter(|(_, entry)| entry.is_listed);
    listed
        .map(|(slice, entry)| Arc::new(instance(name, slice, entry)))
        .collect()
}

fn instance(name: &Arc<str>, slice: &Slice, entry: &Entry) -> ServiceInstance {
    let host = host(&entry.address);
    let facts = [("node", &entry.node), ("zone", &entry.zone)];
    ServiceInstance {
        id: entry.id.clone(),
        name: Arc::clone(name),
        version: Box::default(),
        metadata: facts
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key, value.clone()))
            .collect(),
        endpoints: slice
            .ports
            .iter()
            .map(|(scheme, port)| format!("{scheme}://{host}:{port}").into())
            .collect(),
        since: None,
    }
}
