//! The members of the cluster as this client sees them: where they are, which to ask first, and one connection to each.
//!
//! Not tonic's balanced channel: it goes on handing calls to a member that refuses connections, so that with one of two
//! members dead more than a third of the calls fail. Here one member is asked until it fails (as Go's client does with
//! `pick_first` semantics on top of its balancer), then the next; who failed is avoided for a while that grows.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::bytes::Transport;
use super::link::{self, Link};
use crate::error::{Error, ErrorKind, Result};
use crate::etcd::options::EtcdOptions;
use crate::log::Log;
use crate::sync::lock;
use crate::tls::{Tls, TlsOptions};

/// etcd's registered client port.
const DEFAULT_PORT: u16 = 2379;
/// What a server may send on one stream before we have read it, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long a member that failed once is avoided, before jitter; doubled with every failure.
const AVOID_FIRST: Duration = Duration::from_millis(250);
/// The longest a member is avoided.
const AVOID_MOST: Duration = Duration::from_secs(10);

/// A connection to one member, with the token that was got over it. It is replaced as a whole when it falls silent.
pub(in crate::etcd) struct Connection {
    /// The member's URL, for messages.
    pub(in crate::etcd) url: Arc<str>,
    /// For typed calls.
    pub(in crate::etcd) client: etcd_client::Client,
    /// For calls in bytes, over the same HTTP/2 connection.
    pub(in crate::etcd) transport: Transport,
    /// Whether it is open: until then nothing has been sent.
    pub(in crate::etcd) link: Arc<Link>,
    /// Counts the tokens got: a caller whose call was refused names the one that it used, so that of many callers one
    /// authenticates. 0 = none yet.
    pub(in crate::etcd) token: AtomicU64,
    /// Held by the one that authenticates; the others wait here and find the work done.
    pub(in crate::etcd) authenticating: tokio::sync::Mutex<()>,
    /// Whether the server has ever answered: if not, it may speak another protocol.
    pub(in crate::etcd) answered: AtomicBool,
    silence: Mutex<Silence>,
}

impl Connection {
    /// An answer came over it.
    pub(in crate::etcd) fn has_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.link.heard.note();
    }

    /// Whether something has come over it since then, for whomever.
    pub(in crate::etcd) fn has_answered_since(&self, since: Instant) -> bool {
        self.link.heard.last().is_some_and(|heard| heard > since)
    }

    /// A try that began at `start` has waited in vain. True when it is the second in a row: with nothing heard in
    /// between, it is the connection rather than the call. Not of one that never answered: it may still be connecting.
    pub(in crate::etcd) fn is_silent_again(&self, start: Instant) -> bool {
        self.answered.load(Ordering::Relaxed)
            && lock(&self.silence).goes_on(self.link.heard.last(), start, Instant::now())
    }
}

/// How long nothing has been heard on a connection, in tries.
#[derive(Default)]
struct Silence {
    /// When the first try of the silence was given up.
    missed: Option<Instant>,
}

impl Silence {
    fn goes_on(&mut self, heard: Option<Instant>, start: Instant, now: Instant) -> bool {
        if heard.is_some_and(|heard| heard >= start) {
            self.missed = None;
            return false;
        }
        // What was given up before the last word is no part of this silence.
        self.missed = self.missed.filter(|missed| heard.is_none_or(|heard| *missed > heard));
        // Tries that wait at the same time count as one.
        *self.missed.get_or_insert(now) <= start
    }
}

#[derive(Default)]
struct Health {
    failures: u32,
    avoid_until: Option<Instant>,
}

/// One member.
pub(in crate::etcd) struct Member {
    /// Its URL, for messages.
    pub(in crate::etcd) url: Arc<str>,
    /// Its place in the options.
    place: usize,
    transport: Endpoint,
    connect_timeout: Duration,
    tls: Option<link::Secure>,
    connection: Mutex<Option<Arc<Connection>>>,
    health: Mutex<Health>,
}

