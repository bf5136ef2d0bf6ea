//! Servers, a proxy that loses answers, and waiting for conditions.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rollcall_core::backend::{Backend as _, Follow, Presence, Snapshot};
use rollcall_core::backends::etcd::{EtcdBackend, EtcdRecords};
use rollcall_core::error::Result;
use rollcall_core::etcd::EtcdOptions;
use rollcall_core::log::Log;
use rollcall_core::{ErrorKind, ServiceInstance};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

/// The server's binary, or `None` where the tests may be passed over.
pub fn binary() -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../servers/bin/etcd");
    let found = std::env::var_os("ROLLCALL_ETCD_BIN")
        .map(PathBuf::from)
        .or_else(|| repository.exists().then_some(repository))
        .or_else(|| Path::new("/usr/bin/etcd").exists().then(|| "/usr/bin/etcd".into()));
    assert!(
        found.is_some() || std::env::var("CI").as_deref() != Ok("true"),
        "no etcd to test with: make servers"
    );
    found
}

/// A tool of `servers/bin`.
fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../servers/bin")
        .join(name)
}

/// Whether snapshots can be restored here.
pub fn restores() -> bool {
    let all = ["etcdctl", "etcdutl"].iter().all(|name| tool(name).exists());
    assert!(
        all || std::env::var("CI").as_deref() != Ok("true"),
        "no etcdutl to test with: make servers"
    );
    all
}

/// Starts a server, or returns from the test when there is none.
macro_rules! etcd {
    ($($flag:expr),*) => {
        match crate::support::binary() {
            Some(binary) => crate::support::Server::start(&binary, &[$($flag),*]).await,
            None => return,
        }
    };
}
pub(crate) use etcd;

/// A port that nobody has, below those that systems give to outgoing connections, so that nobody gets it by chance.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let port = 15_000 + fastrand::u16(0..17_000);
        if !given.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
}

