//! One logical connection: it is set up once, and all that a server knows of a client ends with it. What has ended is never
//! used again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::super::options::AccessKey;
use super::error::{FORBIDDEN, UNREGISTERED, code_of, refusal, unanswered};
use super::signing;
use super::subscriptions::Subscriptions;
use super::tokens::Tokens;
use super::wire::{self, Payload};
use crate::error::{Error, ErrorKind, Result};
use crate::grpc::{End, dial};
use crate::parts::unix_millis;
use crate::sync::lock;
use crate::tls::Tls;

/// The largest message that is read.
const LARGEST: usize = 64 * 1024 * 1024;
/// For how long a server may not know yet that a connection was set up.
const SETTLING: Duration = Duration::from_secs(5);
/// How long a server that announces an answer to the set-up is waited for.
const ACK: Duration = Duration::from_secs(5);
/// Answers to the server that wait to be sent. One that pushes more without taking them is no server.
const ANSWERS: usize = 1024;
/// How often a silent server is asked whether it is there before it is believed to be gone.
const TRIES: u32 = 3;

/// Whose services they are.
pub(in super::super) struct Scope {
    pub(in super::super) namespace: String,
    pub(in super::super) group: String,
    /// The cluster of what is registered.
    pub(in super::super) cluster: String,
}

/// What a connection is made of.
pub(super) struct Plan {
    /// `host:port` of gRPC.
    pub(super) address: String,
    pub(super) tls: Option<Tls>,
    pub(super) server_name: Option<String>,
    pub(super) scope: Arc<Scope>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) access_key: Option<AccessKey>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    /// How often the server is asked whether it is there.
    pub(super) beat: Duration,
    /// Takes what the server wants us to connect to instead.
    pub(super) moved: mpsc::UnboundedSender<(String, Value)>,
}

/// A connection.
pub(in super::super) struct Connection {
    plan: Plan,
    channel: Channel,
    outbox: mpsc::Sender<Payload>,
    opened: Instant,
    heard: Mutex<Instant>,
    end: End,
    pub(in super::super) subscriptions: Subscriptions,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl Connection {
    /// Connects and sets up, within the time of the plan.
    pub(super) async fn open(plan: Plan) -> Result<Arc<Self>> {
        let limit = plan.connect_timeout;
        let address = plan.address.clone();
        timeout(limit, Self::set_up(plan)).await.unwrap_or_else(|_| {
            let text = format!("Nacos at {address} did not answer within {} ms", limit.as_millis());
            Err(Error::new(ErrorKind::Timeout, text).at(&address))
        })
    }

    async fn set_up(plan: Plan) -> Result<Arc<Self>> {
        let tls = plan.tls.as_ref();
        let channel = dial(&plan.address, tls, plan.server_name.as_deref(), plan.connect_timeout).await?;
        let (outbox, to_send) = mpsc::channel(ANSWERS);
        let connection = Arc::new(Self {
            channel,
            outbox,
            opened: Instant::now(),
            heard: Mutex::new(Instant::now()),
            end: End::default(),
            subscriptions: Subscriptions::default(),
            tasks: Mutex::default(),
            plan,
        });
        let checked = connection.call("ServerCheckRequest", &json!({}), Vec::new()).await?;
        if checked.get("connectionId").is_none() {
            return Err(connection.named(Error::new(ErrorKind::Unavailable, "what answers there is no Nacos")));
        }
        let will_ack = checked.get("supportAbilityNegotiation").and_then(Value::as_bool) == Some(true);
        let (acked, mut ack) = watch::channel(false);
        let streaming = tokio::spawn(Arc::clone(&connection).stream(to_send, acked));
        lock(&connection.tasks).push(AbortOnDropHandle::new(streaming));
        let scope = &connection.plan.scope;
        let set_up = json!({
            "clientVersion": concat!("rollcall:v", env!("CARGO_PKG_VERSION")),
            "tenant": scope.namespace,
            // Without the module an original server keeps the records when the connection ends.
            "labels": { "source": "sdk", "module": "naming" },
            "abilityTable": {},
        });
        connection.answer("ConnectionSetupRequest", &set_up);
        if will_ack {
            let waited = timeout(ACK, ack.wait_for(|acked| *acked)).await;
            if !matches!(waited, Ok(Ok(_))) {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    "Nacos did not confirm the set-up of the connection",
                );
                return Err(connection.named(error));
            }
        }
        let beating = tokio::spawn(beat(Arc::downgrade(&connection), connection.plan.beat));
        lock(&connection.tasks).push(AbortOnDropHandle::new(beating));
        Ok(connection)
    }

