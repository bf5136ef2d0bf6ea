//! What a client of Polaris is told: where, as whom, and in which layout instances are written.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::tls::TlsOptions;

/// Options of the Polaris backend. [`Default`] is a server on this machine, and what Go Kratos's `contrib/polaris` registers.
#[derive(Clone)]
pub struct PolarisOptions {
    /// The servers, `host:port` of gRPC each. Default `["127.0.0.1:8091"]`.
    pub hosts: Vec<String>,
    /// The namespace of all services. Default `default`.
    pub namespace: String,
    /// The token of a user. Default none. Never logged.
    pub token: Option<String>,
    /// How an instance is written. Default [`PolarisLayout::Polaris`].
    pub layout: PolarisLayout,
    /// The weight of an instance whose metadata has none. Default 100.
    pub weight: u32,
    /// TLS. Default none.
    pub tls: Option<TlsOptions>,
    /// After how long without a heartbeat the server may begin to take an instance for unhealthy; whole seconds, 1 to 60.
    /// Default 5 s.
    pub ttl: Duration,
    /// One request. Default 10 s.
    pub timeout: Duration,
    /// One connection, with its TLS handshake and its first answer. Default 10 s.
    pub connect_timeout: Duration,
}

/// How an instance is written. What one layout writes the other does not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolarisLayout {
    /// As Go Kratos's `contrib/polaris` does: all endpoints in the service `{name}`, with one `merge` in their metadata.
    #[default]
    Polaris,
    /// As Go Kratos's `contrib/registry/polaris` does: those of each scheme in the service `{name}{scheme}`.
    Registry,
}

/// The most seconds that Polaris takes. It makes 5 of any other.
const MOST_TTL: u64 = 60;
/// The largest weight that is taken.
pub(super) const MOST_WEIGHT: u32 = 10_000;
/// The longest name, of a namespace or a service.
const MOST_NAME: usize = 128;

impl Default for PolarisOptions {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:8091".to_owned()],
            namespace: "default".to_owned(),
            token: None,
            layout: PolarisLayout::default(),
            weight: 100,
            tls: None,
            ttl: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for PolarisOptions {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolarisOptions")
            .field("hosts", &self.hosts)
            .field("namespace", &self.namespace)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl PolarisOptions {
    /// Checks what can be checked without I/O, by the rules of the server.
    pub(super) fn validate(&self) -> Result<()> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("options.hosts: expected at least one \"host:port\""));
        }
        check_word("options.namespace", "namespace", &self.namespace)?;
        if self.ttl.is_zero() || self.ttl_seconds() > MOST_TTL {
            return Err(Error::invalid(format!(
                "options.ttlMs: expected 1000 to {}, for Polaris takes 1 to {MOST_TTL} s; got {}",
                MOST_TTL * 1000,
                self.ttl.as_millis()
            )));
        }
        if self.weight > MOST_WEIGHT {
            return Err(Error::invalid(format!(
                "options.weight: expected a whole number of 0 to {MOST_WEIGHT}, got {}",
                self.weight
            )));
        }
        Ok(())
    }

    /// The TTL as the server counts it.
    pub(super) fn ttl_seconds(&self) -> u64 {
        self.ttl.as_secs() + u64::from(self.ttl.subsec_nanos() > 0)
    }
}

/// Refuses a name of a namespace or service that the server refuses.
pub(super) fn check_word(path: &str, what: &str, value: &str) -> Result<()> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-./:_".contains(c);
    if value.is_empty() || value.len() > MOST_NAME || !value.chars().all(is_legal) {
        return Err(Error::invalid(format!(
            "{path}: Polaris takes a {what} of 1 to {MOST_NAME} characters, each a letter, a digit or one of \"-./:_\"; got \
             {value:?}"
        )));
    }
    Ok(())
}