pub fn temporary_folder() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("rollcall-etcd-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// One member. Dropping it kills it and removes its data.
pub struct Server {
    pub port: u16,
    pub folder: PathBuf,
    child: Child,
    command: Vec<String>,
    binary: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    pub async fn start(binary: &Path, flags: &[&str]) -> Self {
        let (port, peer) = (free_port(), free_port());
        let server = Self::launch(
            binary,
            "one",
            port,
            peer,
            &format!("one=http://127.0.0.1:{peer}"),
            flags,
        );
        server.ready().await;
        server
    }

    /// A cluster of three.
    pub async fn three(binary: &Path) -> Vec<Self> {
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let cluster: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}"))
            .collect();
        let cluster = cluster.join(",");
        let servers: Vec<Self> = ports
            .iter()
            .enumerate()
            .map(|(i, (port, peer))| Self::launch(binary, &format!("m{i}"), *port, *peer, &cluster, &[]))
            .collect();
        for server in &servers {
            server.ready().await;
        }
        servers
    }

    fn launch(binary: &Path, name: &str, port: u16, peer: u16, cluster: &str, flags: &[&str]) -> Self {
        let folder = temporary_folder();
        let scheme = if flags.iter().any(|flag| flag.starts_with("--cert-file")) {
            "https"
        } else {
            "http"
        };
        let client = format!("{scheme}://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let mut command = vec![
            format!("--name={name}"),
            format!("--data-dir={}", folder.join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={cluster}"),
            // The tests ping more often than a server likes.
            "--grpc-keepalive-min-time=500ms".to_owned(),
            "--log-level=error".to_owned(),
            "--logger=zap".to_owned(),
            "--heartbeat-interval=100".to_owned(),
            "--election-timeout=1000".to_owned(),
        ];
        command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let child = spawn(binary, &command);
        Self {
            port,
            folder,
            child,
            command,
            binary: binary.to_owned(),
        }
    }

    async fn ready(&self) {
        if self.command.iter().any(|flag| flag.starts_with("--cert-file")) {
            let address = self.address();
            eventually("the port is open", || async {
                tokio::net::TcpStream::connect(&address).await.is_ok()
            })
            .await;
            return;
        }
        eventually("the server answers", || async {
            let Ok(mut client) = etcd_client::Client::connect([self.url()], None).await else {
                return false;
            };
            tokio::time::timeout(Duration::from_millis(500), client.get("ready", None))
                .await
                .is_ok_and(|answer| {
                    answer.is_ok() || answer.is_err_and(|e| e.to_string().contains("user name is empty"))
                })
        })
        .await;
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn options(&self) -> EtcdOptions {
        options(&[&self.address()])
    }

    pub fn backend(&self) -> EtcdBackend {
        registry(self.options(), 3)
    }

    /// A client of its own, for what others do to the registry.
    pub async fn raw(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.url()], None).await.unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with its data.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.binary, &self.command);
        self.ready().await;
    }

    /// Starts it again without its data.
    pub async fn restart_empty(&mut self) {
        std::fs::remove_dir_all(self.folder.join("data")).unwrap();
        self.restart().await;
    }

    /// Saves what it holds to a file.
    pub fn snapshot(&self) -> PathBuf {
        let file = self.folder.join("snapshot");
        let mut etcdctl = Command::new(tool("etcdctl"));
        etcdctl
            .args(["--endpoints", &self.url(), "snapshot", "save"])
            .arg(&file);
        let done = etcdctl.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        file
    }

    /// Stops it and starts it again with what a snapshot holds, as etcd's guide advises where clients watch: at a
    /// revision far above all that clients have seen.
    pub async fn restore(&mut self, snapshot: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.folder.join("data")).unwrap();
        let mut etcdutl = Command::new(tool("etcdutl"));
        etcdutl.args(["snapshot", "restore"]).arg(snapshot);
        etcdutl.args(["--bump-revision", "1000000", "--mark-compacted"]);
        let same = [
            "--name=",
            "--data-dir=",
            "--initial-cluster=",
            "--initial-advertise-peer-urls=",
        ];
        etcdutl.args(
            self.command
                .iter()
                .filter(|flag| same.iter().any(|one| flag.starts_with(one))),
        );
        let done = etcdutl.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        self.restart().await;
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

fn spawn(binary: &Path, flags: &[String]) -> Child {
    Command::new(binary)
        .args(flags)
        .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A registry as Kratos has it, with a time to live of so many seconds.
pub fn registry(options: EtcdOptions, ttl: u64) -> EtcdBackend {
    let records = EtcdRecords {
        ttl: Duration::from_secs(ttl),
        ..EtcdRecords::default()
    };
    EtcdBackend::new(options, &records, Log::default()).unwrap()
}

pub fn options(hosts: &[&str]) -> EtcdOptions {
    EtcdOptions {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(3),
        keep_alive: Duration::from_secs(1),
        keep_alive_timeout: Duration::from_secs(1),
        ..EtcdOptions::default()
    }
}

/// The instance of the capture.
pub fn captured() -> ServiceInstance {
    ServiceInstance {
        id: "5f8d-1".into(),
        name: "helloworld".into(),
        version: "v1.0.0".into(),
        metadata: [("q", "a&b<c>é"), ("weight", "10"), ("zone", "sh001")]
            .into_iter()
            .collect(),
        endpoints: ["http://127.0.0.1:8000".into(), "grpc://127.0.0.1:9000".into()].into(),
        ..ServiceInstance::default()
    }
}

pub fn instance(name: &str, id: &str) -> ServiceInstance {
    ServiceInstance {
        id: id.into(),
        name: name.into(),
        ..ServiceInstance::default()
    }
}

pub fn ids(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.instances.iter().map(|i| &*i.id).collect()
}

pub async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(seconds), future).await;
    done.unwrap_or_else(|_| panic!("not within {seconds} s: {what}"))
}

