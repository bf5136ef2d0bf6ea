//! Who we are: a bearer token, which may change while we hold it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::exec::Exec;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;

/// How long a token from a file is taken for the newest: that of a pod is replaced well before it expires.
const FRESH: Duration = Duration::from_secs(50);
/// How long its file is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the token comes from.
#[derive(Clone)]
pub(super) enum Origin {
    Nowhere,
    Given(String),
    File(PathBuf),
    Plugin(Arc<Exec>),
}

pub(super) struct Auth {
    origin: Origin,
    held: Mutex<Option<Held>>,
    log: Log,
}

#[derive(Clone)]
struct Held {
    header: HeaderValue,
    since: Instant,
}

impl Auth {
    pub(super) fn new(origin: Origin, log: Log) -> Self {
        let held = Mutex::default();
        Self { origin, held, log }
    }

    /// The header to send. `refused` is one that the server has not taken: the token is asked for anew then. A file that can't
    /// be read leaves the token that was read before.
    pub(super) async fn header(&self, refused: Option<&HeaderValue>) -> Result<Option<HeaderValue>> {
        if matches!(self.origin, Origin::Nowhere) {
            return Ok(None);
        }
        let mut held = self.held.lock().await;
        let before = held.clone();
        if let Some(before) = &before {
            let is_old = matches!(self.origin, Origin::File(_)) && before.since.elapsed() >= FRESH;
            let is_refused = refused.is_some_and(|refused| *refused == before.header);
            if !is_old && !is_refused {
                return Ok(Some(before.header.clone()));
            }
        }
        let header = match (self.token().await, before) {
            (Ok(token), _) => header(&token)?,
            (Err(error), Some(before)) => {
                self.log
                    .warn(format_args!("{error}; going on with the token that was read before"));
                before.header
            }
            (Err(error), None) => return Err(error),
        };
        let since = Instant::now();
        *held = Some(Held {
            header: header.clone(),
            since,
        });
        Ok(Some(header))
    }

    async fn token(&self) -> Result<String> {
        match self.origin.clone() {
            Origin::Nowhere => Ok(String::new()),
            Origin::Given(token) => Ok(token),
            Origin::File(path) => {
                let shown = path.display().to_string();
                let unread = |why: &str| Error::invalid(format!("options.tokenFile: can't read {shown}: {why}"));
                let reading = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
                match timeout(PATIENCE, reading).await {
                    Ok(Ok(Ok(token))) if token.trim().is_empty() => Err(unread("it is empty")),
                    Ok(Ok(read)) => read.map_err(|error| unread(&error.to_string())),
                    _ => Err(unread("it was not read in time")),
                }
            }
            Origin::Plugin(exec) => {
                let running = tokio::task::spawn_blocking(move || exec.run());
                let ran = running.await;
                ran.unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, error.to_string())))
            }
        }
    }
}

/// The header of a token, without the end of line that files have.
fn header(token: &str) -> Result<HeaderValue> {
    let wrong = |_| {
        Error::invalid(
            "options.token: expected a bearer token, of visible ASCII in one line; its text is not shown here",
        )
    };
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(wrong)?;
    header.set_sensitive(true);
    Ok(header)
}
