//! The client against a server of a script, for what no ZooKeeper can be made to do. What it does with a real one is shown
//! by `tests/zookeeper.rs` and by the tests of the package.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::*;

mod watches;

const WITHIN: Duration = Duration::from_secs(2);
const ID: i64 = 0x1234;

/// A listener, and what is asked of it.
struct Server(TcpListener);

/// A connection as the server has it.
struct Peer {
    io: TcpStream,
    came: BytesMut,
}

/// What a client greets with.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    id: i64,
    password: Bytes,
    zxid: i64,
}

impl Server {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn host(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    async fn accept(&self) -> (Peer, Greeting) {
        let (io, _) = self.0.accept().await.unwrap();
        let mut peer = Peer {
            io,
            came: BytesMut::new(),
        };
        let mut asked = peer.frame().await.unwrap();
        let _version = asked.int().unwrap();
        let zxid = asked.long().unwrap();
        let _timeout = asked.int().unwrap();
        let (id, password) = (asked.long().unwrap(), asked.bytes().unwrap());
        (peer, Greeting { id, password, zxid })
    }

    /// Takes a client with its session, whichever it is.
    async fn welcome(&self, granted: Duration) -> (Peer, Greeting) {
        let (mut peer, greeting) = self.accept().await;
        peer.grant(ID, granted).await;
        (peer, greeting)
    }
}

impl Peer {
    /// `None` at the end.
    async fn frame(&mut self) -> Option<Reader> {
        loop {
            match wire::frame(&mut self.came).unwrap() {
                Some(wire::Frame::Whole(frame)) => return Some(Reader::new(frame)),
                Some(long) => panic!("{long:?}"),
                None => {}
            }
            if self.io.read_buf(&mut self.came).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next request that is neither a ping nor the first of a session: its number and what it asks.
    async fn request(&mut self) -> Option<(i32, i32)> {
        loop {
            let mut frame = self.frame().await?;
            let (number, op) = (frame.int().unwrap(), frame.int().unwrap());
            match (number, op) {
                (wire::xid::PING, _) => self.reply(wire::xid::PING, 0, |_| ()).await,
                (_, wire::op::SYNC) => self.reply(number, 0, |out| out.text("/")).await,
                _ => return Some((number, op)),
            }
        }
    }

    /// Takes the first request of a session, which must be the one for the leader's state.
    async fn catch_up(&mut self) {
        let mut first = self.frame().await.unwrap();
        let (number, op) = (first.int().unwrap(), first.int().unwrap());
        assert_eq!((op, &*first.text().unwrap()), (wire::op::SYNC, "/"));
        self.reply(number, 0, |out| out.text("/")).await;
    }

    async fn grant(&mut self, id: i64, granted: Duration) {
        self.send(|out| {
            out.int(0);
            out.int(i32::try_from(granted.as_millis()).unwrap());
            out.long(id);
            out.bytes(b"password of ours");
            out.bool(false);
        })
        .await;
    }

    async fn reply(&mut self, number: i32, code: i32, fill: impl FnOnce(&mut BytesMut)) {
        self.send(|out| {
            out.int(number);
            out.long(77);
            out.int(code);
            fill(out);
        })
        .await;
    }

    async fn event(&mut self, kind: i32, path: &str) {
        self.send(|out| {
            out.int(wire::xid::EVENT);
            out.long(-1);
            out.int(0);
            out.int(kind);
            out.int(3);
            out.text(path);
        })
        .await;
    }

    async fn send(&mut self, fill: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        wire::put_frame(&mut out, fill);
        self.io.write_all(&out).await.unwrap();
    }

    /// Answers everything with an error for as long as the client is there.
    async fn refuse_all(mut self) {
        while let Some((number, _)) = self.request().await {
            self.reply(number, -101, |_| ()).await;
        }
    }
}

fn put_stat(out: &mut BytesMut) {
    out.long(5);
    out.long(6);
    (0..2).for_each(|_| out.long(0));
    (0..3).for_each(|_| out.int(0));
    out.long(ID);
    (0..2).for_each(|_| out.int(0));
    out.long(7);
}

fn members<const N: usize>(servers: [&Server; N]) -> Members {
    Members {
        hosts: servers.iter().map(|server| server.host()).collect(),
        tls: None,
        server_name: None,
        proof: None,
        timeout: Duration::from_secs(10),
    }
}

async fn connect(server: &Server, granted: Duration) -> (Client, Peer) {
    let (client, (peer, greeting)) =
        tokio::join!(Client::connect(members([server]), "", WITHIN), server.welcome(granted),);
    assert_eq!((greeting.id, greeting.zxid), (0, 0));
    (client.unwrap(), peer)
}

async fn until(client: &Client, what: impl FnMut(&State) -> bool) {
    let mut state = client.state();
    let reached = timeout(Duration::from_secs(10), state.wait_for(what)).await;
    reached.expect("the state is reached").unwrap();
}

#[tokio::test]
async fn a_session_is_granted_asked_and_ended() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    assert_eq!((client.id(), client.granted()), (ID, Duration::from_secs(9)));
    let script = async {
        let (number, op) = peer.request().await.unwrap();
        assert_eq!(op, wire::op::EXISTS);
        peer.reply(number, 0, put_stat).await;
        let (number, op) = peer.request().await.unwrap();
        assert_eq!(op, wire::op::CLOSE);
        peer.reply(number, 0, |_| ()).await;
    };
    let asks = async {
        let stat = client.stat("/a").await.unwrap().unwrap();
        assert_eq!(
            (stat.czxid, stat.mzxid, stat.pzxid, stat.ephemeral_owner),
            (5, 6, 7, ID)
        );
        client.close().await;
        assert_eq!(client.stat("/a").await, Err(ZkError::Closed));
    };
    tokio::join!(script, asks);
}

#[tokio::test]
async fn a_new_session_catches_up_with_the_leader_before_it_asks_and_one_that_goes_on_need_not() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let script = async {
        peer.catch_up().await;
        let (number, op) = peer.request().await.unwrap();
        assert_eq!(op, wire::op::EXISTS);
        peer.reply(number, 0, put_stat).await;
    };
    let (asked, ()) = tokio::join!(client.stat("/a"), script);
    asked.unwrap();
    drop(peer);
    let (mut peer, greeting) = server.welcome(Duration::from_secs(9)).await;
    assert_eq!(greeting.zxid, 77);
    until(&client, |state| matches!(state, State::Up)).await;
    let script = async {
        let mut first = peer.frame().await.unwrap();
        let (number, op) = (first.int().unwrap(), first.int().unwrap());
        assert_eq!(op, wire::op::EXISTS);
        peer.reply(number, 0, put_stat).await;
    };
    let (asked, ()) = tokio::join!(client.stat("/a"), script);
    asked.unwrap();
}

#[tokio::test]
async fn a_server_that_takes_no_goodbye_is_left() {
    let server = Server::start().await;
    let (client, _peer) = connect(&server, Duration::from_secs(30)).await;
    let start = Instant::now();
    client.close().await;
    assert!(start.elapsed() < GOODBYE * 3);
}

#[tokio::test]
async fn what_was_asked_fails_with_its_connection_and_the_session_goes_on_with_the_next() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let script = async {
        let (number, _) = peer.request().await.unwrap();
        peer.reply(number, 0, put_stat).await;
        let _unanswered = peer.request().await.unwrap();
        drop(peer);
        let (peer, greeting) = server.welcome(Duration::from_secs(9)).await;
        let resumed = Greeting {
            id: ID,
            password: Bytes::from_static(b"password of ours"),
            zxid: 77,
        };
        assert_eq!(greeting, resumed, "the same session, and what we know of");
        peer
    };
    let asks = async {
        assert!(client.stat("/a").await.unwrap().is_some());
        let lost = client.stat("/b").await.unwrap_err();
        assert!(matches!(lost, ZkError::ConnectionLoss(_)), "{lost:?}");
    };
    let (mut peer, ()) = tokio::join!(script, asks);
    until(&client, |state| *state == State::Up).await;
    let answers = async {
        let (number, _) = peer.request().await.unwrap();
        peer.reply(number, -101, |_| ()).await;
    };
    let (again, ()) = tokio::join!(client.stat("/c"), answers);
    assert_eq!(again, Ok(None));
}

