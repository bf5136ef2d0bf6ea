//! What address others reach us at, when an endpoint names none (`0.0.0.0`, `[::]`).
//!
//! Kratos's rule (`internal/host` of go-kratos): of the interfaces that are up, the one with the lowest index that has a
//! global unicast address, IPv4 before IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// Makes every endpoint of an instance reachable; see [`reachable`].
pub(crate) fn all_reachable(endpoints: &mut [Box<str>], advertise_host: Option<&str>) -> Result<()> {
    for (i, endpoint) in endpoints.iter_mut().enumerate() {
        *endpoint = reachable(&format!("instance.endpoints[{i}]"), endpoint, advertise_host)?.into();
    }
    Ok(())
}

/// Puts `advertise_host`, or this machine's address, where an endpoint has a wildcard host. Everything else is kept
/// byte for byte. `path` is how the caller calls the argument.
pub fn reachable(path: &str, endpoint: &str, advertise_host: Option<&str>) -> Result<String> {
    let Some((before, host, after)) = split_host(endpoint) else {
        return Ok(endpoint.to_owned());
    };
    if !matches!(host, "0.0.0.0" | "[::]" | "[0:0:0:0:0:0:0:0]" | "*") {
        return Ok(endpoint.to_owned());
    }
    let chosen = match advertise_host {
        Some(host) => host.to_owned(),
        None => machine_address().map(|ip| ip.to_string()).ok_or_else(|| {
            Error::invalid(format!(
                "{path}: {endpoint:?} has a wildcard host and this machine has no address that others could reach; set advertiseHost"
            ))
        })?,
    };
    if chosen.contains(':') && !chosen.starts_with('[') {
        return Ok(format!("{before}[{chosen}]{after}"));
    }
    Ok(format!("{before}{chosen}{after}"))
}

/// Cuts `scheme://user@host:port/path` into what stands before the host, the host, and what follows.
fn split_host(endpoint: &str) -> Option<(&str, &str, &str)> {
    let start = endpoint.find("://")? + 3;
    let end = endpoint[start..]
        .find(['/', '?', '#'])
        .map_or(endpoint.len(), |at| start + at);
    let start = endpoint[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let authority = &endpoint[start..end];
    let host = if authority.starts_with('[') {
        &authority[..=authority.find(']')?]
    } else {
        &authority[..authority.rfind(':').unwrap_or(authority.len())]
    };
    Some((&endpoint[..start], host, &endpoint[start + host.len()..]))
}

/// This machine's address by Kratos's rule.
fn machine_address() -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().ok()?;
    choose(interfaces.iter().map(|i| (i.index.unwrap_or(u32::MAX), i.ip())))
}

fn choose(addresses: impl Iterator<Item = (u32, IpAddr)>) -> Option<IpAddr> {
    addresses
        .filter(|(_, ip)| is_global_unicast(ip))
        .min_by_key(|(index, ip)| (*index, ip.is_ipv6()))
        .map(|(_, ip)| ip)
}

/// Go's `IP.IsGlobalUnicast`: private ranges count, loopback, link-local and multicast do not.
fn is_global_unicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || *v4 == Ipv4Addr::BROADCAST)
        }
        IpAddr::V6(v6) => {
            !(*v6 == Ipv6Addr::UNSPECIFIED
                || v6.is_loopback()
                || v6.is_multicast()
                || (v6.segments()[0] & 0xffc0) == 0xfe80)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_host_is_replaced_and_nothing_else() {
        let given = |endpoint| reachable("e", endpoint, Some("10.9.8.7")).unwrap();
        assert_eq!(given("grpc://0.0.0.0:9000"), "grpc://10.9.8.7:9000");
        assert_eq!(given("http://[::]:8000/x?y=1"), "http://10.9.8.7:8000/x?y=1");
        assert_eq!(given("http://0.0.0.0"), "http://10.9.8.7");
        assert_eq!(given("http://u:p@0.0.0.0:1/@"), "http://u:p@10.9.8.7:1/@");
        assert_eq!(given("GRPC://Orders.example:9000"), "GRPC://Orders.example:9000");
        assert_eq!(given("http://[::1]:8000"), "http://[::1]:8000");
        let six = reachable("e", "grpc://0.0.0.0:1", Some("fd00::1")).unwrap();
        assert_eq!(six, "grpc://[fd00::1]:1");
    }

    #[test]
    fn the_lowest_interface_with_a_global_address_is_chosen_ipv4_first() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = [
            (1, ip("127.0.0.1")),
            (3, ip("10.0.0.3")),
            (2, ip("fe80::2")),
            (2, ip("fd00::2")),
            (2, ip("10.0.0.2")),
        ];
        assert_eq!(choose(all.into_iter()), Some(ip("10.0.0.2")));
        assert_eq!(choose(all[..2].iter().copied()), Some(ip("10.0.0.3")));
        assert_eq!(choose(all[..1].iter().copied()), None);
    }
}
