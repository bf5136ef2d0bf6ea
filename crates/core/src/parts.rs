//! An instance that lies in a registry as several records, one for each endpoint, where records know neither the id of an
//! instance nor an owner. Both travel in the metadata of each record: whose it is, who wrote it, which of how many it is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use url::Url;

use crate::backend::Snapshot;
use crate::error::{Error, Result};
use crate::instance::ServiceInstance;

/// The id of the instance.
pub(crate) const ID: &str = "rollcall.id";
/// Which registration wrote it: the newest has the greatest text.
pub(crate) const OWNER: &str = "rollcall.owner";
/// Which endpoint of how many it is, and of which writing: `1/2/7`; `0/0/7` where there is none.
pub(crate) const PART: &str = "rollcall.n";
/// The endpoint, where it is more than scheme, host and port.
pub(crate) const ENDPOINT: &str = "rollcall.endpoint";
/// What begins so is of ours.
pub(crate) const OURS: &str = "rollcall.";

/// Who wrote a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) id: String,
    pub(crate) owner: Option<String>,
    /// Its number, how many there are, and of which writing.
    pub(crate) part: Option<(usize, usize, u64)>,
}

impl Mark {
    /// The mark in metadata; `None` where the record is none of ours.
    pub(crate) fn of<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let part = get(PART).and_then(|part| {
            let mut numbers = part.split('/').map(|number| number.parse::<u64>().ok());
            let (at, of, writing) = (numbers.next()??, numbers.next()??, numbers.next()??);
            Some((usize::try_from(at).ok()?, usize::try_from(of).ok()?, writing))
        });
        Some(Self {
            id: get(ID)?.to_owned(),
            owner: get(OWNER).map(str::to_owned),
            part,
        })
    }

    /// Whether the record is of an instance without endpoints.
    pub(crate) fn is_of_nothing(&self) -> bool {
        self.part.is_some_and(|(_, of, _)| of == 0)
    }
}

/// What is read of a record that is in traffic.
pub(crate) struct Reading {
    pub(crate) endpoint: Option<String>,
    pub(crate) version: String,
    /// Without what is the registry's, Kratos's or ours.
    pub(crate) metadata: Vec<(String, String)>,
}

/// What lists come to.
pub(crate) struct Merged {
    pub(crate) snapshot: Snapshot,
    /// Whether each instance has all its records, which are not written, or not read, at one moment.
    pub(crate) is_whole: bool,
}

/// The instance that records come to, in the order of its endpoints; `None` where none is in traffic.
pub(crate) fn instance_of(name: &Arc<str>, id: &str, readings: &[Reading]) -> Option<ServiceInstance> {
    let first = readings.first()?;
    Some(ServiceInstance {
        id: id.into(),
        name: Arc::clone(name),
        version: first.version.as_str().into(),
        metadata: first.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        endpoints: readings
            .iter()
            .filter_map(|reading| reading.endpoint.as_deref().map(Into::into))
            .collect(),
        since: None,
    })
}

/// The records of one instance, as far as they are known; a reading is missing where a record is out of traffic.
#[derive(Default)]
pub(crate) struct Parts {
    owner: Option<String>,
    writing: u64,
    of: usize,
    /// By their number.
    read: Vec<(usize, Option<Reading>)>,
}

impl Parts {
    /// The newest owner counts, and of what it wrote the newest.
    pub(crate) fn add(&mut self, mark: Mark, reading: Option<Reading>) {
        let is_first = self.read.is_empty();
        let (at, of, writing) = mark.part.unwrap_or((self.read.len() + 1, 0, 0));
        // What has no owner was written around us, and counts as newer than what has one.
        let new = (mark.owner.is_none(), &mark.owner, writing);
        let old = (self.owner.is_none(), &self.owner, self.writing);
        if !is_first && new < old {
            return;
        }
        if is_first || new > old {
            let owner = mark.owner;
            *self = Self {
                owner,
                writing,
                of,
                read: Vec::new(),
            };
        }
        self.read.push((at, reading));
    }

    /// What is in traffic, in the order of the endpoints, and whether all records are known. One endpoint that an operator has
    /// taken out is missing; the others stand.
    pub(crate) fn finish(mut self) -> (Vec<Reading>, bool) {
        self.read.sort_by_key(|(at, _)| *at);
        self.read.dedup_by_key(|(at, _)| *at);
        let is_whole = self.read.len() >= self.of.max(1);
        (
            self.read.into_iter().filter_map(|(_, reading)| reading).collect(),
            is_whole,
        )
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// An owner that is greater than another, and than those of before by this machine's clock.
pub(crate) fn owner_after(other: Option<&str>) -> String {
    let least = other
        .and_then(|other| u64::from_str_radix(other.get(..12)?, 16).ok())
        .unwrap_or(0);
    let at = unix_millis().max(least.saturating_add(1)) & 0xffff_ffff_ffff;
    format!("{at:012x}{:04x}", fastrand::u16(..))
}

/// Scheme, host and port of an endpoint.
pub(crate) struct Address {
    pub(crate) scheme: String,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Of the endpoint at `path`.
    pub(crate) fn of(path: &str, endpoint: &str) -> Result<Self> {
        let url = Url::parse(endpoint).map_err(|error| Error::invalid(format!("{path}: {error}")))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Ok(Self {
            scheme: url.scheme().to_owned(),
            host,
            port: url.port_or_known_default().unwrap_or(0),
        })
    }

    /// Whether the host is one.
    pub(crate) fn has_host(&self) -> bool {
        !self.host.is_empty() && !self.host.contains(char::is_whitespace)
    }

    /// As a URL.
    pub(crate) fn url(scheme: &str, host: &str, port: u32) -> String {
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
}

/// An address that leads nowhere (RFC 6666), for an instance without endpoints: a server knows records by their address.
pub(crate) fn nowhere(id: &str) -> String {
    // FNV-1a, of 64 bits.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let part = |at: u32| (hash >> (at * 16)) & 0xffff;
    format!("100::{:x}:{:x}:{:x}:{:x}", part(3), part(2), part(1), part(0))
}
