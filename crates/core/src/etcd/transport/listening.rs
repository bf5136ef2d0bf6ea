//! A channel that notes when something of an answer comes, for the try that asked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Service, StdError};
use tonic::transport::Channel;

use crate::heard::Heard;

tokio::task_local! {
    /// What the try that this task is making has heard. A request is sent by the task that waits for it, so the channel
    /// finds it here; nothing of `etcd_client` would carry it.
    static OF_THIS_TRY: Arc<Heard>;
}

/// Makes `work` with what the requests that it sends hear noted in `heard`.
pub(in crate::etcd) fn listening<F: Future>(heard: Arc<Heard>, work: F) -> impl Future<Output = F::Output> {
    OF_THIS_TRY.scope(heard, work)
}

/// The channel.
#[derive(Clone)]
pub(in crate::etcd) struct Listening {
    channel: Channel,
}

impl Listening {
    pub(in crate::etcd) fn new(channel: Channel) -> Self {
        Self { channel }
    }
}

impl Service<Request<Body>> for Listening {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.channel.call(request);
        let heard = OF_THIS_TRY.try_with(Arc::clone).ok();
        Box::pin(async move {
            let answer = answer.await?;
            let Some(heard) = heard else { return Ok(answer) };
            heard.note();
            Ok(answer.map(|body| Body::new(Listened { body, heard })))
        })
    }
}

/// The body of an answer.
struct Listened {
    body: Body,
    heard: Arc<Heard>,
}

impl HttpBody for Listened {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if matches!(frame, Some(Ok(_))) {
            self.heard.note();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