/// All members, in an order drawn once per client, so that a fleet spreads over the cluster.
pub(in crate::etcd) struct EndpointSet {
    members: Vec<Member>,
    current: AtomicUsize,
}

impl Member {
    /// The connection of this member, made on first use; it connects with its first call. Needs a tokio runtime.
    pub(in crate::etcd) fn connection(&self) -> Result<Arc<Connection>> {
        let mut slot = lock(&self.connection);
        if let Some(connection) = &*slot {
            return Ok(Arc::clone(connection));
        }
        let (channel, link) = link::connect_lazy(&self.transport, self.connect_timeout, self.tls.clone());
        let transport = Transport::new(channel);
        let channel = etcd_client::Channel::Custom(tower::util::BoxCloneSyncService::new(transport.clone()));
        let options = etcd_client::ConnectOptions::new().with_require_leader(true);
        // Without a user in its options `from_channel` has nothing to wait for: it awaits no I/O.
        let client = etcd_client::Client::from_channel(channel, Some(options))
            .now_or_never()
            .and_then(std::result::Result::ok)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the etcd client did I/O where it should not"))?;
        let connection = Arc::new(Connection {
            url: Arc::clone(&self.url),
            client,
            transport,
            link,
            token: AtomicU64::new(0),
            authenticating: tokio::sync::Mutex::new(()),
            answered: AtomicBool::new(false),
            silence: Mutex::new(Silence::default()),
        });
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Gives `connection` up, so that the next call makes a new one. Streams that it carries go on until it breaks.
    pub(in crate::etcd) fn abandon(&self, connection: &Arc<Connection>) {
        let mut slot = lock(&self.connection);
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            *slot = None;
        }
    }

    fn avoided_until(&self, now: Instant) -> Option<Instant> {
        lock(&self.health).avoid_until.filter(|until| *until > now)
    }
}

impl EndpointSet {
    /// Checks hosts and certificates. No connection is made.
    pub(in crate::etcd) fn new(options: &EtcdOptions, log: &Log) -> Result<Self> {
        let mut members = Vec::with_capacity(options.hosts.len());
        let mut tls = None; // one for all members, made for the first that wants it
        for (i, host) in options.hosts.iter().enumerate() {
            let url = parse_host(host, options.tls.is_some())
                .map_err(|why| Error::invalid(format!("options.hosts[{i}]: {why}")))?;
            let transport = transport(&url, options)?;
            let tls = if url.starts_with("https://") {
                if tls.is_none() {
                    tls = Some(Tls::new(
                        options.tls.as_ref().unwrap_or(&TlsOptions::default()),
                        log.clone(),
                    )?);
                }
                let name = options.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
                tls.as_ref().map(|tls| link::Secure::new(tls, &url, name)).transpose()?
            } else {
                None
            };
            members.push(Member {
                url: url.into(),
                place: i,
                transport,
                connect_timeout: options.connect_timeout,
                tls,
                connection: Mutex::new(None),
                health: Mutex::new(Health::default()),
            });
        }
        fastrand::shuffle(&mut members);
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
        })
    }

    pub(in crate::etcd) fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    pub(in crate::etcd) fn count(&self) -> usize {
        self.members.len()
    }

    /// The index of the host that has this place in the options.
    pub(in crate::etcd) fn index_of(&self, place: usize) -> Option<usize> {
        self.members.iter().position(|member| member.place == place)
    }

    /// In which order to ask: the current one and those after it; then those that failed lately, the one first whose
    /// time is over first. Every member is in it: with all of them failing, each is still tried.
    pub(in crate::etcd) fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let start = self.current.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..self.members.len())
            .map(|i| (start + i) % self.members.len())
            .collect();
        if order.len() > 1 {
            order.sort_by_cached_key(|i| self.members[*i].avoided_until(now)); // stable, and `None` comes first
        }
        order
    }

    pub(in crate::etcd) fn succeeded(&self, index: usize) {
        self.current.store(index, Ordering::Relaxed);
        *lock(&self.members[index].health) = Health::default();
    }

    pub(in crate::etcd) fn failed(&self, index: usize) {
        // The next one, also when its time is over before anybody else has answered: a frozen member is over it soon.
        let next = (index + 1) % self.members.len();
        let _ = self
            .current
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        let mut health = lock(&self.members[index].health);
        let most = AVOID_FIRST.saturating_mul(1 << health.failures.min(10)).min(AVOID_MOST);
        health.failures = health.failures.saturating_add(1);
        health.avoid_until = Some(Instant::now() + most.mul_f64(0.5 + fastrand::f64() / 2.0));
    }

    /// The URL of the member that is asked next.
    pub(in crate::etcd) fn next(&self) -> Option<&str> {
        self.order().first().map(|index| &*self.members[*index].url)
    }

    /// All URLs, for messages.
    pub(in crate::etcd) fn urls(&self) -> String {
        let urls: Vec<&str> = self.members.iter().map(|m| &*m.url).collect();
        urls.join(", ")
    }

    /// Gives every connection up.
    pub(in crate::etcd) fn close(&self) {
        for member in &self.members {
            if let Some(connection) = lock(&member.connection).take() {
                connection.link.end();
            }
        }
    }
}

