//! The token that calls carry when the cluster has authentication: got with the first call of a connection, and anew when
//! it is refused.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prost::Message as _;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::codegen::http::HeaderValue;

use super::caller::{Caller, Route};
use super::methods::AUTHENTICATE;
use crate::error::ErrorKind;
use crate::etcd::error::{Cause, Fault, judge_status};
use crate::etcd::messages::{AuthenticateRequest, AuthenticateResponse};
use crate::etcd::transport::endpoints::Connection;

/// How often a refused token is replaced within one try. Twice, because the auth store may change in between.
const TOKEN_TRIES: u32 = 2;

impl Caller {
    /// One try on one connection: authenticates first where that is needed, and again when the token is refused.
    pub(super) async fn with_token<T, F, Fut>(&self, connection: &Arc<Connection>, make: &F) -> Result<(T, u64), Fault>
    where
        F: Fn(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Fault>>,
    {
        let url = &connection.url;
        let has_user = self.options().username.is_some();
        let mut tries = 0;
        loop {
            let mut token = connection.token.load(Ordering::Acquire);
            if has_user && token == 0 {
                token = Box::pin(self.authenticate(connection, url, 0)).await?; // boxed: rare, and large
            }
            let fault = match make(Arc::clone(connection)).await {
                Ok(answer) => return Ok((answer, token)),
                Err(fault) => fault,
            };
            if fault.cause != Cause::StaleToken || !has_user {
                return Err(fault);
            }
            if tries == TOKEN_TRIES {
                // The password was right a moment ago, so this passes: say so by a kind that is tried again.
                return Err(Fault::new(
                    Cause::Refused,
                    ErrorKind::Unavailable,
                    format!(
                        "{url} refuses the token that it has just given: {}",
                        fault.error.message()
                    ),
                ));
            }
            tries += 1;
            Box::pin(self.authenticate(connection, url, token)).await?;
        }
    }

    /// Gets a token over `connection`, unless a newer one than `refused` is there. One caller at a time authenticates.
    async fn authenticate(&self, connection: &Arc<Connection>, url: &str, refused: u64) -> Result<u64, Fault> {
        let (Some(user), Some(password)) = (&self.options().username, &self.options().password) else {
            return Ok(0);
        };
        let _turn = connection.authenticating.lock().await;
        let current = connection.token.load(Ordering::Acquire);
        if current != refused {
            return Ok(current);
        }
        let limit = match &self.options().token_time {
            Some(ask) => ask().await.map_err(|error| Fault::of(Cause::Refused, error))?,
            None => None,
        };
        let exchange = self.ask_for_token(connection, url, user, password);
        let exchanged = match limit {
            // What needs the token is not sent, and another member may be quicker.
            Some(limit) => timeout(limit, exchange).await.unwrap_or_else(|_| {
                let text = format!(
                    "{url} did not answer authenticate in the {} ms given",
                    limit.as_millis()
                );
                Err(Fault::new(Cause::NotSent, ErrorKind::Timeout, text))
            }),
            None => exchange.await,
        };
        match exchanged {
            Ok(token) => connection.transport.set_token(Some(token)),
            Err(fault) if fault.cause == Cause::AuthOff => {
                connection.transport.set_token(None);
                if self.is_first_told_that_auth_is_off() {
                    self.log().warn(format_args!(
                        "etcd at {url} has no authentication enabled; going on without the user {user:?}"
                    ));
                }
            }
            Err(fault) => return Err(fault),
        }
        connection.token.store(current + 1, Ordering::Release);
        Ok(current + 1)
    }

    async fn ask_for_token(
        &self,
        connection: &Connection,
        url: &str,
        user: &str,
        password: &str,
    ) -> Result<HeaderValue, Fault> {
        let request = AuthenticateRequest {
            name: user.to_owned(),
            password: password.to_owned(),
        };
        let body = request.encode_to_vec().into();
        let limit = self.options().max_message_bytes;
        // Without a token: an old one would be refused before the password is looked at.
        let anonymous = connection.transport.anonymous();
        let answer = anonymous.unary(AUTHENTICATE, body, false, limit).await;
        let answer = answer.map_err(|status| judge_status(status, url))?;
        let unreadable = |why: &dyn std::fmt::Display| {
            let text = format!("the answer of {url} to authenticate cannot be read: {why}");
            Fault::new(Cause::Refused, ErrorKind::Internal, text)
        };
        let answer = AuthenticateResponse::decode(answer).map_err(|e| unreadable(&e))?;
        let mut token = HeaderValue::from_str(&answer.token).map_err(|e| unreadable(&e))?;
        token.set_sensitive(true);
        Ok(token)
    }

    /// Replaces the token of `route` because a stream was refused with it.
    pub(in crate::etcd) async fn renew_token(&self, route: &Route) -> Result<(), Fault> {
        if self.options().username.is_none() {
            return Err(Fault::new(
                Cause::Refused,
                ErrorKind::Unauthenticated,
                "etcd asks for a user and a password: set username and password",
            ));
        }
        let url = self.url_of(route);
        let until = Instant::now() + self.options().timeout;
        let renewed = timeout_at(until, self.authenticate(&route.connection, url, route.token)).await;
        renewed.map_or_else(
            |_| {
                let text = format!("{url} did not answer authenticate in time");
                Err(Fault::new(Cause::Broken, ErrorKind::Timeout, text))
            },
            |done| done.map(|_| ()),
        )
    }
}
