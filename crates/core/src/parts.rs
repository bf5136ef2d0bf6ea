//! An instance that lies in a registry as several records, one for each endpoint, where records know neither the id of an
//! instance nor an owner. Both travel in the metadata of each record: whose it is, who wrote it, which of how many it is.

use std::time::{SystemTime, UNIX_EPOCH};

use url::Url;

use crate::error::{Error, Result};

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

/// The records of one instance, as far as they are known.
pub(crate) struct Parts<T> {
    owner: Option<String>,
    writing: u64,
    of: usize,
    /// By their number.
    read: Vec<(usize, T)>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self {
            owner: None,
            writing: 0,
            of: 0,
            read: Vec::new(),
        }
    }
}

impl<T> Parts<T> {
    /// The newest owner counts, and of what it wrote the newest.
    pub(crate) fn add(&mut self, mark: Mark, reading: T) {
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

    /// What was read, in the order of the endpoints, and whether that is all of it.
    pub(crate) fn finish(mut self) -> (Vec<T>, bool) {
        self.read.sort_by_key(|(at, _)| *at);
        self.read.dedup_by_key(|(at, _)| *at);
        let is_whole = self.read.len() >= self.of.max(1);
        (self.read.into_iter().map(|(_, reading)| reading).collect(), is_whole)
    }
}

/// An owner that is greater than another, and than those of before by this machine's clock.
pub(crate) fn owner_after(other: Option<&str>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let least = other
        .and_then(|other| u64::from_str_radix(other.get(..12)?, 16).ok())
        .unwrap_or(0);
    let at = now.max(least.saturating_add(1)) & 0xffff_ffff_ffff;
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
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(Error::invalid(format!("{path}: expected a host, got {endpoint:?}")));
        }
        Ok(Self {
            scheme: url.scheme().to_owned(),
            host,
            port: url.port_or_known_default().unwrap_or(0),
        })
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
