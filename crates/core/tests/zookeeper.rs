//! What only Rust can ask of the ZooKeeper backend: both ways to follow a name. A server that lacks recursive watches
//! (before 3.6) can't be had, so the one that has them is used without.
//!
//! The server is Debian's, in `/usr/share/java`. With `CI=true` a missing one is a failure, else the tests pass without
//! having run. What the public API can show is shown by `__test__`.
#![cfg(feature = "zookeeper")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on should say where

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::BoxStream;
use rollcall_core::backend::{Backend as _, Follow, Intent, Loss, ServiceName, Snapshot};
use rollcall_core::backends::zookeeper::{ZookeeperBackend, ZookeeperOptions};
use rollcall_core::error::Result;
use rollcall_core::log::Log;
use rollcall_core::store::{Commit, Compare, Range, Write};
use rollcall_core::{ErrorKind, ServiceInstance};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::time::timeout;

struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    async fn start() -> Option<Self> {
        let jars = [
            "zookeeper",
            "zookeeper-jute",
            "slf4j-api",
            "slf4j-simple",
            "netty-all",
            "netty-handler",
        ]
        .iter()
        .chain(&[
            "netty-common",
            "netty-buffer",
            "netty-transport",
            "netty-codec",
            "netty-resolver",
        ])
        .chain(&[
            "netty-transport-native-unix-common",
            "netty-transport-native-epoll",
            "snappy-java",
        ])
        .chain(&[
            "metrics-core",
            "commons-io",
            "commons-cli",
            "jackson-core",
            "jackson-databind",
        ])
        .map(|jar| format!("/usr/share/java/{jar}.jar"))
        .filter(|path| Path::new(path).exists())
        .collect::<Vec<_>>();
        if !jars.iter().any(|jar| jar.ends_with("/zookeeper.jar")) {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "no ZooKeeper to test with: make servers"
            );
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("rollcall-zookeeper-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
            folder.display()
        );
        std::fs::write(folder.join("zoo.cfg"), config).unwrap();
        let child = Command::new("java")
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", &jars.join(":")])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(folder.join("zoo.cfg"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, folder };
        for _ in 0..600 {
            // It listens before it serves.
            let probe = server.client(true);
            if probe.contact().await.is_ok() {
                probe.close().await;
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no ZooKeeper on port {port} within 30 s");
    }

    fn client(&self, recursive_watches: bool) -> ZookeeperBackend {
        Self::client_at(self.port, recursive_watches)
    }

    fn client_at(port: u16, recursive_watches: bool) -> ZookeeperBackend {
        let options = ZookeeperOptions {
            hosts: vec![format!("127.0.0.1:{port}")],
            prefix: "/a/b".to_owned(),
            ttl: Duration::from_secs(3),
            recursive_watches,
            ..ZookeeperOptions::default()
        };
        ZookeeperBackend::new(options, Log::default()).unwrap()
    }
}

fn instance(id: &str, version: &str) -> ServiceInstance {
    ServiceInstance {
        id: id.into(),
        name: "orders".into(),
        version: version.into(),
        ..ServiceInstance::default()
    }
}

async fn next(stream: &mut BoxStream<'static, Result<Snapshot>>) -> Vec<(String, String)> {
    let snapshot = timeout(Duration::from_secs(30), stream.next())
        .await
        .expect("a snapshot")
        .unwrap()
        .unwrap();
    let mut list: Vec<_> = snapshot
        .instances
        .iter()
        .map(|i| (i.id.to_string(), i.version.to_string()))
        .collect();
    list.sort();
    list
}

/// Snapshots until one is this.
async fn until(stream: &mut BoxStream<'static, Result<Snapshot>>, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(id, version)| ((*id).to_owned(), (*version).to_owned()))
        .collect();
    let mut last = Vec::new();
    for _ in 0..50 {
        last = next(stream).await;
        if last == wanted {
            return;
        }
    }
    panic!("expected {wanted:?}, the last snapshot was {last:?}");
}

fn stream(backend: &ZookeeperBackend) -> BoxStream<'static, Result<Snapshot>> {
    stream_of(backend, "orders")
}

fn stream_of(backend: &ZookeeperBackend, name: &str) -> BoxStream<'static, Result<Snapshot>> {
    match backend.follow(name) {
        Follow::Stream(stream) => stream,
        Follow::Poll(_) => panic!("a stream was expected"),
    }
}

