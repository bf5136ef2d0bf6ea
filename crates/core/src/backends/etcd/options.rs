//! What the records of a registry in etcd are like.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::etcd::MAX_TTL;
use crate::instance::Codec;

/// Where the records of a registry lie, how they are written, and how long they live without us. [`Default`] is as Go
/// Kratos does.
#[derive(Debug, Clone)]
pub struct EtcdRecords {
    /// What every key starts with, with or without a slash at its end. Default `/microservices`, Kratos's.
    pub prefix: String,
    /// How the value of a key is written. Default [`Codec::Kratos`].
    pub codec: Codec,
    /// The lease's time to live to ask for, rounded up to whole seconds; what the server grants counts.
    /// Default 15 s, Kratos's. etcd raises it to at least one and a half times its election timeout.
    pub ttl: Duration,
}

impl Default for EtcdRecords {
    fn default() -> Self {
        Self {
            prefix: "/microservices".to_owned(),
            codec: Codec::Kratos,
            ttl: Duration::from_secs(15),
        }
    }
}

impl EtcdRecords {
    pub(super) fn validate(&self) -> Result<()> {
        if self.prefix.trim_matches('/').is_empty() {
            return Err(Error::invalid(
                "options.prefix: expected a prefix such as \"/microservices\"; an empty one would take every key of the cluster",
            ));
        }
        if self.ttl < Duration::from_millis(1) {
            return Err(Error::invalid("options.ttlMs: expected more than 0"));
        }
        if self.ttl > MAX_TTL {
            return Err(Error::invalid(format!(
                "options.ttlMs: expected at most {} s, etcd's own limit, got {} s",
                MAX_TTL.as_secs(),
                self.ttl.as_secs()
            )));
        }
        Ok(())
    }
}