/// `host`, `host:port` or a URL of these → `scheme://host:port`.
fn parse_host(host: &str, tls: bool) -> Result<String, String> {
    // First of all, because the other messages repeat the host.
    if host.contains('@') {
        return Err("a user and a password do not belong into the host; use username and password".to_owned());
    }
    let (scheme, authority) = match host.split_once("://") {
        None => (if tls { "https" } else { "http" }, host),
        Some(("http", _)) if tls => {
            return Err(format!(
                "{host:?} says http, but tls is set; write https:// or the bare host, or leave tls out"
            ));
        }
        Some((scheme @ ("http" | "https"), authority)) => (scheme, authority),
        Some((scheme, _)) => {
            return Err(format!("expected http:// or https://, got {scheme}:// in {host:?}"));
        }
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let wrong = || format!("expected a host such as \"10.0.0.1:2379\", got {host:?}");
    if authority.is_empty() || authority.contains(['/', '?', '#', ',', ' ']) {
        return Err(wrong());
    }
    // A scheme that the parser does not know, so that it does not take :80 or :443 away.
    let url = url::Url::parse(&format!("etcd://{authority}")).map_err(|_| wrong())?;
    let name = url.host_str().filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    let port = url.port().unwrap_or(DEFAULT_PORT);
    if port == 0 {
        return Err(wrong());
    }
    Ok(format!("{scheme}://{name}:{port}"))
}

fn transport(url: &str, options: &EtcdOptions) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|e| Error::invalid(format!("options.hosts: {url:?} is no URL")).caused_by(e))?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        // Fixed and large: with HTTP/2's 64 KiB a list of 10 MB takes 160 round trips.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Answers to calls that were given up are on their way. The 1,025th of them would end the connection, with
        // "too_many_internal_resets", and all other calls on it.
        .http2_max_local_error_reset_streams(None)
        // Pings while no call is open are what etcd's enforcement policy (`PermitWithoutStream: false` in
        // `server/embed/etcd.go`) answers with GOAWAY "too_many_pings". A connection that died while idle is found by
        // its next call, which gets a part of its time only, and is made again by the one after.
        .keep_alive_while_idle(options.keep_alive_while_idle)
        .http2_keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive_timeout);
    named(endpoint, url, options)
}