async fn followed(recursive_watches: bool) {
    let Some(server) = Server::start().await else { return };
    let (owner, reader) = (server.client(true), server.client(recursive_watches));
    let mut list = stream(&reader);
    assert_eq!(
        next(&mut list).await,
        [],
        "the name does not exist, nor does its parent"
    );

    let (mut a, mut b) = (
        owner.presence("orders", "a").unwrap(),
        owner.presence("orders", "b").unwrap(),
    );
    a.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    until(&mut list, &[("a", "1")]).await;
    b.publish(&instance("b", "1"), Intent::Claim).await.unwrap();
    until(&mut list, &[("a", "1"), ("b", "1")]).await;
    for version in 2..=20 {
        a.publish(&instance("a", &version.to_string()), Intent::Keep)
            .await
            .unwrap();
    }
    until(&mut list, &[("a", "20"), ("b", "1")]).await;
    a.withdraw().await.unwrap();
    until(&mut list, &[("b", "1")]).await;
    a.publish(&instance("a", "21"), Intent::Keep).await.unwrap();
    until(&mut list, &[("a", "21"), ("b", "1")]).await;

    // Two that come and go while they are read.
    for round in 0..100 {
        a.withdraw().await.unwrap();
        a.publish(&instance("a", &round.to_string()), Intent::Keep)
            .await
            .unwrap();
    }
    until(&mut list, &[("a", "99"), ("b", "1")]).await;
    drop((a, b));
    owner.close().await;
    until(&mut list, &[]).await;

    let end = async {
        loop {
            match list.next().await {
                Some(Ok(_)) => {}
                other => return other,
            }
        }
    };
    drop(server);
    let end = timeout(Duration::from_secs(10), end).await.expect("the end");
    assert!(end.is_none_or(|end| end.is_err_and(|error| error.kind() == ErrorKind::Unavailable)));
}

type Names = BoxStream<'static, Result<Vec<Arc<ServiceName>>>>;

/// Lists of names until one is this.
async fn names_until(stream: &mut Names, wanted: &str) {
    let mut shown = String::new();
    for _ in 0..50 {
        let read = timeout(Duration::from_secs(30), stream.next()).await;
        let read = read.unwrap_or_else(|_| panic!("expected {wanted:?}, the last was {shown:?}"));
        shown = read
            .unwrap()
            .unwrap()
            .iter()
            .map(|entry| &*entry.name)
            .collect::<Vec<_>>()
            .join(" ");
        if shown == wanted {
            return;
        }
    }
    panic!("expected {wanted:?}, the last was {shown:?}");
}

async fn names_followed(recursive_watches: bool) {
    let Some(server) = Server::start().await else { return };
    let (owner, reader) = (server.client(true), server.client(recursive_watches));
    let Follow::Stream(mut list) = reader.follow_services() else {
        panic!("a stream was expected")
    };
    names_until(&mut list, "").await; // nor is there the parent of the names
    let named = |name: &str, id: &str| ServiceInstance {
        name: name.into(),
        ..instance(id, "1")
    };
    let mut all = Vec::new();
    for (name, id) in [("orders", "a"), ("orders", "b"), ("orders", "c"), ("payments", "p")] {
        let mut presence = owner.presence(name, id).unwrap();
        presence.publish(&named(name, id), Intent::Claim).await.unwrap();
        all.push(presence);
    }
    names_until(&mut list, "orders payments").await;
    // Whichever of them it knows: the name stays as long as one does.
    all[0].withdraw().await.unwrap();
    all[2].withdraw().await.unwrap();
    all[3].withdraw().await.unwrap();
    names_until(&mut list, "orders").await;
    all[1].withdraw().await.unwrap();
    names_until(&mut list, "").await; // the nodes of the names are left
    all[3].publish(&named("payments", "p"), Intent::Keep).await.unwrap();
    names_until(&mut list, "payments").await;
    drop(all);
    owner.close().await;
    names_until(&mut list, "").await;
    drop(server);
    let end = timeout(Duration::from_secs(10), async {
        loop {
            match list.next().await {
                Some(Ok(_)) => {}
                other => return other,
            }
        }
    });
    let end = end.await.expect("the end");
    assert!(end.is_none_or(|end| end.is_err_and(|error| error.kind() == ErrorKind::Unavailable)));
}

#[tokio::test]
async fn the_names_are_followed_by_one_recursive_watch() {
    names_followed(true).await;
}

#[tokio::test]
async fn the_names_are_followed_without_recursive_watches() {
    names_followed(false).await;
}

#[tokio::test]
async fn a_name_is_followed_by_one_recursive_watch() {
    followed(true).await;
}

#[tokio::test]
async fn a_name_is_followed_by_watches_that_fire_once() {
    followed(false).await;
}