/// Polls until it is so; 20 s at most.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Tries again what may fail for a while, as core does.
pub async fn retrying<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(e) if e.is_retryable() && Instant::now() < end => {}
            Err(e) => panic!("{what}: {e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Follows anew when the stream ends, as core does, until a snapshot is as wanted.
pub async fn follow_until(backend: &EtcdBackend, name: &str, wanted: impl Fn(&Snapshot) -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let mut stream = follow(backend, name);
        while let Ok(Some(Ok(snapshot))) = tokio::time::timeout_at(end, stream.next()).await {
            if wanted(&snapshot) {
                return;
            }
        }
        assert!(Instant::now() < end, "{name} never came to be as wanted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub async fn next(stream: &mut BoxStream<'static, Result<Snapshot>>) -> Snapshot {
    within(10, "a snapshot", stream.next())
        .await
        .expect("a snapshot")
        .unwrap()
}

pub fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(e) => e.kind(),
    }
}

/// A TCP proxy that can lose what the server says.
pub struct Proxy {
    pub address: String,
    deaf: Arc<AtomicBool>,
    budget: Arc<AtomicU64>,
    speed: Arc<AtomicU64>,
    accepted: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn to(target: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let deaf = Arc::new(AtomicBool::new(false));
        let budget = Arc::new(AtomicU64::new(u64::MAX));
        let speed = Arc::new(AtomicU64::new(u64::MAX));
        let accepted = Arc::new(AtomicU64::new(0));
        let (lose, spent) = (Arc::clone(&deaf), Arc::clone(&budget));
        let (pace, counted) = (Arc::clone(&speed), Arc::clone(&accepted));
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (target, lose, budget) = (target.clone(), Arc::clone(&lose), Arc::clone(&spent));
                let pace = Arc::clone(&pace);
                tokio::spawn(async move {
                    let Ok(far) = tokio::net::TcpStream::connect(target).await else {
                        return;
                    };
                    let (mut near_read, mut near_write) = near.into_split();
                    let (mut far_read, mut far_write) = far.into_split();
                    let up = tokio::io::copy(&mut near_read, &mut far_write);
                    let down = async {
                        let mut buffer = vec![0; 65536];
                        // Once something was lost the connection stays silent: a gap would be a protocol error.
                        let mut gap = false;
                        while let Ok(n @ 1..) = far_read.read(&mut buffer).await {
                            let time = Duration::from_micros(n as u64 * 1_000_000 / pace.load(Ordering::Relaxed));
                            if !time.is_zero() {
                                tokio::time::sleep(time).await;
                            }
                            gap |= lose.load(Ordering::Relaxed);
                            if !gap && near_write.write_all(&buffer[..n]).await.is_err() {
                                return;
                            }
                            let left = budget.load(Ordering::Relaxed);
                            if left < n as u64 {
                                budget.store(u64::MAX, Ordering::Relaxed);
                                // What was written arrives, which a connection that is closed at once may take back.
                                let _ = near_write.shutdown().await;
                                tokio::time::sleep(Duration::from_millis(200)).await;
                                return;
                            }
                            budget.store(if left == u64::MAX { left } else { left - n as u64 }, Ordering::Relaxed);
                        }
                    };
                    tokio::select! { _ = up => {}, () = down => {} }
                });
            }
        });
        Self {
            address,
            deaf,
            budget,
            speed,
            accepted,
            task,
        }
    }

    /// From now on nothing that the server says arrives.
    pub fn lose_answers(&self, lose: bool) {
        self.deaf.store(lose, Ordering::Relaxed);
    }
}

impl Proxy {
    /// From now on what the server says comes at this many bytes a second.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.speed.store(bytes_per_second, Ordering::Relaxed);
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// After this many more bytes of the server the connection that brings them is cut, once.
    pub fn cut_after(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }
}

/// The snapshots of a name.
pub fn follow(backend: &EtcdBackend, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    match backend.follow(name) {
        Follow::Stream(stream) => stream,
        Follow::Poll(_) => panic!("etcd is not polled"),
    }
}

/// A presence, which etcd refuses to nobody.
pub fn presence_of(backend: &EtcdBackend, name: &str, id: &str) -> Box<dyn Presence> {
    backend.presence(name, id).unwrap()
}
