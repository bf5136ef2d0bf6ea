//! What a Nacos client is told: where, as whom, and in which form instances are written.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::tls::TlsOptions;

/// Options of the Nacos backend. [`Default`] is a server on this machine, and what Go Kratos registers.
#[derive(Clone)]
pub struct NacosOptions {
    /// The servers, `host:port` each: the port of HTTP, to which 1,000 is added for gRPC. Default `["127.0.0.1:8848"]`.
    pub hosts: Vec<String>,
    /// The port of gRPC of every server, where it is not that of HTTP and 1,000. Default none.
    pub grpc_port: Option<u16>,
    /// The path of the HTTP API, for logging in. Default `/nacos`.
    pub context_path: String,
    /// The id of the namespace. Default `public`.
    pub namespace: String,
    /// The group of all services. Default `DEFAULT_GROUP`.
    pub group: String,
    /// The cluster that instances are registered in; all clusters are read. Default `DEFAULT`.
    pub cluster: String,
    /// How an instance is written. Default [`NacosForm::Kratos`].
    pub form: NacosForm,
    /// The weight of an instance whose metadata has none. Default 100, Kratos's.
    pub weight: f64,
    /// User and password. Default none. Never logged.
    pub user: Option<(String, String)>,
    /// What every request is signed with. Default none. Never logged.
    pub access_key: Option<AccessKey>,
    /// TLS, of HTTP and gRPC. Default none.
    pub tls: Option<TlsOptions>,
    /// How long the servers may be silent before a registration counts as lost. Default 20 s, after which a server has given
    /// up a client that it does not hear; a connection that is closed ends its records at once.
    pub ttl: Duration,
    /// One request. Default 10 s.
    pub timeout: Duration,
    /// One connection, with its TLS handshake and its set-up. Default 10 s.
    pub connect_timeout: Duration,
}

/// A key of Alibaba Cloud.
#[derive(Clone)]
pub struct AccessKey {
    /// Its id, which goes with every request.
    pub access_key: String,
    /// Its secret, which does not.
    pub secret_key: String,
    /// The region whose key is derived from the secret; none signs with the secret itself.
    pub region: Option<String>,
}

/// How an instance is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NacosForm {
    /// As Go Kratos does: the endpoints of each scheme in a service of their own, `{name}.{scheme}`. What lies under `{name}`
    /// itself is read too.
    #[default]
    Kratos,
    /// As Java and Node.js services do: all endpoints in the service `{name}`, and nothing else is read.
    Plain,
}

impl Default for NacosOptions {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:8848".to_owned()],
            grpc_port: None,
            context_path: "/nacos".to_owned(),
            namespace: "public".to_owned(),
            group: "DEFAULT_GROUP".to_owned(),
            cluster: "DEFAULT".to_owned(),
            form: NacosForm::default(),
            weight: 100.0,
            user: None,
            access_key: None,
            tls: None,
            ttl: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for NacosOptions {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NacosOptions")
            .field("hosts", &self.hosts)
            .field("namespace", &self.namespace)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl NacosOptions {
    /// Checks what can be checked without I/O, by the rules of the server.
    pub(super) fn validate(&self) -> Result<()> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("options.hosts: expected at least one \"host:port\""));
        }
        word("namespace", &self.namespace, 64, "-_")?;
        word("group", &self.group, 128, "-_:.")?;
        word("cluster", &self.cluster, 64, "-_")?;
        if !(self.weight > 0.0 && self.weight <= MAX_WEIGHT) {
            return Err(Error::invalid(
                "options.weight: expected a number above 0 and at most 10000",
            ));
        }
        if self.user.is_some() && self.access_key.is_some() {
            return Err(Error::invalid(
                "options.accessKey: expected without options.username: one of them is who we are",
            ));
        }
        if !self.context_path.is_empty() && !self.context_path.starts_with('/') {
            return Err(Error::invalid(
                "options.contextPath: expected a path that begins with \"/\", or an empty text",
            ));
        }
        Ok(())
    }
}

/// The largest weight that Nacos takes.
pub(super) const MAX_WEIGHT: f64 = 10_000.0;

fn word(option: &str, value: &str, longest: usize, more: &str) -> Result<()> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    if value.is_empty() || value.len() > longest || !value.chars().all(is_legal) {
        return Err(Error::invalid(format!(
            "options.{option}: expected 1 to {longest} characters, each a letter, a digit or one of {more:?}; got {value:?}"
        )));
    }
    Ok(())
}
