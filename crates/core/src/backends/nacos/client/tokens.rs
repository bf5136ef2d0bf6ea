//! The token of a user, by the HTTP API: <https://nacos.io/docs/latest/manual/user/auth/>. It is renewed before it expires, and
//! when a server refuses it: one whose key has changed knows no token of before.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, redirect};
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::crypto;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;
use crate::tls::Tls;

use super::super::options::NacosOptions;

/// Where users log in, of Nacos 2 and of Nacos 3.
const PATHS: [&str; 2] = ["/v1/auth/users/login", "/v3/auth/user/login"];
/// The largest answer that is read.
const LARGEST: usize = 64 * 1024;

/// The token of one user; nothing where there is none.
pub(super) struct Tokens {
    user: Option<User>,
}

struct User {
    name: String,
    password: String,
    /// `http(s)://host:port/nacos` of each server.
    bases: Vec<String>,
    http: Client,
    tls: Option<Tls>,
    token: Mutex<Option<Token>>,
    /// One logs in at a time, and the others wait for what comes of it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Token {
    text: Arc<str>,
    renew_at: Instant,
}

impl Tokens {
    pub(super) fn new(options: &NacosOptions, tls: Option<&Tls>) -> Result<Self> {
        let Some((name, password)) = options.user.clone() else {
            return Ok(Self { user: None });
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let path = options.context_path.trim_end_matches('/');
        let config = match tls {
            Some(tls) => tls.config(&[b"http/1.1"]),
            None => crypto::none()?,
        };
        let http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .pool_max_idle_per_host(0)
            .tls_backend_preconfigured(config);
        let http = http
            .build()
            .map_err(|error| Error::invalid(format!("options: no HTTP client can be made of them: {error}")))?;
        Ok(Self {
            user: Some(User {
                name,
                password,
                bases: options
                    .hosts
                    .iter()
                    .map(|host| format!("{scheme}://{host}{path}"))
                    .collect(),
                http,
                tls: tls.cloned(),
                token: Mutex::default(),
                turn: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// The token to send; none where there is no user.
    pub(super) async fn get(&self) -> Result<Option<Arc<str>>> {
        let Some(user) = &self.user else { return Ok(None) };
        if let Some(text) = user.fresh() {
            return Ok(Some(text));
        }
        let _turn = user.turn.lock().await;
        if let Some(text) = user.fresh() {
            return Ok(Some(text)); // somebody else has logged in meanwhile
        }
        let token = user.log_in().await?;
        let text = Arc::clone(&token.text);
        *lock(&user.token) = Some(token);
        Ok(Some(text))
    }

    /// A server has refused this token. Whether another may do better.
    pub(super) fn refused(&self, text: Option<&str>) -> bool {
        let (Some(user), Some(text)) = (&self.user, text) else {
            return false;
        };
        let mut token = lock(&user.token);
        if token.as_ref().is_some_and(|token| &*token.text == text) {
            *token = None;
        }
        true
    }
}

impl User {
    fn fresh(&self) -> Option<Arc<str>> {
        let token = lock(&self.token);
        let fresh = token.as_ref().filter(|token| Instant::now() < token.renew_at);
        fresh.map(|token| Arc::clone(&token.text))
    }

    /// Asks the servers in turn; a refusal is the answer of all.
    async fn log_in(&self) -> Result<Token> {
        if let Some(tls) = &self.tls {
            tls.refresh().await;
        }
        let mut failure = None;
        for base in &self.bases {
            match self.log_in_at(base).await {
                Ok(token) => return Ok(token),
                Err(error) if error.is_retryable() => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no server to log in at")))
    }

    async fn log_in_at(&self, base: &str) -> Result<Token> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("username", &self.name)
            .append_pair("password", &self.password)
            .finish();
        let unavailable = |why: String| Error::new(ErrorKind::Unavailable, format!("logging in: {why}")).at(base);
        for path in PATHS {
            let sent = self
                .http
                .post(format!("{base}{path}"))
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.clone())
                .send()
                .await;
            let mut answer = sent.map_err(|error| {
                let kind = if error.is_timeout() {
                    ErrorKind::Timeout
                } else {
                    ErrorKind::Unavailable
                };
                Error::new(kind, "logging in: no answer")
                    .at(base)
                    .caused_by(error.without_url())
            })?;
            let status = answer.status().as_u16();
            match status {
                200 => {}
                404 | 501 => continue,
                401 | 403 => {
                    let text = "Nacos does not know the user, or the password is wrong: look at options.username and options.password";
                    return Err(Error::new(ErrorKind::Unauthenticated, text).at(base));
                }
                _ => return Err(unavailable(format!("HTTP status {status}"))),
            }
            let mut body = Vec::new();
            while let Some(chunk) = answer
                .chunk()
                .await
                .map_err(|error| unavailable(error.without_url().to_string()))?
            {
                if body.len() + chunk.len() > LARGEST {
                    return Err(unavailable("the answer is too large for one of Nacos".to_owned()));
                }
                body.extend_from_slice(&chunk);
            }
            let asked = Instant::now();
            return read(&body, asked).ok_or_else(|| unavailable("the answer is none of Nacos".to_owned()));
        }
        Err(unavailable(
            "there is no Nacos, or options.contextPath is not its path".to_owned(),
        ))
    }
}

fn read(body: &[u8], asked: Instant) -> Option<Token> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let found = [Some(&answer), answer.get("data")];
    let held = found.into_iter().flatten().find(|at| at.get("accessToken").is_some())?;
    let text = held.get("accessToken")?.as_str().filter(|text| !text.is_empty())?;
    let seconds = held.get("tokenTtl").and_then(Value::as_u64).unwrap_or(3600);
    Some(Token {
        text: text.into(),
        // A year is as good as for ever.
        renew_at: asked + Duration::from_secs(seconds.min(31_536_000)).mul_f64(0.9),
    })
}
