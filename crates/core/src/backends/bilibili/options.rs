//! What a client of discovery is told: where, which part of it, and how it reads.

use std::time::Duration;

use crate::error::{Error, Result};

/// Options of the bilibili discovery backend. [`Default`] has no zone and no environment, which have to be given.
#[derive(Debug, Clone)]
pub struct BilibiliOptions {
    /// Nodes, the preferred one first: `host:port`; the port is 7171 when none is named. Default `["127.0.0.1:7171"]`.
    pub hosts: Vec<String>,
    /// The zone of this process: what it registers is there, and lists are read of it first.
    pub zone: String,
    /// The environment, such as `dev` or `prod`. One does not see the other.
    pub env: String,
    /// The region, which is only written. Default none.
    pub region: String,
    /// Whether the instances of all other zones are read where the own zone has none. Default no, as in Kratos.
    pub zone_fallback: bool,
    /// Whether the registry is asked for its other nodes (its application `infra.discovery`). Else `hosts` is all there is.
    /// Default yes.
    pub discover_nodes: bool,
    /// For how long a record is taken to stand without renewal; it is renewed three times as often. Default 90 s, the
    /// server's constant.
    pub ttl: Duration,
    /// One attempt, over all the nodes that it tries. Default 10 s.
    pub timeout: Duration,
    /// One TCP connection. Default 10 s.
    pub connect_timeout: Duration,
    /// The largest answer that is read, in bytes. Default 64 MiB.
    pub max_message_bytes: usize,
}

impl Default for BilibiliOptions {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:7171".to_owned()],
            zone: String::new(),
            env: String::new(),
            region: String::new(),
            zone_fallback: false,
            discover_nodes: true,
            ttl: Duration::from_secs(90),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            max_message_bytes: 64 * 1024 * 1024,
        }
    }
}

impl BilibiliOptions {
    /// Checks what can be checked without I/O. The server takes anything, an empty zone too.
    pub(super) fn validate(&self) -> Result<()> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("options.hosts: expected at least one node"));
        }
        for (name, value, example) in [("zone", &self.zone, "sh001"), ("env", &self.env, "prod")] {
            if value.is_empty() {
                return Err(Error::invalid(format!(
                    "options.{name}: expected the {name} that this process is in, such as {example:?}: discovery needs one"
                )));
            }
        }
        for (name, value) in [("zone", &self.zone), ("env", &self.env), ("region", &self.region)] {
            if value.chars().any(char::is_control) {
                return Err(Error::invalid(format!(
                    "options.{name}: must not contain control characters"
                )));
            }
        }
        Ok(())
    }
}