#[tokio::test]
async fn without_a_connection_a_request_fails_at_once() {
    let server = Server::start().await;
    let (client, peer) = connect(&server, Duration::from_secs(9)).await;
    let host = server.host();
    drop((server, peer));
    until(&client, |state| matches!(state, State::Down(_))).await;
    let start = Instant::now();
    assert_eq!(client.stat("/a").await, Err(ZkError::NoConnection));
    assert!(start.elapsed() < Duration::from_millis(500), "{host}");
}

#[tokio::test]
async fn hostile_answers_break_the_connection_and_nothing_else() {
    type Answer = fn(i32) -> BytesMut;
    let hostile: [(&str, Answer); 6] = [
        ("to another request", |number| {
            let mut out = BytesMut::new();
            wire::put_frame(&mut out, |out| {
                out.int(number + 1);
                out.long(1);
                out.int(0);
            });
            out
        }),
        ("longer than any, to another request", |_| {
            let mut out = BytesMut::from(&i32::MAX.to_be_bytes()[..]);
            out.extend_from_slice(&[0xff; 16]);
            out
        }),
        ("of a negative length", |_| BytesMut::from(&(-5_i32).to_be_bytes()[..])),
        ("an empty one", |_| BytesMut::from(&0_i32.to_be_bytes()[..])),
        ("an event that is none", |_| {
            let mut out = BytesMut::new();
            wire::put_frame(&mut out, |out| {
                out.int(wire::xid::EVENT);
                out.long(-1);
                out.int(0);
                out.int(1);
                out.int(3);
                out.int(1 << 30); // a path of a gigabyte
            });
            out
        }),
        ("another protocol", |_| {
            BytesMut::from(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..])
        }),
    ];
    for (what, answer) in hostile {
        let server = Server::start().await;
        let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
        let script = async {
            let (number, _) = peer.request().await.unwrap();
            peer.io.write_all(&answer(number)).await.unwrap();
            let (peer, greeting) = server.welcome(Duration::from_secs(9)).await;
            assert_eq!(greeting.id, ID, "{what}");
            peer
        };
        let (_peer, lost) = tokio::join!(script, client.stat("/a"));
        assert!(matches!(lost, Err(ZkError::ConnectionLoss(_))), "{what}: {lost:?}");
        until(&client, |state| *state == State::Up).await;
    }
}

