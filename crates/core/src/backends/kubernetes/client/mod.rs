//! Calls of the API of one cluster: what is asked, how long that may take, and what an answer comes to.

mod access;
mod auth;
mod exec;
mod kubeconfig;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use self::access::Access;
use super::model::{Meta, Page, Pod, Status};
use super::options::KubernetesOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::heard::{Heard, while_heard};
use crate::http::{Unread, innermost, one_line, read_body, segment};
use crate::log::Log;
use crate::sync::lock;

/// Calls in flight; watches are not counted.
const TURNS: usize = 16;
/// A server that has just started refuses what it will allow once its rules are read.
const RULES: Duration = Duration::from_secs(10);
/// The longest that a server may ask to be left alone.
const LEAVE: Duration = Duration::from_secs(30);

/// The cluster of one client.
pub(super) struct Cluster {
    pub options: KubernetesOptions,
    pub log: Log,
    access: OnceCell<Arc<Access>>,
    turns: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When a connection was lost last.
    broken: Option<Instant>,
    /// Nothing is to be asked before.
    quiet: Option<Instant>,
}

/// An answer that was no success.
pub(super) struct Refused {
    pub status: u16,
    /// The server says nothing of what is wrong, as where a test of a JSON Patch fails.
    pub is_bare: bool,
    pub error: Error,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let (status, is_bare) = (0, false);
        Self { status, is_bare, error }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl Cluster {
    pub(super) fn new(options: KubernetesOptions, log: Log) -> Self {
        Self {
            options,
            log,
            access: OnceCell::new(),
            turns: Semaphore::new(TURNS),
            state: Mutex::default(),
        }
    }

    /// The way there, found at the first call. What fails is tried again at the next.
    async fn access(&self) -> Result<&Arc<Access>> {
        self.access
            .get_or_try_init(|| async {
                let (options, log) = (self.options.clone(), self.log.clone());
                let finding = tokio::task::spawn_blocking(move || access::find(&options, &log));
                let found = finding.await;
                let found = found.unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, error.to_string())));
                found.map(Arc::new)
            })
            .await
    }

    /// The server, as far as it is known yet.
    pub(super) fn endpoint(&self) -> Option<String> {
        let found = self.access.get().map(|access| access.base.clone());
        found.or_else(|| self.options.server.clone())
    }

    /// The path of what is read of a kind: of one namespace, or of all.
    pub(super) async fn path(&self, group: &str, kind: &str) -> Result<String> {
        let namespace = &self.access().await?.namespace;
        if self.options.namespace.as_deref() == Some("*") {
            return Ok(format!("{group}/{kind}"));
        }
        Ok(format!("{group}/namespaces/{}/{kind}", segment(namespace)))
    }

    /// The own pod: its path, and how messages call it.
    async fn own(&self) -> Result<(String, String)> {
        let pod = self.options.own_pod()?;
        let namespace = &self.access().await?.namespace;
        let path = format!("/api/v1/namespaces/{}/pods/{}", segment(namespace), segment(pod));
        Ok((path, format!("{namespace}/{pod}")))
    }

    /// The labels of the own pod. `None`: there is no such pod.
    pub(super) async fn own_pod(&self) -> Result<Option<Meta>> {
        let (path, _) = self.own().await?;
        match self.call::<Pod>(Method::GET, &path, None).await {
            Ok(pod) => Ok(Some(pod.metadata)),
            Err(refused) if refused.status == 404 => Ok(None),
            Err(refused) => Err(refused.error),
        }
    }

    /// How messages call the own pod.
    pub(super) async fn own_name(&self) -> Result<String> {
        Ok(self.own().await?.1)
    }

    /// Applies a JSON Patch to the own pod.
    pub(super) async fn patch_own(&self, patch: &serde_json::Value) -> Result<(), Refused> {
        let (own, _) = self.own().await?;
        let answer = self.call::<Pod>(Method::PATCH, &own, Some(patch.to_string())).await;
        answer.map(drop)
    }

    /// Whether the namespace is there, where we may ask for it.
    pub(super) async fn check_namespace(&self) -> Result<()> {
        if self.options.namespace.as_deref() == Some("*") {
            return Ok(());
        }
        let namespace = &self.access().await?.namespace;
        let path = format!("/api/v1/namespaces/{}", segment(namespace));
        match self.call::<Pod>(Method::GET, &path, None).await {
            Err(refused) if refused.status == 404 => Err(Error::invalid(format!(
                "options.namespace: the cluster has no namespace {namespace:?}"
            ))),
            // Few may ask for it.
            Err(refused) if refused.status != 403 => Err(refused.error),
            _ => Ok(()),
        }
    }

    /// One page of a list.
    pub(super) async fn page(&self, path_and_query: &str) -> Result<Page, Refused> {
        self.call(Method::GET, path_and_query, None).await
    }

    /// Begins to watch. The answer goes on.
    pub(super) async fn watch(&self, path_and_query: &str) -> Result<Response, Refused> {
        let limit = self.options.timeout;
        let sent = timeout(limit, self.sent(Method::GET, path_and_query, None)).await;
        let (access, response) = sent.unwrap_or_else(|_| Err(self.silent(limit)))?;
        if response.status().as_u16() == 200 {
            return Ok(response);
        }
        let refused = timeout(limit, self.refusal(access, response)).await;
        Err(refused.unwrap_or_else(|_| self.silent(limit).into()))
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<String>) -> Result<T, Refused> {
        let (limit, heard) = (self.options.timeout, Heard::default());
        let whole = std::pin::pin!(async {
            let _turn = self.turns.acquire().await; // never closed
            let (access, mut response) = self.sent(method, path, body).await?;
            heard.note();
            if !response.status().is_success() {
                return Err(self.refusal(access, response).await);
            }
            let body = self.body(access, &mut response, &heard).await?;
            serde_json::from_slice(&body).map_err(|error| {
                let shown = one_line(&body);
                strange(&access.base, &format!("{error}: {shown}")).into()
            })
        });
        // A large page over a slow link goes on while it comes.
        let answer = while_heard(whole, &heard, Instant::now() + limit, None).await;
        answer.unwrap_or_else(|| Err(self.silent(limit).into()))
    }

    /// Sends a request, and once more with a newer token where the server does not take ours.
    async fn sent(&self, method: Method, path: &str, body: Option<String>) -> Result<(&Access, Response)> {
        let access = self.access().await?;
        let quiet = lock(&self.state).quiet;
        if let Some(until) = quiet {
            sleep_until(until).await;
        }
        let mut refused: Option<HeaderValue> = None;
        loop {
            let header = access.auth.header(refused.as_ref()).await?;
            let mut request = access.http.request(method.clone(), format!("{}{path}", access.base));
            request = request.header(ACCEPT, "application/json");
            if let Some(header) = &header {
                request = request.header(AUTHORIZATION, header);
            }
            if let Some(body) = &body {
                request = request
                    .header(CONTENT_TYPE, "application/json-patch+json")
                    .body(body.clone());
            }
            let response = request.send().await.map_err(|error| self.lost(error))?;
            let is_tried_again = response.status().as_u16() == 401 && refused.is_none() && header.is_some();
            if !is_tried_again {
                return Ok((access, response));
            }
            refused = header;
        }
    }

    async fn body(&self, access: &Access, response: &mut Response, heard: &Heard) -> Result<Vec<u8>> {
        let max = self.options.max_message_bytes;
        let read = read_body(response, max, heard).await;
        read.map_err(|unread| match unread {
            Unread::Broken(error) => self.lost(error),
            Unread::TooLarge => {
                let base = &access.base;
                let why = format!("the answer of {base} is larger than {max} bytes (maxMessageBytes)");
                Error::new(ErrorKind::Unavailable, why).at(base)
            }
        })
    }

    /// What an answer that is no success comes to.
    async fn refusal(&self, access: &Access, mut response: Response) -> Refused {
        let status = response.status().as_u16();
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if let (429 | 503, Some(seconds)) = (status, after) {
            let until = Instant::now() + Duration::from_secs(seconds).min(LEAVE);
            lock(&self.state).quiet = Some(until);
        }
        let body = match self.body(access, &mut response, &Heard::default()).await {
            Ok(body) => body,
            Err(error) => return error.into(),
        };
        let said = serde_json::from_slice::<Status>(&body)
            .ok()
            .filter(|said| said.kind == "Status");
        self.judge(&access.base, status, said, &body)
    }

    fn judge(&self, base: &str, status: u16, said: Option<Status>, body: &[u8]) -> Refused {
        let is_kubernetes = said.is_some();
        let said = said.unwrap_or_default();
        let text = if said.message.is_empty() {
            one_line(body)
        } else {
            one_line(said.message.as_bytes())
        };
        let is_settling = {
            let broken = lock(&self.state).broken;
            broken.is_some_and(|at| at.elapsed() < RULES)
        };
        let kind = match status {
            400 | 404 | 405 | 413 | 415 | 422 if is_kubernetes => ErrorKind::InvalidArgument,
            401 => ErrorKind::Unauthenticated,
            403 if is_settling => ErrorKind::Unavailable,
            403 => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unavailable,
        };
        let hint = match kind {
            ErrorKind::PermissionDenied => "; grant it by a Role and a RoleBinding",
            ErrorKind::Unauthenticated => "; the token is wrong or has expired",
            _ => "",
        };
        let why = if said.message.is_empty() {
            format!("{base} answered {status}: {text}{hint}")
        } else {
            format!("{base} answered {status} {}: {text}{hint}", said.reason)
        };
        Refused {
            status,
            is_bare: said.message.contains("due to an error in our request"),
            error: Error::new(kind, why).at(base),
        }
    }

    /// What an error that a watch was told of comes to.
    pub(super) fn told(&self, said: Status) -> Refused {
        let base = self.endpoint().unwrap_or_default();
        let status = said.code;
        self.judge(&base, status, Some(said), &[])
    }

    /// A connection is lost, in the middle of what was read: what follows is not believed as before.
    pub(super) fn lost(&self, error: reqwest::Error) -> Error {
        self.note_break();
        let base = self.endpoint().unwrap_or_default();
        let what = if error.is_connect() {
            "can't be reached"
        } else {
            "broke the connection off"
        };
        let why = format!("{base} {what}: {}", innermost(&error));
        Error::new(ErrorKind::Unavailable, why)
            .at(&base)
            .caused_by(error.without_url())
    }

    /// The same, of a connection that does not do what it should.
    pub(super) fn broken(&self, why: &str) -> Error {
        self.note_break();
        let base = self.endpoint().unwrap_or_default();
        Error::new(ErrorKind::Unavailable, format!("{base} {why}")).at(&base)
    }

    fn silent(&self, waited: Duration) -> Error {
        self.note_break();
        let base = self.endpoint().unwrap_or_default();
        let why = format!("{base} did not answer within {} ms", waited.as_millis());
        Error::new(ErrorKind::Timeout, why).at(&base)
    }

    fn note_break(&self) {
        lock(&self.state).broken = Some(Instant::now());
    }
}

fn strange(base: &str, what: &str) -> Error {
    let why = format!("{base} answered something else than Kubernetes does ({what})");
    Error::new(ErrorKind::Unavailable, why).at(base)
}
