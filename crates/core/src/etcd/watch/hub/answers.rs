//! What etcd says on the stream, and what it means for the watch that it is about.

use std::collections::HashMap;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use super::ahead::{Reader, may_read, settle};
use super::door::HubCommand;
use super::entry::Watch;
use super::progress::WHOLE_STREAM;
use super::stream::{Open, Unanswered, Wanted};
use super::{Hub, Stop, TOKEN_TRIES};
use crate::error::{Error, ErrorKind};
use crate::etcd::error::{Cause, judge_reason};
use crate::etcd::messages::{ResponseHeader, WatchResponse};
use crate::etcd::watch::sink::{Delivery, WatchEnd};

impl Hub {
    pub(super) fn answer(&mut self, mut response: WatchResponse, open: &mut Open) -> ControlFlow<Stop> {
        let header = response.header.unwrap_or_default();
        if !response.created {
            return self.news(response, header, open);
        }
        let done = match open.answered(response.watch_id) {
            Some(Unanswered::Watch(wire)) => {
                response.watch_id = wire;
                self.created(&response, header, open)
            }
            // The watch that the probe was to collide with had just been cancelled by the server.
            Some(Unanswered::Probe) if !response.canceled => {
                open.wanted.push_back(Wanted::Cancel(response.watch_id));
                Continue(())
            }
            _ => Continue(()),
        };
        self.tell_connecting(open);
        done
    }

    fn created(&mut self, response: &WatchResponse, header: ResponseHeader, open: &mut Open) -> ControlFlow<Stop> {
        let wire = response.watch_id;
        let Some((id, watch)) = watch_of(&mut self.watches, open, wire) else {
            return Continue(()); // cancelled by us a moment ago
        };
        if response.canceled {
            return self.canceled(id, response, open);
        }
        if watch.is_of_another_cluster(&header) {
            self.another_cluster(id, wire, open);
            return Continue(());
        }
        self.failures = 0;
        let start = watch.next_revision;
        let is_ahead = watch.created(header, wire);
        if watch.request.settle {
            if start > 0 && start <= header.revision {
                let (key, range_end) = (watch.request.key.clone(), watch.request.range_end.clone());
                let settled = Box::pin(settle(self.reader(), key, range_end, start)); // rare, and large
                self.later(settled.map(move |()| HubCommand::Settled(id)));
            } else {
                watch.settled();
            }
        }
        if is_ahead {
            open.ahead.waiting.push(id);
            self.ask(open, Duration::ZERO);
        }
        Continue(())
    }

    fn news(&mut self, response: WatchResponse, header: ResponseHeader, open: &mut Open) -> ControlFlow<Stop> {
        let wire = response.watch_id;
        if wire == WHOLE_STREAM {
            if open.progress.is_sure() && !response.canceled && response.events.is_empty() {
                self.progressed(&header, open);
            }
            return Continue(());
        }
        let Some((id, watch)) = watch_of(&mut self.watches, open, wire) else {
            return Continue(()); // cancelled by us a moment ago
        };
        if response.canceled {
            return self.canceled(id, &response, open);
        }
        if watch.is_of_another_cluster(&header) {
            self.another_cluster(id, wire, open);
            return Continue(());
        }
        let delivery = if response.events.is_empty() && !response.fragment {
            watch.progress(header, wire)
        } else {
            let most = self.calls.options().max_message_bytes;
            watch.take(header, wire, response.events, response.fragment, most)
        };
        match delivery {
            Delivery::Taken => {}
            Delivery::Full => {
                watch.wire = None;
                open.cancel(wire);
            }
            Delivery::Lagging => {
                open.cancel(wire);
                self.finish(id, WatchEnd::Lapsed);
            }
        }
        Continue(())
    }

    /// Every watch that the server knew when it was asked has been told everything up to the header's revision. Their
    /// sinks are not told: they asked for nothing.
    fn progressed(&mut self, header: &ResponseHeader, open: &Open) {
        for id in open.wires.values() {
            if let Some(watch) = self.watches.get_mut(id) {
                watch.progressed(header);
            }
        }
    }

    fn another_cluster(&mut self, id: i64, wire: i64, open: &mut Open) {
        open.cancel(wire);
        let why = "etcd at this address is another cluster now".to_owned();
        self.finish(id, WatchEnd::HistoryBroke(why));
    }

    fn canceled(&mut self, id: i64, response: &WatchResponse, open: &mut Open) -> ControlFlow<Stop> {
        open.wires.remove(&response.watch_id);
        if response.compact_revision > 0 {
            self.finish(id, WatchEnd::Compacted(response.compact_revision));
            return Continue(());
        }
        let url = self.calls.url_of(&open.route);
        let fault = judge_reason(&response.cancel_reason, url);
        match fault.cause {
            Cause::Compacted => self.finish(id, WatchEnd::Compacted(0)),
            Cause::StaleToken => {
                if let Some(watch) = self.watches.get_mut(&id) {
                    watch.token_refusals += 1;
                    if watch.token_refusals < TOKEN_TRIES {
                        return Break(Stop::Rollover);
                    }
                }
                // The token is new and the password right, so this passes: say so by a kind that is tried again.
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("{url} refuses its own token for a watch"),
                );
                self.finish(id, WatchEnd::Refused(error));
            }
            // Servers without etcd's #14322 (of 2022) say so of a token that is too old as well.
            Cause::Refused
                if fault.error.kind() == ErrorKind::PermissionDenied && self.calls.options().username.is_some() =>
            {
                if let Some(watch) = self.watches.get(&id)
                    && !watch.has_new_token
                    && watch.token_refusals < TOKEN_TRIES
                    && let Some(wire) = watch.wire
                {
                    // A new stream would cost every watch of the client its creation: a read of the range says which it is.
                    let (key, range_end) = (watch.request.key.clone(), watch.request.range_end.clone());
                    let may = Box::pin(may_read(self.reader(), key, range_end)); // rare, and large
                    self.later(may.map(move |may| {
                        if may {
                            HubCommand::Permitted(id, wire)
                        } else {
                            HubCommand::Denied(id, wire, fault.error)
                        }
                    }));
                    return Continue(());
                }
                self.finish(id, WatchEnd::Refused(fault.error));
            }
            Cause::Member if !response.cancel_reason.is_empty() => return Break(Stop::Broke(fault)),
            _ if response.cancel_reason.is_empty() => {
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("{url} cancelled a watch without a reason"),
                );
                self.finish(id, WatchEnd::Disconnected(error));
            }
            _ => self.finish(id, WatchEnd::Refused(fault.error)),
        }
        Continue(())
    }

    /// What reads because of a watch.
    fn reader(&self) -> Reader {
        Reader {
            calls: self.calls.clone(),
            turns: Arc::clone(&self.catching_up),
        }
    }

    /// Sends itself the command that comes of this. What is still under way when the client is closed is dropped.
    fn later(&self, work: impl Future<Output = HubCommand> + Send + 'static) {
        let (closed, sender) = (self.calls.closed().clone(), self.sender.clone());
        tokio::spawn(async move {
            let command = closed.run_until_cancelled(work).await;
            if let (Some(command), Some(sender)) = (command, sender.upgrade()) {
                let _ = sender.send(command); // a hub that is gone has told the end
            }
        });
    }
}

/// The watch that has this id on the stream.
fn watch_of<'a>(watches: &'a mut HashMap<i64, Box<Watch>>, open: &Open, wire: i64) -> Option<(i64, &'a mut Watch)> {
    let id = *open.wires.get(&wire)?;
    Some((id, watches.get_mut(&id)?))
}