#[tokio::test]
async fn an_answer_that_can_not_be_read_fails_its_request_alone() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    let script = async {
        for _ in 0..2 {
            let (number, op) = peer.request().await.unwrap();
            peer.reply(number, 0, |out| {
                if op == wire::op::EXISTS {
                    put_stat(out);
                } else {
                    out.int(i32::MAX); // so many children
                }
            })
            .await;
        }
    };
    let asks = async {
        assert_eq!(client.children("/a").await, Err(ZkError::Malformed));
        assert!(client.stat("/a").await.unwrap().is_some());
    };
    tokio::join!(script, asks);
}

#[tokio::test]
async fn a_member_that_says_nothing_is_left_within_a_third_of_the_timeout() {
    let server = Server::start().await;
    let granted = Duration::from_millis(1200);
    let (client, _frozen) = connect(&server, granted).await;
    let start = Instant::now();
    let (_peer, greeting) = server.welcome(granted).await;
    let took = start.elapsed();
    assert_eq!(greeting.id, ID);
    assert!(took >= granted / 3 && took < granted / 2, "{took:?}");
    until(&client, |state| *state == State::Up).await;
}

#[tokio::test]
async fn an_idle_session_is_kept_by_pings() {
    let server = Server::start().await;
    let granted = Duration::from_millis(900);
    let (client, peer) = connect(&server, granted).await;
    let kept = tokio::spawn(peer.refuse_all());
    sleep(granted * 2).await;
    assert_eq!(*client.state().borrow(), State::Up);
    kept.abort();
}