#[tokio::test]
async fn an_owner_that_was_replaced_in_its_own_client_leaves_the_newer_node_alone() {
    let Some(server) = Server::start().await else { return };
    let client = server.client(true);
    let (mut older, mut newer) = (
        client.presence("orders", "a").unwrap(),
        client.presence("orders", "a").unwrap(),
    );
    older.publish(&instance("a", "older"), Intent::Claim).await.unwrap();
    newer.publish(&instance("a", "newer"), Intent::Claim).await.unwrap();
    assert_eq!(
        timeout(Duration::from_secs(5), older.lost()).await.unwrap(),
        Loss::Replaced
    );
    let kept = older.publish(&instance("a", "older"), Intent::Keep).await;
    assert_eq!(kept.unwrap_err().kind(), ErrorKind::Replaced);
    older.withdraw().await.unwrap();
    let read = client.fetch("orders").await.unwrap();
    assert_eq!(&*read.instances[0].version, "newer");
    newer.withdraw().await.unwrap();
    assert!(client.fetch("orders").await.unwrap().instances.is_empty());
    drop((older, newer));
    client.close().await;
}

/// A way to the server, and what cuts all connections that go by it.
async fn way(to: u16) -> (u16, broadcast::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, _) = broadcast::channel(1);
    let cuts = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut cut = cuts.subscribe();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    _ = cut.recv() => {}
                }
            });
        }
    });
    (port, cut)
}

#[tokio::test]
async fn a_cut_with_thousands_of_watches_that_fire_once_costs_no_session() {
    const NAMES: usize = 3000;
    let Some(server) = Server::start().await else { return };
    let (port, cut) = way(server.port).await;
    let client = Server::client_at(port, false);
    let mut presence = client.presence("orders", "a").unwrap();
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    let names: Vec<String> = (0..NAMES).map(|at| format!("name-{at}")).collect();
    for _ in 0..3 {
        let mut streams: Vec<_> = names.iter().map(|name| stream_of(&client, name)).collect();
        assert!(join_all(streams.iter_mut().map(next)).await.iter().all(Vec::is_empty));
        cut.send(()).unwrap();
        let broken = join_all(
            streams
                .iter_mut()
                .map(|stream| timeout(Duration::from_secs(10), stream.next())),
        )
        .await;
        assert!(broken.iter().all(|end| matches!(end, Ok(Some(Err(_))))));
    }
    assert_eq!(client.fetch("orders").await.unwrap().instances.len(), 1);
    let lost = timeout(Duration::from_secs(4), presence.lost()).await; // more than the timeout of the session
    assert!(lost.is_err(), "{lost:?}");
    presence.withdraw().await.unwrap();
    client.close().await;
}

async fn kept(recursive_watches: bool) {
    let Some(server) = Server::start().await else { return };
    let (owner, reader) = (server.client(true), server.client(recursive_watches));
    let (writes, reads) = (owner.store().unwrap(), reader.store().unwrap());
    let within = Duration::from_secs(10);
    let ranges: Arc<[Range]> = Arc::new([Range::Under("/c/".into()), Range::Key("/d".into())]);
    let mut stream = reads.follow(&ranges);
    assert!(stream.next().await.unwrap().unwrap().pairs.is_empty());
    let mut last = 0;
    for n in 0..50_u8 {
        let put = |key: &str| Write::Put(key.into(), [b'a' + n % 26].into());
        let mut all = vec![put("/c/x/y"), put("/d"), put("/e"), put(&format!("/c/n/{n}"))];
        all.extend((n > 0).then(|| Write::Delete(format!("/c/n/{}", n - 1).into())));
        let Commit::Done { moment, deleted } = writes.commit(&[], &all, within).await.unwrap() else {
            panic!("nothing was compared");
        };
        assert!(moment.revision > last && deleted == usize::from(n > 0));
        last = moment.revision;
        loop {
            let read = stream.next().await.unwrap().unwrap();
            assert_eq!(read.pairs.len(), 3, "{:?}", read.pairs);
            assert!(read.pairs.iter().all(|pair| pair.revision == read.pairs[0].revision));
            if read.pairs[0].revision == last {
                assert!(read.moment.revision >= last);
                break;
            }
        }
        let mut read = reads.read(&ranges).await.unwrap().pairs;
        read.sort_by(|a, b| a.key.cmp(&b.key));
        let keys: Vec<&str> = read.iter().map(|pair| &*pair.key).collect();
        assert_eq!(keys, [&format!("/c/n/{n}"), "/c/x/y", "/d"]);
    }
    let compare = |revision| Compare {
        key: "/d".into(),
        revision,
    };
    let delete = [Write::Delete("/d".into())];
    let late = reads.commit(&[compare(last - 1)], &delete, within).await.unwrap();
    assert!(matches!(late, Commit::Conflict { current } if current[0].as_ref().unwrap().revision == last));
    let done = reads.commit(&[compare(last)], &delete, within).await.unwrap();
    assert!(matches!(done, Commit::Done { deleted: 1, .. }));
    owner.close().await;
    reader.close().await;
}

#[tokio::test]
async fn pairs_are_followed_whole() {
    kept(true).await;
}

#[tokio::test]
async fn pairs_are_followed_whole_without_recursive_watches() {
    kept(false).await;
}
