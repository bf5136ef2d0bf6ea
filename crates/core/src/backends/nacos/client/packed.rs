//! A list as it is kept for as long as a service is subscribed to: each text once, and hosts as numbers of texts. A client
//! that follows a thousand names keeps five thousand lists, beside what it has made of them.

use std::collections::HashMap;

use super::lists::{Host, List};

/// A [`List`], packed.
#[derive(Debug)]
pub(in super::super) struct Packed {
    service: Box<str>,
    group: Box<str>,
    at_ms: i64,
    bad: Box<[(String, String)]>,
    /// All texts, one after the other, and where each ends.
    texts: Box<str>,
    ends: Box<[u32]>,
    /// What [`Packing::host`] has written of each host, one after the other.
    hosts: Box<[u8]>,
}

/// By how many milliseconds no list overtakes another.
const CLOCK_IS_SET_BACK: i64 = 10_000;
/// Bits of the first byte of a host.
const HEALTHY: u8 = 1;
const ENABLED: u8 = 2;

impl Packed {
    pub(super) fn of(list: &List) -> Self {
        let mut packing = Packing::default();
        for host in &list.hosts {
            packing.host(host);
        }
        Self {
            service: list.service.as_str().into(),
            group: list.group.as_str().into(),
            at_ms: list.at_ms,
            bad: list.bad.clone().into(),
            texts: packing.texts.into(),
            ends: packing.ends.into(),
            hosts: packing.hosts.into(),
        }
    }

    pub(in super::super) fn unpack(&self) -> List {
        let mut hosts = Vec::new();
        let mut unpacking = Unpacking { of: self, at: 0 };
        while unpacking.at < self.hosts.len() {
            hosts.push(unpacking.host());
        }
        List {
            service: self.service.to_string(),
            group: self.group.to_string(),
            hosts,
            at_ms: self.at_ms,
            bad: self.bad.to_vec(),
        }
    }

    pub(in super::super) fn service(&self) -> &str {
        &self.service
    }

    /// As of a [`List`].
    pub(in super::super) fn at_ms(&self) -> i64 {
        self.at_ms
    }

    /// Whether it has the same instances. Lists are sorted, so the same ones are packed alike.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.hosts == other.hosts && self.texts == other.texts && self.ends == other.ends && self.bad == other.bad
    }

    /// Whether it was true before another one, which came first. A clock that was put back by more than a moment is believed.
    pub(super) fn is_older(&self, other: &Self) -> bool {
        self.at_ms != 0 && (1..CLOCK_IS_SET_BACK).contains(&other.at_ms.saturating_sub(self.at_ms))
    }
}

#[derive(Default)]
struct Packing<'a> {
    known: HashMap<&'a str, u32>,
    texts: String,
    ends: Vec<u32>,
    hosts: Vec<u8>,
}

impl<'a> Packing<'a> {
    fn host(&mut self, host: &'a Host) {
        let flag = |is: bool, bit: u8| if is { bit } else { 0 };
        self.hosts
            .push(flag(host.healthy, HEALTHY) | flag(host.enabled, ENABLED));
        self.hosts.extend(host.port.to_le_bytes());
        self.hosts.extend(host.weight.to_le_bytes());
        self.text(&host.ip);
        self.text(&host.cluster);
        self.number(u32::try_from(host.metadata.len()).unwrap_or(u32::MAX)); // a message has far fewer
        for (key, value) in &host.metadata {
            self.text(key);
            self.text(value);
        }
    }

    fn text(&mut self, text: &'a str) {
        let next = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let number = *self.known.entry(text).or_insert(next);
        if number == next {
            self.texts.push_str(text);
            self.ends.push(u32::try_from(self.texts.len()).unwrap_or(u32::MAX)); // a message has at most 64 MiB
        }
        self.number(number);
    }

    /// Seven bits in each byte, the low ones first; the eighth says that more follow.
    fn number(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.hosts.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.hosts.push(number as u8);
    }
}

/// Reads what [`Packing`] has written.
struct Unpacking<'a> {
    of: &'a Packed,
    at: usize,
}

impl Unpacking<'_> {
    fn host(&mut self) -> Host {
        let [flags] = self.bytes();
        Host {
            port: u16::from_le_bytes(self.bytes()),
            weight: f64::from_le_bytes(self.bytes()),
            ip: self.text(),
            cluster: self.text(),
            metadata: (0..self.number()).map(|_| (self.text(), self.text())).collect(),
            healthy: flags & HEALTHY != 0,
            enabled: flags & ENABLED != 0,
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.of.hosts[self.at..self.at + N]);
        self.at += N;
        bytes
    }

    fn number(&mut self) -> u32 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let [byte] = self.bytes();
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn text(&mut self) -> String {
        let number = self.number() as usize;
        let from = number.checked_sub(1).map_or(0, |before| self.of.ends[before]);
        self.of.texts[from as usize..self.of.ends[number] as usize].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: usize) -> Host {
        Host {
            ip: format!("10.0.{}.{}", n / 250, n % 250),
            port: 9000 + u16::try_from(n % 7).unwrap(),
            weight: 0.5 * f64::from(u32::try_from(n).unwrap()),
            healthy: !n.is_multiple_of(3),
            enabled: !n.is_multiple_of(5),
            cluster: "DEFAULT".to_owned(),
            metadata: (0..n % 4)
                .map(|at| {
                    (
                        format!("key-{at}"),
                        if at == 0 { String::new() } else { format!("ü {n}") },
                    )
                })
                .collect(),
        }
    }

    fn list(count: usize) -> List {
        List {
            service: "orders.grpc".to_owned(),
            group: "DEFAULT_GROUP".to_owned(),
            hosts: (0..count).map(host).collect(),
            at_ms: 7,
            bad: vec![("orders#?".to_owned(), "it has no address".to_owned())],
        }
    }

    #[test]
    fn what_was_packed_comes_out_as_it_was() {
        for count in [0, 1, 2, 129, 20_000] {
            let list = list(count);
            let unpacked = Packed::of(&list).unpack();
            assert_eq!(unpacked.hosts, list.hosts);
            assert_eq!(
                (unpacked.service, unpacked.group, unpacked.at_ms, unpacked.bad),
                (list.service, list.group, list.at_ms, list.bad)
            );
        }
    }

    #[test]
    fn one_value_makes_another_list_and_the_time_does_not() {
        let (list, mut later) = (list(9), list(9));
        later.at_ms = 8;
        assert!(Packed::of(&later).is_same(&Packed::of(&list)));
        later.hosts[7].metadata[1].1.push('x');
        assert!(!Packed::of(&later).is_same(&Packed::of(&list)));
    }

    #[test]
    fn a_hundred_hosts_take_less_than_ten_kilobytes() {
        let list = list(100);
        let packed = Packed::of(&list);
        let size = packed.texts.len() + packed.ends.len() * 4 + packed.hosts.len();
        assert!(size < 10_000, "{size}");
    }
}