/// What the requests say of whom they are for and whom they are from.
fn named(mut endpoint: Endpoint, url: &str, options: &EtcdOptions) -> Result<Endpoint> {
    if let Some(authority) = &options.authority {
        let scheme = if url.starts_with("https://") { "https" } else { "http" };
        let origin = format!("{scheme}://{authority}").parse();
        endpoint = endpoint.origin(origin.map_err(|e| {
            Error::invalid(format!(
                "options.authority: expected a host and port, got {authority:?}"
            ))
            .caused_by(e)
        })?);
    }
    if let Some(agent) = &options.user_agent {
        endpoint = endpoint
            .user_agent(agent.clone())
            .map_err(|e| Error::invalid("options.userAgent: expected visible ASCII text").caused_by(e))?;
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hosts: &[&str]) -> EndpointSet {
        EndpointSet::new(
            &EtcdOptions {
                hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
                ..EtcdOptions::default()
            },
            &Log::default(),
        )
        .unwrap_or_else(|e| unreachable!("{e}"))
    }

    #[test]
    fn hosts_are_read_in_every_usual_form() {
        for (given, tls, want) in [
            ("localhost", false, "http://localhost:2379"),
            ("10.0.0.1:80", false, "http://10.0.0.1:80"),
            ("http://10.0.0.1:80/", false, "http://10.0.0.1:80"),
            ("10.0.0.1", true, "https://10.0.0.1:2379"),
            ("https://etcd.example", false, "https://etcd.example:2379"),
            ("[::1]:1234", false, "http://[::1]:1234"),
            ("[::1]", false, "http://[::1]:2379"),
        ] {
            assert_eq!(parse_host(given, tls).as_deref(), Ok(want), "{given}");
        }
        for (given, tls) in [
            ("", false),
            ("http://", false),
            ("http://a", true),
            ("ftp://a", false),
            ("a:0", false),
            ("a:99999", false),
            ("user:pw@a", false),
            ("a/b", false),
            ("a,b", false),
        ] {
            assert!(parse_host(given, tls).is_err(), "{given}");
        }
    }

    #[test]
    fn a_host_is_found_by_its_place_in_the_options() {
        for _ in 0..20 {
            let set = set(&["a", "b", "c"]);
            for (place, name) in ["a", "b", "c"].iter().enumerate() {
                let index = set.index_of(place).unwrap();
                assert_eq!(&*set.member(index).url, format!("http://{name}:2379"));
            }
            assert_eq!(set.index_of(3), None);
        }
    }

    #[test]
    fn a_password_in_a_host_is_not_repeated() {
        for given in [
            "root:hunter2@a",
            "etcd://root:hunter2@a",
            "http://root:hunter2@a",
            "http://root:hunter2@a/b",
        ] {
            for tls in [false, true] {
                let why = parse_host(given, tls);
                assert!(why.is_err_and(|why| !why.contains("hunter2")), "{given}");
            }
        }
    }

    #[test]
    fn a_connection_is_silent_at_the_second_try_in_a_row() {
        let (at, second) = (Instant::now(), Duration::from_secs(1));
        let mut silence = Silence::default();
        assert!(!silence.goes_on(None, at, at + second));
        // Under way at the same time: that is one silence, not two.
        assert!(!silence.goes_on(None, at, at + second));
        let heard = Some(at + second * 2);
        // Something else was answered during it.
        assert!(!silence.goes_on(heard, at + second, at + second * 3));
        assert!(!silence.goes_on(heard, at + second * 3, at + second * 4));
        assert!(silence.goes_on(heard, at + second * 4, at + second * 5));
        // Heard between two tries that both waited in vain.
        let heard = Some(at + second * 6);
        assert!(!silence.goes_on(heard, at + second * 7, at + second * 8));
        assert!(silence.goes_on(heard, at + second * 8, at + second * 9));
    }

    #[tokio::test(start_paused = true)]
    async fn who_failed_is_asked_last_and_then_again() {
        let set = set(&["a", "b", "c"]);
        assert_eq!(set.order(), [0, 1, 2]);
        set.failed(0);
        assert_eq!(set.order(), [1, 2, 0]);
        set.succeeded(2);
        assert_eq!(set.order()[0], 2);
        tokio::time::advance(AVOID_MOST).await;
        assert_eq!(set.order(), [2, 0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn with_all_failing_each_is_still_tried() {
        let set = set(&["a", "b"]);
        for _ in 0..100 {
            set.failed(0);
        }
        set.failed(1);
        assert_eq!(set.order(), [1, 0]);
        assert!(set.member(0).avoided_until(Instant::now() + AVOID_MOST).is_none());
    }
}
