//! The token: got once, replaced when it is refused, and told of. With a member that speaks gRPC and nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};

use crate::error::ErrorKind;
use crate::etcd::calls::caller::Caller;
use crate::etcd::calls::exec::Call;
use crate::etcd::calls::methods::{AUTHENTICATE, RANGE};
use crate::etcd::error::Fault;
use crate::etcd::messages::AuthenticateResponse;
use crate::etcd::options::EtcdOptions;
use crate::log::Log;

type Refusal = Option<(Code, &'static str)>;

/// A member that answers everything with an empty message, unless it is told to refuse.
#[derive(Default)]
struct Script {
    /// How the next exchanges of the password are refused.
    authentications: VecDeque<Refusal>,
    /// How the next calls are.
    calls: VecDeque<Refusal>,
    /// The tokens of all calls so far.
    tokens: Vec<Option<String>>,
    /// How often the password was exchanged.
    exchanges: usize,
}

impl Script {
    fn answer(&mut self, request: &Request<h2::RecvStream>) -> Result<Bytes, (Code, &'static str)> {
        if request.uri().path() == AUTHENTICATE {
            self.exchanges += 1;
            let refusal = self.authentications.pop_front().flatten();
            let token = format!("token {}", self.exchanges);
            return refusal.map_or_else(|| Ok(AuthenticateResponse { token }.encode_to_vec().into()), Err);
        }
        let token = request.headers().get("token");
        self.tokens.push(token.map(|token| token.to_str().unwrap().to_owned()));
        self.calls.pop_front().flatten().map_or_else(|| Ok(Bytes::new()), Err)
    }
}

async fn serve(listener: TcpListener, script: Arc<Mutex<Script>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let script = Arc::clone(&script);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let answer = script.lock().unwrap().answer(&request);
                let head = Response::builder().header("content-type", "application/grpc");
                match answer {
                    Ok(message) => {
                        let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        let mut frame = BytesMut::new();
                        frame.put_u8(0);
                        frame.put_u32(u32::try_from(message.len()).unwrap());
                        frame.put(message);
                        body.send_data(frame.freeze(), false).unwrap();
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", HeaderValue::from_static("0"));
                        body.send_trailers(trailers).unwrap();
                    }
                    Err((code, words)) => {
                        let head = head.header("grpc-status", code as i32).header("grpc-message", words);
                        respond.send_response(head.body(()).unwrap(), true).unwrap();
                    }
                }
            }
        });
    }
}

/// A client with a user of one such member.
async fn start() -> (Caller, Arc<Mutex<Script>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = EtcdOptions {
        hosts: vec![listener.local_addr().unwrap().to_string()],
        username: Some("app".to_owned()),
        password: Some("secret".to_owned()),
        ..EtcdOptions::default()
    };
    let script = Arc::<Mutex<Script>>::default();
    tokio::spawn(serve(listener, Arc::clone(&script)));
    (Caller::new(options, Log::default()).unwrap(), script)
}

async fn read(calls: &Caller) -> Result<Bytes, Fault> {
    let call = Call {
        method: RANGE,
        body: Bytes::new(),
        reads: true,
        point: false,
        needs_leader: true,
        deadline: Some(Instant::now() + Duration::from_secs(20)),
        only: None,
    };
    timeout(Duration::from_secs(30), calls.exec(call)).await.unwrap()
}

const STALE: Refusal = Some((Code::Unauthenticated, "etcdserver: invalid auth token"));

#[tokio::test]
async fn the_password_is_exchanged_once_for_all_callers() {
    let (calls, script) = start().await;
    let all = futures::future::join_all((0..20).map(|_| read(&calls))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let script = script.lock().unwrap();
    assert_eq!((script.exchanges, script.tokens.len()), (1, 20));
    assert!(script.tokens.iter().all(|token| token.as_deref() == Some("token 1")));
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_and_the_call_made_again() {
    let (calls, script) = start().await;
    script.lock().unwrap().calls = [None, STALE, STALE].into();
    read(&calls).await.unwrap();
    read(&calls).await.unwrap();
    let script = script.lock().unwrap();
    let tokens: Vec<_> = script.tokens.iter().flatten().map(String::as_str).collect();
    assert_eq!(tokens, ["token 1", "token 1", "token 2", "token 3"]);
}

#[tokio::test]
async fn a_member_that_refuses_its_own_token_passes_for_away() {
    let (calls, script) = start().await;
    script.lock().unwrap().calls = [STALE; 9].into();
    let fault = read(&calls).await.unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Unavailable, "{fault:?}");
    assert!(fault.error.message().contains("it has just given"), "{fault:?}");
    assert_eq!(script.lock().unwrap().exchanges, 3);
}

#[tokio::test]
async fn a_wrong_password_ends_the_call() {
    let (calls, script) = start().await;
    let wrong = (
        Code::InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password",
    );
    script.lock().unwrap().authentications = [Some(wrong)].into();
    let fault = read(&calls).await.unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Unauthenticated, "{fault:?}");
    assert!(!format!("{fault:?}").contains("secret"), "{fault:?}");
    assert_eq!(script.lock().unwrap().tokens.len(), 0);
}

#[tokio::test]
async fn a_cluster_without_authentication_is_asked_without_a_token() {
    let (calls, script) = start().await;
    let off = (Code::FailedPrecondition, "etcdserver: authentication is not enabled");
    script.lock().unwrap().authentications = [Some(off)].into();
    read(&calls).await.unwrap();
    read(&calls).await.unwrap();
    let script = script.lock().unwrap();
    assert_eq!((script.exchanges, &script.tokens), (1, &vec![None, None]));
}
