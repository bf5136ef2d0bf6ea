//! What a Consul client is told: where, as whom, what it registers, and how it reads.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::tls::TlsOptions;

/// Options of the Consul backend. [`Default`] is an agent on this machine, and what Go Kratos registers.
#[derive(Clone)]
pub struct ConsulOptions {
    /// Agents, the preferred one first: `host:port`, `http(s)://host:port` or `unix:///path`; the port is 8500 when none
    /// is named (8501 with TLS). Default `["127.0.0.1:8500"]`.
    pub hosts: Vec<String>,
    /// The ACL token. Default none, which is Consul's anonymous token. Never logged.
    pub token: Option<String>,
    /// The datacenter that is read. Default: the agent's. Registration is always in the agent's.
    pub datacenter: Option<String>,
    /// Namespace, of Consul Enterprise. Default none.
    pub namespace: Option<String>,
    /// Admin partition, of Consul Enterprise. Default none.
    pub partition: Option<String>,
    /// TLS. Default none, unless a host says `https://`.
    pub tls: Option<TlsOptions>,
    /// The time to live of the TTL check, renewed three times as often. Default 20 s, Kratos's.
    pub ttl: Duration,
    /// One attempt, over all the agents that it tries. Default 10 s.
    pub timeout: Duration,
    /// One TCP connection and its TLS handshake. Default 10 s.
    pub connect_timeout: Duration,
    /// What the agent itself looks at. Default [`HealthCheck::Tcp`], Kratos's.
    pub health_check: HealthCheck,
    /// The path that an HTTP check asks for. Default `/`.
    pub health_check_path: String,
    /// How often the agent looks. Default 10 s.
    pub health_check_interval: Duration,
    /// How long the agent waits for an answer. Default 5 s.
    pub health_check_timeout: Duration,
    /// Whether there is a TTL check, which we renew. Without it the record of a dead process stays, and owners of one id
    /// can't be told apart. Default yes.
    pub heartbeat: bool,
    /// How long a check may be critical before Consul removes the service; Consul takes no less than a minute. Default
    /// 600 s.
    pub deregister_critical_after: Duration,
    /// Tags beside `version=…`. Default none.
    pub tags: Vec<String>,
    /// Weights of the service, while its checks pass and while they warn. Default: Consul's.
    pub weights: Option<(u32, u32)>,
    /// Whether only instances whose checks all pass are read. Default yes.
    pub passing_only: bool,
    /// How consistent reads are. Default [`Consistency::Default`], and then the first list of a watch is consistent.
    pub consistency: Consistency,
    /// `near`: the node from which Consul sorts by distance. Lists are sorted by id all the same. Default none.
    pub near: Option<String>,
    /// A filter expression over the entries of `/v1/health/service`. Default none.
    pub filter: Option<String>,
    /// How long Consul holds a blocking query without a change. Default 55 s, Kratos's.
    pub wait: Duration,
    /// The most connections that are held for watched names. Over HTTP/1.1 each is of one name, names beyond share three,
    /// and fewer are held while the agent takes no more from this address. Over TLS, which is HTTP/2, each is of 200 names.
    /// Default 64.
    pub max_watch_connections: usize,
    /// The largest answer that is read, in bytes. Default 64 MiB.
    pub max_message_bytes: usize,
}

/// What the agent itself looks at, beside the TTL check: one check for each endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HealthCheck {
    /// Nothing.
    Off,
    /// It connects.
    #[default]
    Tcp,
    /// It asks endpoints of `http` and `https` for a path, and connects to the others.
    Http,
    /// It asks endpoints of `grpc` and `grpcs` by gRPC's health protocol, and connects to the others.
    Grpc,
}

/// Consul's consistency modes, <https://developer.hashicorp.com/consul/api-docs/features/consistency>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The leader answers, without asking the others whether it still is.
    #[default]
    Default,
    /// Any server answers, without a leader too; a list may be old.
    Stale,
    /// The leader asks the others first.
    Consistent,
}

impl Default for ConsulOptions {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:8500".to_owned()],
            token: None,
            datacenter: None,
            namespace: None,
            partition: None,
            tls: None,
            ttl: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            health_check: HealthCheck::default(),
            health_check_path: "/".to_owned(),
            health_check_interval: Duration::from_secs(10),
            health_check_timeout: Duration::from_secs(5),
            heartbeat: true,
            deregister_critical_after: Duration::from_secs(600),
            tags: Vec::new(),
            weights: None,
            passing_only: true,
            consistency: Consistency::default(),
            near: None,
            filter: None,
            wait: Duration::from_secs(55),
            max_watch_connections: 64,
            max_message_bytes: 64 * 1024 * 1024,
        }
    }
}

impl fmt::Debug for ConsulOptions {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulOptions")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl ConsulOptions {
    /// Checks what can be checked without I/O.
    pub(super) fn validate(&self) -> Result<()> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("options.hosts: expected at least one agent"));
        }
        if let Some(token) = &self.token
            && !token.bytes().all(|b| (0x21..0x7f).contains(&b))
        {
            return Err(Error::invalid(
                "options.token: expected printable ASCII without blanks, as Consul's tokens are",
            ));
        }
        if self
            .tls
            .as_ref()
            .is_some_and(|tls| tls.cert.is_some() != tls.key.is_some())
        {
            return Err(Error::invalid(
                "options.tls: a client certificate needs its key, and a key its certificate",
            ));
        }
        Ok(())
    }
}
