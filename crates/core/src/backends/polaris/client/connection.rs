//! One connection: calls of one message, and one stream of questions, which are answered in turn. A server that is silent to a
//! question is gone, for a frozen one says nothing else. What has ended is never used again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1_smol::Sha1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::error::{OK, UNCHANGED, is_not_there, is_unknown, refusal, unanswered};
use super::wire::{self, DiscoverRequest, DiscoverResponse, Instance, Method, Response, Service};
use crate::error::{Error, ErrorKind, Result};
use crate::grpc::{End, dial};
use crate::sync::lock;
use crate::tls::Tls;

/// The largest answer that is read.
const LARGEST: usize = 64 * 1024 * 1024;
/// How long the server may be silent while a question waits. The usual answer takes less than a millisecond.
const SILENCE: Duration = Duration::from_secs(3);

/// What a connection is made of.
pub(super) struct Plan {
    pub(super) address: String,
    pub(super) tls: Option<Tls>,
    pub(super) server_name: Option<String>,
    pub(super) token: Option<MetadataValue<Ascii>>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
}

/// The instances of a service at one moment.
pub(in super::super) struct List {
    /// Changes with every write of one of them.
    pub(in super::super) revision: String,
    pub(in super::super) instances: Vec<Instance>,
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Answered {
    Done,
    /// A heartbeat of what the server does not know, or not yet.
    Unknown,
}

/// A list as it was answered, or none where its revision is that of none: the server keeps its answers by revision, and one
/// that was made while the first instance came has that instance and the revision from before it. It gives that answer again
/// when the last one has gone, for as long as it keeps it. The revision is the SHA-1 of those of the service and of its
/// instances (`ComputeRevision` in `cache/service/service.go` of Polaris 1.18.1).
fn told(answer: DiscoverResponse) -> List {
    let of = |service: Option<Service>| service.and_then(|service| service.revision).unwrap_or_default();
    let revision = of(answer.service);
    let of_none = Sha1::from(of(answer.alias_for)).digest().to_string();
    let instances = if revision == of_none {
        Vec::new()
    } else {
        answer.instances
    };
    List { revision, instances }
}

type Waiting = VecDeque<oneshot::Sender<DiscoverResponse>>;

/// A connection.
pub(in super::super) struct Connection {
    plan: Plan,
    channel: Channel,
    outbox: mpsc::UnboundedSender<DiscoverRequest>,
    /// Those who asked, in turn: each is told once, or the connection ends.
    waiting: Mutex<Waiting>,
    heard: Mutex<Instant>,
    end: End,
    stream: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Connection {
    /// Connects, and has one question answered, within the time of the plan.
    pub(super) async fn open(plan: Plan) -> Result<Arc<Self>> {
        let limit = plan.connect_timeout;
        let address = plan.address.clone();
        let opening = async {
            let channel = dial(&plan.address, plan.tls.as_ref(), plan.server_name.as_deref(), limit).await?;
            let (outbox, to_send) = mpsc::unbounded_channel();
            let connection = Arc::new(Self {
                channel,
                outbox,
                waiting: Mutex::default(),
                heard: Mutex::new(Instant::now()),
                end: End::default(),
                stream: Mutex::default(),
                plan,
            });
            let reading = tokio::spawn(Arc::clone(&connection).read(to_send));
            *lock(&connection.stream) = Some(AbortOnDropHandle::new(reading));
            // Whatever it says of itself, it is there.
            connection
                .question(wire::INSTANCES, "Polaris", "polaris.checker", "")
                .await?;
            Ok(connection)
        };
        timeout(limit, opening).await.unwrap_or_else(|_| {
            let text = format!("Polaris at {address} did not answer within {} ms", limit.as_millis());
            Err(Error::new(ErrorKind::Timeout, text).at(&address))
        })
    }

    /// The `host:port` that it goes to.
    pub(in super::super) fn address(&self) -> &str {
        &self.plan.address
    }

    pub(in super::super) fn is_over(&self) -> bool {
        self.end.has_come()
    }

    /// Resolves when it has ended, with why.
    pub(in super::super) async fn over(&self) -> Error {
        self.end.wait().await
    }

    /// Ends it.
    pub(in super::super) fn end(&self, why: Error) {
        self.end.come(self.named(why));
        lock(&self.waiting).clear();
        lock(&self.stream).take();
    }

    fn named(&self, error: Error) -> Error {
        error.at(&self.plan.address)
    }

    /// The error of an answer that is none of success.
    fn refusal(&self, code: u32, info: &str, service: &str) -> Error {
        let token = self.plan.token.as_ref().and_then(|token| token.to_str().ok());
        self.named(refusal(code, info, service, token))
    }

    /// One call. A heartbeat that is not answered ends the connection.
    pub(in super::super) async fn call(&self, method: Method, instance: Instance) -> Result<Answered> {
        if let Some(error) = self.end.why() {
            return Err(error);
        }
        let is_beat = method == Method::Beat;
        let limit = if is_beat {
            self.plan.timeout.min(SILENCE)
        } else {
            self.plan.timeout
        };
        let service = instance.service.clone().unwrap_or_default();
        let sent = async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
            grpc.ready()
                .await
                .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<Instance, Response>::default();
            grpc.unary(self.request(instance), method.path(), codec).await
        };
        let answered = tokio::select! {
            answered = timeout(limit, sent) => answered,
            error = self.over() => return Err(error),
        };
        match answered {
            Ok(Ok(answer)) => {
                let Response { code, info } = answer.into_inner();
                *lock(&self.heard) = Instant::now();
                match code {
                    Some(OK) => Ok(Answered::Done),
                    Some(code) if is_beat && is_unknown(code) => Ok(Answered::Unknown),
                    Some(code) => Err(self.refusal(code, &info.unwrap_or_default(), &service)),
                    None => Err(self.no_polaris()),
                }
            }
            Ok(Err(status)) => Err(self.named(unanswered(status))),
            Err(_) => {
                let text = format!("Polaris did not answer within {} ms", limit.as_millis());
                let error = self.named(Error::new(ErrorKind::Timeout, text));
                if is_beat {
                    self.end(error.clone());
                }
                Err(error)
            }
        }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.plan.token {
            request.metadata_mut().insert("x-polaris-token", token.clone());
        }
        request
    }