#[tokio::test]
async fn a_session_that_the_server_has_ended_is_over() {
    let server = Server::start().await;
    let (client, peer) = connect(&server, Duration::from_secs(9)).await;
    drop(peer);
    let (mut peer, _) = server.accept().await;
    peer.grant(0, Duration::ZERO).await;
    until(&client, |state| *state == State::Over(ZkError::SessionExpired)).await;
    assert_eq!(client.stat("/a").await, Err(ZkError::SessionExpired));
}

#[tokio::test]
async fn a_session_that_nobody_takes_for_as_long_as_its_timeout_is_over() {
    const GRANTED: Duration = Duration::from_millis(600);
    let server = Server::start().await;
    let (client, peer) = connect(&server, GRANTED).await;
    drop(peer);
    // As a server does that is behind: it closes the connection, whether or not the client has had the time to greet.
    let refuses = async {
        loop {
            let (mut io, _) = server.0.accept().await.unwrap();
            let _ = io.read_u8().await;
        }
    };
    let lasted = async {
        let mut state = client.state();
        let State::Down(since) = *state.wait_for(|state| *state != State::Up).await.unwrap() else {
            panic!("it was down first");
        };
        until(&client, |state| *state == State::Over(ZkError::SessionExpired)).await;
        since.elapsed()
    };
    tokio::select! {
        () = refuses => {}
        lasted = lasted => assert!(lasted >= GRANTED, "{lasted:?}"),
    }
}

#[tokio::test]
async fn a_member_that_does_not_answer_keeps_nobody() {
    let (silent, good) = (Server::start().await, Server::start().await);
    for _ in 0..8 {
        let start = Instant::now();
        let (client, _peer) = tokio::join!(
            Client::connect(members([&silent, &good]), "", WITHIN),
            good.welcome(Duration::from_secs(9)),
        );
        client.unwrap();
        assert!(start.elapsed() < WITHIN / 2, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_session_that_nobody_gives_is_refused_in_time_with_the_reason() {
    let silent = Server::start().await;
    let start = Instant::now();
    let error = Client::connect(members([&silent]), "", Duration::from_millis(300))
        .await
        .err();
    assert!(matches!(error, Some(ZkError::NoSession(_))), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(1));

    let gone = Server::start().await;
    let host = gone.host();
    let of_gone = members([&gone]);
    drop(gone);
    let start = Instant::now();
    let error = Client::connect(of_gone, "", WITHIN).await.err();
    assert!(
        matches!(&error, Some(ZkError::NoSession(why)) if why.starts_with(&host)),
        "{error:?}"
    );
    assert!(
        start.elapsed() < WITHIN / 2,
        "nobody is waited for: {:?}",
        start.elapsed()
    );

    let web = Server::start().await;
    let (error, ()) = tokio::join!(Client::connect(members([&web]), "", WITHIN), async {
        let (mut peer, _) = web.accept().await;
        peer.io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert!(matches!(error.err(), Some(ZkError::NoSession(why)) if why.contains("no ZooKeeper")));
}

#[tokio::test]
async fn who_stops_waiting_takes_no_answer_from_the_others() {
    let server = Server::start().await;
    let (client, mut peer) = connect(&server, Duration::from_secs(9)).await;
    assert!(
        timeout(Duration::from_millis(50), client.stat("/dropped"))
            .await
            .is_err()
    );
    let script = async {
        for code in [-102, 0] {
            let (number, _) = peer.request().await.unwrap();
            peer.reply(number, code, |out| {
                if code == 0 {
                    put_stat(out);
                }
            })
            .await;
        }
    };
    let ((), stat) = tokio::join!(script, client.stat("/a"));
    assert!(stat.unwrap().is_some());
}

#[tokio::test]
async fn what_no_server_takes_is_refused_and_costs_no_connection() {
    let server = Server::start().await;
    let (client, peer) = connect(&server, Duration::from_secs(9)).await;
    let answers = tokio::spawn(peer.refuse_all());
    let large = vec![0; LONGEST_REQUEST];
    let refused = client.set_data("/a", &large, 0).await;
    assert!(matches!(refused, Err(ZkError::TooLarge(_))), "{refused:?}");
    assert_eq!(client.stat("/a").await, Ok(None));
    answers.abort();
}