    /// The `host:port` that it goes to.
    pub(in super::super) fn address(&self) -> &str {
        &self.plan.address
    }

    pub(in super::super) fn scope(&self) -> &Scope {
        &self.plan.scope
    }

    /// When the server was last heard.
    pub(in super::super) fn heard(&self) -> Instant {
        *lock(&self.heard)
    }

    pub(in super::super) fn is_over(&self) -> bool {
        self.end.has_come()
    }

    /// Resolves when it has ended, with why.
    pub(in super::super) async fn over(&self) -> Error {
        self.end.wait().await
    }

    /// Ends it, and with it everything that the server has of it.
    pub(in super::super) fn end(&self, why: Error) {
        self.end.come(self.named(why));
        self.subscriptions.end();
        // Dropping the stream and the channel closes the socket.
        lock(&self.tasks).clear();
    }

    /// One request of naming. Answered with success, or an error.
    pub(in super::super) async fn request(&self, kind: &'static str, body: &Value) -> Result<Value> {
        let mut renewed = false;
        loop {
            let token = self.plan.tokens.get().await?;
            let answer = self.call(kind, body, self.whose(body, token.as_deref())).await?;
            match code_of(&answer) {
                200 => return Ok(answer),
                // r-nacos has no other word for a batch of nothing.
                0 if kind == "BatchInstanceRequest" => return Ok(answer),
                UNREGISTERED if self.opened.elapsed() < SETTLING => sleep(Duration::from_millis(50)).await,
                UNREGISTERED => {
                    self.end(refusal(&answer));
                    return Err(self.named(refusal(&answer)));
                }
                // It may have expired, or the server has another key now.
                FORBIDDEN if !renewed && self.plan.tokens.refused(token.as_deref()) => renewed = true,
                _ => return Err(self.named(refusal(&answer))),
            }
        }
    }

    /// The headers that say who asks.
    fn whose(&self, body: &Value, token: Option<&str>) -> Vec<(&'static str, String)> {
        if let Some(key) = &self.plan.access_key {
            let service = body.get("serviceName").and_then(Value::as_str).unwrap_or_default();
            return signing::headers(key, &self.plan.scope.group, service, unix_millis());
        }
        let token = token.map(|token| ("accessToken", token.to_owned()));
        token.into_iter().collect()
    }