    fn no_polaris(&self) -> Error {
        self.named(Error::new(ErrorKind::Unavailable, "what answers there is no Polaris"))
    }

    /// The instances of a service, whatever their state; `None` where the revision is the one that is known. A service that
    /// is not there has none.
    pub(in super::super) async fn list(&self, namespace: &str, service: &str, known: &str) -> Result<Option<List>> {
        let (code, answer) = self.question(wire::INSTANCES, namespace, service, known).await?;
        match code {
            UNCHANGED => Ok(None),
            OK => Ok(Some(told(answer))),
            code if is_not_there(code) => Ok(Some(List {
                revision: String::new(),
                instances: Vec::new(),
            })),
            code => Err(self.refusal(code, &answer.info.unwrap_or_default(), service)),
        }
    }

    /// The services of a namespace, those that have lost their last instance too.
    pub(in super::super) async fn services(&self, namespace: &str) -> Result<Vec<String>> {
        let (code, answer) = self.question(wire::SERVICES, namespace, "", "").await?;
        match code {
            OK | UNCHANGED => {
                let is_here = |service: &Service| service.namespace.as_deref().is_none_or(|other| other == namespace);
                let services = answer.services.into_iter().filter(is_here);
                Ok(services.filter_map(|service| service.name).collect())
            }
            code if is_not_there(code) => Ok(Vec::new()),
            code => Err(self.refusal(code, &answer.info.unwrap_or_default(), "")),
        }
    }

    /// Asks, and waits for the answer while the server answers anything.
    async fn question(&self, kind: i32, namespace: &str, name: &str, known: &str) -> Result<(u32, DiscoverResponse)> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let request = DiscoverRequest {
            r#type: kind,
            service: Some(Service {
                name: some(name),
                namespace: some(namespace),
                revision: some(known),
            }),
        };
        let (tell, mut told) = oneshot::channel();
        let asked = Instant::now();
        {
            // The order of the questions is that of those who wait.
            let mut waiting = lock(&self.waiting);
            if let Some(error) = self.end.why() {
                return Err(error);
            }
            waiting.push_back(tell);
            let _ = self.outbox.send(request); // its reader ends with the connection
        }
        let answer = loop {
            let until = asked.max(*lock(&self.heard)) + SILENCE;
            tokio::select! {
                answer = &mut told => match answer {
                    Ok(answer) => break answer,
                    Err(_) => return Err(self.over().await),
                },
                error = self.over() => return Err(error),
                () = sleep_until(until) => {
                    if asked.max(*lock(&self.heard)) + SILENCE <= Instant::now() {
                        let text = format!("Polaris did not answer within {} ms", SILENCE.as_millis());
                        self.end(Error::new(ErrorKind::Timeout, text));
                    }
                }
            }
        };
        match answer.code {
            Some(code) if [0, kind].contains(&answer.r#type) => Ok((code, answer)),
            _ => {
                self.end(Error::new(ErrorKind::Unavailable, "what answers there is no Polaris"));
                Err(self.no_polaris())
            }
        }
    }

    /// Reads the answers until the stream ends, and the connection with it.
    async fn read(self: Arc<Self>, mut to_send: mpsc::UnboundedReceiver<DiscoverRequest>) {
        let sending = futures::stream::poll_fn(move |cx| to_send.poll_recv(cx));
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        let request = self.request(sending);
        let this = Arc::downgrade(&self);
        drop(self); // the connection ends when nobody wants it
        let opened = async {
            grpc.ready()
                .await
                .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<DiscoverRequest, DiscoverResponse>::default();
            grpc.streaming(request, wire::discover(), codec).await
        };
        let ended = match opened.await {
            Err(status) => unanswered(status),
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(answer)) => {
                            let Some(connection) = this.upgrade() else { return };
                            *lock(&connection.heard) = Instant::now();
                            let Some(asker) = lock(&connection.waiting).pop_front() else {
                                break Error::new(ErrorKind::Unavailable, "Polaris answers what was not asked");
                            };
                            let _ = asker.send(answer); // it may have gone
                        }
                        Ok(None) => break Error::new(ErrorKind::Unavailable, "Polaris has closed the connection"),
                        Err(status) => break unanswered(status),
                    }
                }
            }
        };
        if let Some(connection) = this.upgrade() {
            connection.end(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(of_all: &str, of_service: Option<&str>) -> DiscoverResponse {
        let service = |revision: &str| Service {
            revision: Some(revision.to_owned()),
            ..Service::default()
        };
        DiscoverResponse {
            service: Some(service(of_all)),
            alias_for: of_service.map(service),
            instances: vec![Instance::default()],
            ..DiscoverResponse::default()
        }
    }

    #[test]
    fn an_instance_under_the_revision_of_none_is_not_there() {
        let of_none = "a9993e364706816aba3e25717850c26c9cd0d89d"; // SHA-1 of "abc"
        let list = told(answer(of_none, Some("abc")));
        assert_eq!((list.instances.len(), list.revision.as_str()), (0, of_none));
        for other in [
            answer("another", Some("abc")),
            answer(of_none, Some("abd")),
            answer(of_none, None),
        ] {
            assert_eq!(told(other).instances.len(), 1);
        }
    }
}
