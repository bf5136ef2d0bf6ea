//! How long the exchange of a password for a token may take, where the program decides that for each.

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rollcall_core::etcd::TokenTime;
use rollcall_core::sync::lock;
use rollcall_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::call::ms;
use crate::events::Mailbox;

type Answer = Result<Option<Duration>>;

/// Questions to the program, each as the event `tokenTime` with its number as text, until they are answered.
pub struct Questions {
    mailbox: Arc<Mailbox>,
    /// Who gets the events.
    listener: u32,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last: u32,
    askers: HashMap<u32, oneshot::Sender<Answer>>,
}

impl Questions {
    pub fn new(mailbox: Arc<Mailbox>, listener: u32) -> Self {
        Self {
            mailbox,
            listener,
            open: Mutex::default(),
        }
    }

    /// As the core asks it.
    pub fn as_token_time(self: &Arc<Self>) -> TokenTime {
        let questions = Arc::clone(self);
        Arc::new(move || {
            let questions = Arc::clone(&questions);
            Box::pin(async move { questions.ask().await })
        })
    }

    async fn ask(&self) -> Answer {
        let (asker, answer) = oneshot::channel();
        let number = {
            let mut open = lock(&self.open);
            open.askers.retain(|_, asker| !asker.is_closed()); // calls whose time is over
            open.last = open.last.wrapping_add(1);
            let number = open.last;
            open.askers.insert(number, asker);
            number
        };
        self.mailbox.put("tokenTime", self.listener, Some(number.to_string()));
        let closed = |_| Err(Error::new(ErrorKind::Closed, "the client was closed"));
        answer.await.unwrap_or_else(closed)
    }

    /// `millis` is what is left, `None` for no limit; `error` is why there is no answer.
    pub fn answer(&self, number: u32, millis: Option<f64>, error: Option<String>) {
        let asker = {
            let mut open = lock(&self.open);
            open.askers.remove(&number)
        };
        if let Some(asker) = asker {
            // A call that has ended meanwhile does not want it any more.
            let _ = asker.send(match error {
                Some(error) => Err(Error::invalid(error)),
                None => Ok(millis.map(ms)),
            });
        }
    }
}

/// A time that is known from the start: so long for each exchange, and none after `until`, in milliseconds since 1970.
pub fn fixed(each: Option<f64>, until: Option<f64>) -> TokenTime {
    let each = each.map(ms);
    let until = until.map(ms);
    Arc::new(move || {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = until.map(|until| until.saturating_sub(since_1970));
        let least = match (each, left) {
            (Some(each), Some(left)) => Some(each.min(left)),
            (each, left) => each.or(left),
        };
        Box::pin(ready(Ok(least)))
    })
}
