//! What an etcd client is told: where, as whom, and how long to wait.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::tls::TlsOptions;

/// The largest answer read by default, in bytes: 64 MiB, some hundred thousand instances.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Says how long the exchange of a password for a token may take; `None` for no limit of its own. Asked before each one.
/// When it fails, so does the exchange.
pub type TokenTime = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Option<Duration>>> + Send>> + Send + Sync>;

/// Options of the etcd client. [`Default`] is a server on this machine.
#[derive(Clone)]
pub struct EtcdOptions {
    /// Members of the cluster: `10.0.0.1:2379`, `http://…` or `https://…`; the port is 2379 when none is named.
    /// Default `["127.0.0.1:2379"]`. A name is resolved again on every connection.
    pub hosts: Vec<String>,
    /// User name, when the cluster has authentication enabled. Default none.
    pub username: Option<String>,
    /// Password of `username`. Default none. Never logged.
    pub password: Option<String>,
    /// The longest that one exchange of the password for a token may take, within the call that needs the token. Default:
    /// the time of that call.
    pub token_time: Option<TokenTime>,
    /// TLS. Default none, unless a host says `https://`.
    pub tls: Option<TlsOptions>,
    /// The longest one call may take, over all the members it tries. Default 10 s.
    pub timeout: Duration,
    /// The longest one TCP connection, and then its TLS handshake, may take. Default 10 s.
    pub connect_timeout: Duration,
    /// A connection with a call or a stream open is pinged this often; an idle one is not. Default 10 s, at least 100 ms.
    /// etcd ends connections that are pinged more often than its `--grpc-keepalive-min-time` with "too_many_pings". That
    /// is 5 s unless changed, which is why the TypeScript API takes no less; here it may be less, for servers set so.
    pub keep_alive: Duration,
    /// A connection whose ping is not answered for this long is given up. Default 5 s.
    pub keep_alive_timeout: Duration,
    /// Whether a connection without a call or stream is pinged too. Default no: etcd ends it with "too_many_pings" unless
    /// it was started to permit that.
    pub keep_alive_while_idle: bool,
    /// What is asked for in place of the host (HTTP/2's `:authority`), for proxies that go by it. Default the host.
    pub authority: Option<String>,
    /// What stands before tonic's own name in `user-agent`. Default nothing.
    pub user_agent: Option<String>,
    /// The largest answer that is read, in bytes. Default 64 MiB.
    pub max_message_bytes: usize,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:2379".to_owned()],
            username: None,
            password: None,
            token_time: None,
            tls: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
            keep_alive_while_idle: false,
            authority: None,
            user_agent: None,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
        }
    }
}

impl EtcdOptions {
    /// Checks what can be checked without a server. Hosts and certificates are checked where they are used.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("options.hosts: expected at least one host"));
        }
        if self.username.as_deref() == Some("") {
            return Err(Error::invalid(
                "options.username: expected a user name, got an empty string",
            ));
        }
        if self.username.is_some() != self.password.is_some() {
            return Err(Error::invalid(
                "options.username, options.password: expected both or neither",
            ));
        }
        for (name, value, least) in [
            ("timeoutMs", self.timeout, Duration::from_millis(1)),
            ("connectTimeoutMs", self.connect_timeout, Duration::from_millis(1)),
            ("keepAliveTimeoutMs", self.keep_alive_timeout, Duration::from_millis(1)),
        ] {
            if value < least {
                return Err(Error::invalid(format!("options.{name}: expected more than 0")));
            }
        }
        if self.keep_alive < KEEP_ALIVE_LEAST {
            return Err(Error::invalid(format!(
                "options.keepAliveMs: expected at least {} ms, got {} ms; etcd ends connections that are pinged too often",
                KEEP_ALIVE_LEAST.as_millis(),
                self.keep_alive.as_millis()
            )));
        }
        if self.max_message_bytes < 4096 {
            return Err(Error::invalid("options.maxMessageBytes: expected at least 4096"));
        }
        Ok(())
    }
}

/// A time to live in whole seconds, rounded up, at least 1.
pub fn whole_seconds(ttl: Duration) -> i64 {
    let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(whole.max(1)).unwrap_or(i64::MAX)
}

/// The longest time to live of a lease: `lease.MaxLeaseTTL` of etcd's `server/lease/lessor.go`.
pub const MAX_TTL: Duration = Duration::from_secs(9_000_000_000);

/// No server is set to accept pings more often than that.
const KEEP_ALIVE_LEAST: Duration = Duration::from_millis(100);

/// Whether a secret is there, never what it is.
fn present<T>(secret: Option<&T>) -> &'static str {
    if secret.is_some() { "***" } else { "none" }
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("hosts", &self.hosts)
            .field("username", &self.username)
            .field("password", &format_args!("{}", present(self.password.as_ref())))
            .field("token_time", &self.token_time.is_some())
            .field("tls", &self.tls)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("keep_alive", &self.keep_alive)
            .field("keep_alive_timeout", &self.keep_alive_timeout)
            .field("keep_alive_while_idle", &self.keep_alive_while_idle)
            .field("authority", &self.authority)
            .field("user_agent", &self.user_agent)
            .field("max_message_bytes", &self.max_message_bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secrets() {
        let options = EtcdOptions {
            username: Some("root".into()),
            password: Some("hunter2".into()),
            tls: Some(TlsOptions {
                key: Some(b"hunter2".to_vec()),
                ..TlsOptions::default()
            }),
            ..EtcdOptions::default()
        };
        let shown = format!("{options:?}");
        assert!(shown.contains("root") && !shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains(&format!("{:?}", b"hunter2")), "{shown}");
    }

    #[test]
    fn no_server_is_flooded_with_pings() {
        let keep_alive = |ms| EtcdOptions {
            keep_alive: Duration::from_millis(ms),
            ..EtcdOptions::default()
        };
        assert!(keep_alive(100).validate().is_ok());
        for ms in [0, 1, 99] {
            let refused = keep_alive(ms).validate();
            assert!(refused.is_err_and(|e| e.message().starts_with("options.keepAliveMs:")));
        }
    }

    #[test]
    fn a_part_of_a_second_is_rounded_up() {
        let ttl = |ms| whole_seconds(Duration::from_millis(ms));
        assert_eq!(ttl(1), 1);
        assert_eq!(ttl(2000), 2);
        assert_eq!(ttl(2001), 3);
    }
}
