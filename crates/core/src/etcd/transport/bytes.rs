//! Calls in bytes: what a caller has encoded goes out as it is, and an answer comes back as it came. One codec serves
//! every method of every service, those that this version has never heard of included.
//!
//! Over the same HTTP/2 connection as the typed calls of `etcd_client`, with the same token.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{HeaderValue, Request as HttpRequest, Response as HttpResponse};
use tonic::codegen::{Service, StdError};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::listening::Listening;
use crate::sync::lock;

/// The metadata that etcd reads the token from.
const TOKEN: &str = "token";
/// The metadata that lets a member without a leader refuse at once instead of after its own time.
const HAS_LEADER: &str = "hasleader";

/// The messages of a stream as they come.
pub type ByteStream = Streaming<Bytes>;

/// One HTTP/2 connection and the token that its calls carry. Cheap to clone; clones share both.
#[derive(Clone)]
pub(in crate::etcd) struct Transport {
    channel: Listening,
    token: Arc<Mutex<Option<HeaderValue>>>,
}

impl Transport {
    pub(in crate::etcd) fn new(channel: Channel) -> Self {
        Self {
            channel: Listening::new(channel),
            token: Arc::default(),
        }
    }

    /// From now on every call carries `token`; `None` when the cluster has no authentication.
    pub(in crate::etcd) fn set_token(&self, token: Option<HeaderValue>) {
        *lock(&self.token) = token;
    }

    /// The same connection without a token, for the call that asks for one.
    pub(in crate::etcd) fn anonymous(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            token: Arc::default(),
        }
    }

    /// One request, one answer. An answer of more than `limit` bytes is refused with `OutOfRange`.
    pub(in crate::etcd) async fn unary(
        &self,
        path: &'static str,
        body: Bytes,
        needs_leader: bool,
        limit: usize,
    ) -> Result<Bytes, Status> {
        let mut grpc = self.grpc(limit).await?;
        let answer = grpc
            .unary(request(body, needs_leader), PathAndQuery::from_static(path), BytesCodec)
            .await?;
        Ok(answer.into_inner())
    }

    /// A stream both ways. It is open when this resolves, which some servers let wait for the first request.
    pub(in crate::etcd) async fn stream<S>(
        &self,
        path: &'static str,
        requests: S,
        needs_leader: bool,
        limit: usize,
    ) -> Result<ByteStream, Status>
    where
        S: futures::Stream<Item = Bytes> + Send + 'static,
    {
        let mut grpc = self.grpc(limit).await?;
        let answer = grpc
            .streaming(
                request(requests, needs_leader),
                PathAndQuery::from_static(path),
                BytesCodec,
            )
            .await?;
        Ok(answer.into_inner())
    }

    async fn grpc(&self, limit: usize) -> Result<tonic::client::Grpc<Self>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.clone()).max_decoding_message_size(limit);
        // `from_error` keeps the source, which says whether anything was sent.
        grpc.ready().await.map_err(Status::from_error)?;
        Ok(grpc)
    }
}

fn request<T>(body: T, needs_leader: bool) -> Request<T> {
    let mut request = Request::new(body);
    if needs_leader {
        request
            .metadata_mut()
            .insert(HAS_LEADER, MetadataValue::from_static("true"));
    }
    request
}

/// How all requests go out, those of `etcd_client` too: each with the token of the moment.
impl Service<HttpRequest<tonic::body::Body>> for Transport {
    type Response = HttpResponse<tonic::body::Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: HttpRequest<tonic::body::Body>) -> Self::Future {
        if let Some(token) = lock(&self.token).clone() {
            request.headers_mut().insert(TOKEN, token);
        }
        self.channel.call(request)
    }
}

/// A message is its bytes.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, body: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(body);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // A slice of what was read from the socket, not a copy.
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
