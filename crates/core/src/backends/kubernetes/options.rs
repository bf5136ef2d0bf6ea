//! What a client of Kubernetes is told: which cluster, as whom, which part of it, and how it reads.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// Where instances are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// For each name pods with the labels of Kratos where there are any, else slices.
    #[default]
    Auto,
    /// Pods with the labels of Kratos.
    Pods,
    /// The EndpointSlices of Services.
    Slices,
}

/// Options of the Kubernetes backend.
#[derive(Clone)]
pub struct KubernetesOptions {
    /// The API server, such as `https://10.0.0.1:6443`. Default: by `kubeconfig` or `context`, the cluster around, or the usual
    /// kubeconfig.
    pub server: Option<String>,
    /// A kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current one.
    pub context: Option<String>,
    /// A bearer token. Never logged.
    pub token: Option<String>,
    /// A file with a bearer token, which is read anew.
    pub token_file: Option<PathBuf>,
    /// A PEM file of authorities.
    pub ca_file: Option<PathBuf>,
    /// The namespace; `*` reads all of them. Default: that of the pod or the context, else `default`.
    pub namespace: Option<String>,
    /// The own pod, which a registration labels.
    pub pod: Option<String>,
    /// Where instances are read from. Default [`Source::Auto`].
    pub source: Source,
    /// A label selector that pods or slices must match too.
    pub selector: Option<String>,
    /// Whether what is not ready is listed. Default no.
    pub not_ready: bool,
    /// Whether what is about to end is listed, as long as it serves. Default no.
    pub terminating: bool,
    /// Whether the IPv6 address of a dual-stack pod is listed instead of the IPv4 one. Default no.
    pub prefers_ipv6: bool,
    /// Only the port of this name, of slices. Default all.
    pub port_name: Option<String>,
    /// How long one watch lasts. Default 30 s.
    pub watch_timeout: Duration,
    /// The own pod is looked at three times as often. Default 30 s.
    pub ttl: Duration,
    /// One attempt. Default 10 s.
    pub timeout: Duration,
    /// One TCP connection with its TLS. Default 10 s.
    pub connect_timeout: Duration,
    /// The largest answer that is read, in bytes. Default 64 MiB.
    pub max_message_bytes: usize,
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            server: None,
            kubeconfig: None,
            context: None,
            token: None,
            token_file: None,
            ca_file: None,
            namespace: None,
            pod: None,
            source: Source::Auto,
            selector: None,
            not_ready: false,
            terminating: false,
            prefers_ipv6: false,
            port_name: None,
            watch_timeout: Duration::from_secs(30),
            ttl: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            max_message_bytes: 64 * 1024 * 1024,
        }
    }
}

impl fmt::Debug for KubernetesOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesOptions")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .field("pod", &self.pod)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl KubernetesOptions {
    /// Checks what can be checked without I/O.
    pub(super) fn validate(&self) -> Result<()> {
        if let Some(namespace) = self.namespace.as_deref().filter(|namespace| *namespace != "*") {
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let is_name = namespace.len() <= 63 && namespace.chars().all(legal) && !namespace.is_empty();
            if !is_name || namespace.starts_with('-') || namespace.ends_with('-') {
                return Err(Error::invalid(format!(
                    "options.namespace: expected a name of up to 63 of a-z, 0-9 and \"-\", or \"*\" for all; got {namespace:?}"
                )));
            }
        }
        if let Some(pod) = self.pod.as_deref() {
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            if pod.is_empty() || pod.len() > 253 || !pod.chars().all(legal) {
                return Err(Error::invalid(format!(
                    "options.pod: expected the name of a pod, of a-z, 0-9, \"-\" and \".\"; got {pod:?}"
                )));
            }
        }
        if let Some(token) = &self.token
            && token.trim().chars().any(|c| c.is_control() || !c.is_ascii())
        {
            return Err(Error::invalid(
                "options.token: expected a bearer token, of ASCII without control characters",
            ));
        }
        Ok(())
    }

    /// How messages call the own pod's absence.
    pub(super) fn own_pod(&self) -> Result<&str> {
        self.pod.as_deref().ok_or_else(|| {
            Error::invalid(
                "options.pod: expected the name of the pod that this process runs in: give it here, or in the environment \
                 variable POD_NAME (from the downward API) or HOSTNAME",
            )
        })
    }
}