    /// One request, and what is answered, good or bad.
    async fn call(&self, kind: &'static str, body: &Value, whose: Vec<(&'static str, String)>) -> Result<Value> {
        if let Some(error) = self.end.why() {
            return Err(error);
        }
        let limit = self.plan.timeout;
        let sent = async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
            grpc.ready()
                .await
                .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let request = tonic::Request::new(Payload::new(kind, body, whose));
            let codec = ProstCodec::<Payload, Payload>::default();
            grpc.unary(request, wire::request(), codec).await
        };
        let answered = tokio::select! {
            answered = timeout(limit, sent) => answered,
            error = self.over() => return Err(error),
        };
        let answer = match answered {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(self.named(unanswered(status))),
            Err(_) => {
                let text = format!("Nacos did not answer within {} ms", limit.as_millis());
                return Err(self.named(Error::new(ErrorKind::Timeout, text)));
            }
        };
        *lock(&self.heard) = Instant::now();
        answer
            .read()
            .ok_or_else(|| self.named(Error::new(ErrorKind::Unavailable, "the answer is none of Nacos")))
    }

    /// Sends on the stream; where too much waits there, the connection ends.
    fn answer(&self, kind: &'static str, body: &Value) {
        if self.outbox.try_send(Payload::new(kind, body, Vec::new())).is_err() {
            self.end(Error::new(ErrorKind::Unavailable, "Nacos takes no answers any more"));
        }
    }

    fn named(&self, error: Error) -> Error {
        error.at(&self.plan.address)
    }

    /// Reads what the server sends by itself, until the stream ends, and the connection with it.
    async fn stream(self: Arc<Self>, mut to_send: mpsc::Receiver<Payload>, acked: watch::Sender<bool>) {
        let sending = futures::stream::poll_fn(move |cx| to_send.poll_recv(cx));
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        let this = Arc::downgrade(&self);
        drop(self); // the connection ends when nobody wants it
        let opened = async {
            grpc.ready()
                .await
                .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Payload, Payload>::default();
            grpc.streaming(tonic::Request::new(sending), wire::stream(), codec)
                .await
        };
        let ended = match opened.await {
            Err(status) => unanswered(status),
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(payload)) => {
                            let Some(connection) = this.upgrade() else { return };
                            *lock(&connection.heard) = Instant::now();
                            connection.take(&payload, &acked);
                        }
                        Ok(None) => break Error::new(ErrorKind::Unavailable, "Nacos has closed the connection"),
                        Err(status) => break unanswered(status),
                    }
                }
            }
        };
        if let Some(connection) = this.upgrade() {
            connection.end(ended);
        }
    }

    /// What the server says by itself. What is not known is not answered.
    fn take(&self, payload: &Payload, acked: &watch::Sender<bool>) {
        let Some(body) = payload.read() else { return };
        let answer = |kind: &'static str| {
            let id = body.get("requestId").cloned().unwrap_or_default();
            self.answer(kind, &json!({ "resultCode": 200, "errorCode": 0, "requestId": id }));
        };
        match payload.kind() {
            "NotifySubscriberRequest" => {
                answer("NotifySubscriberResponse");
                if let Some(info) = body.get("serviceInfo") {
                    self.subscriptions.pushed(&self.plan.scope.group, info);
                }
            }
            "ClientDetectionRequest" => answer("ClientDetectionResponse"),
            "SetupAckRequest" => {
                answer("SetupAckResponse");
                acked.send_replace(true);
            }
            "ConnectResetRequest" => {
                answer("ConnectResetResponse");
                let _ = self.plan.moved.send((self.plan.address.clone(), body)); // its reader lives as long as the client
            }
            _ => {}
        }
    }
}

/// Asks whether the server is there; ends the connection when it is not.
async fn beat(connection: std::sync::Weak<Connection>, every: Duration) {
    let limit = every.min(Duration::from_secs(3));
    let mut silent = 0;
    loop {
        sleep(if silent == 0 { every } else { Duration::ZERO }).await;
        let Some(connection) = connection.upgrade() else { return };
        match timeout(limit, connection.call("HealthCheckRequest", &json!({}), Vec::new())).await {
            Ok(Ok(answer)) if code_of(&answer) == 200 => silent = 0,
            Ok(Ok(answer)) if code_of(&answer) == UNREGISTERED && connection.opened.elapsed() > SETTLING => {
                connection.end(refusal(&answer));
                return;
            }
            _ if connection.is_over() => return,
            failed => {
                silent += 1;
                if silent < TRIES {
                    if failed.is_ok() {
                        sleep(limit / 4).await;
                    }
                    continue;
                }
                let text = format!(
                    "Nacos did not answer {TRIES} times within {} ms each",
                    limit.as_millis()
                );
                connection.end(Error::new(ErrorKind::Unavailable, text));
                return;
            }
        }
    }
}
