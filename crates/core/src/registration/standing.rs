//! Where a registration stands, moved on and told of in one step: to its callers, to its owner and to the log.

use std::sync::Arc;

use super::phase::{Input, Phase, Told};
use super::state::{Event, OnEvent, RegistrationInner};
use crate::error::Error;
use crate::instance::ServiceInstance;
use crate::log::{Level, Log};
use crate::metrics::{Held, Meter};

pub(super) struct Standing {
    pub phase: Phase,
    pub inner: Arc<RegistrationInner>,
    pub on_event: OnEvent,
    pub log: Log,
    pub meter: Arc<Meter>,
    /// Counted as one that has not ended, and as one that is out of traffic.
    pub is_alive: Option<Held>,
    pub is_out: Option<Held>,
}

impl Standing {
    /// The instance as it is wanted.
    pub fn instance(&self) -> Arc<ServiceInstance> {
        self.inner.wanted.borrow().instance.clone()
    }

    /// Moves the phase on, and tells of it in the same step: who reads the new state finds its events on the way, and who
    /// hears of an event reads the new state. `tried`: which generation, and what hindered it.
    pub fn step(&mut self, input: Input, tried: Option<(u64, Option<Error>)>) {
        let is_out = matches!(input, Input::Out { .. });
        let (phase, told) = std::mem::replace(&mut self.phase, Phase::NEW).step(input);
        self.phase = phase;
        if self.phase.state().is_final() {
            self.is_alive = None;
        }
        if self.phase.out().is_empty() {
            self.is_out = None;
        } else if self.is_out.is_none() {
            self.is_out = Some(self.meter.out.hold());
        }
        let hindrance = tried.as_ref().and_then(|(_, error)| error.clone());
        self.inner.progress.send_modify(|progress| {
            progress.state = self.phase.state();
            progress.out = self.phase.out();
            progress.is_removed = self.phase.is_removed();
            match tried {
                Some((generation, None)) => {
                    progress.published = generation;
                    progress.failure = None;
                }
                Some((generation, Some(error))) => progress.failure = Some((generation, error)),
                // What hindered it before says nothing of what is wanted now.
                None if is_out => progress.failure = None,
                None => {}
            }
            for event in told.iter().filter_map(Told::event) {
                // Before it is told: who hears of it finds it counted.
                match event {
                    Event::Lost(_) => self.meter.losses.add(),
                    Event::Restored => self.meter.repairs.add(),
                    Event::Replaced => self.meter.replaced.add(),
                    Event::Out(..) | Event::In => {}
                }
                (self.on_event)(event);
            }
        });
        for told in told {
            self.say(&told, hindrance.as_ref());
        }
    }

    fn say(&self, told: &Told, hindrance: Option<&Error>) {
        let instance = self.instance();
        let (log, name) = (&self.log, Name(&instance));
        match told {
            Told::Registered => log.info(format_args!("{name} is registered at {}", Where(&instance))),
            Told::Restored => log.info(format_args!("{name} is registered again")),
            Told::NotPublished { first } => {
                // Once per series of failures: an outage is long, and a client may hold a thousand registrations.
                let level = if *first { Level::Warn } else { Level::Debug };
                if let Some(error) = hindrance {
                    log.log(level, format_args!("{name} could not be published: {error}"));
                }
            }
            Told::Lost(why) => log.warn(format_args!("{name} was lost: {why}; putting it back")),
            Told::Stalled(why) => log.warn(format_args!("{name} is withdrawn: {why}")),
            Told::Out(_, reasons) => log.info(format_args!("{name} is out of traffic: {reasons}")),
            Told::Reappeared => log.warn(format_args!(
                "{name} stands again while it is out of traffic: the registry was restored from an older state; removing it"
            )),
            Told::In => log.info(format_args!("{name} is in traffic again")),
            Told::Replaced => log.warn(format_args!("{name} was replaced by a newer registration of its id")),
            Told::Removed => log.info(format_args!("{name} is deregistered")),
            Told::LeftToExpire => log.error(format_args!("{name} could not be removed and is left to expire")),
        }
    }
}

/// How a log line calls an instance.
pub(super) struct Name<'a>(pub &'a ServiceInstance);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0.name, self.0.id)
    }
}

/// Where callers reach it.
struct Where<'a>(&'a ServiceInstance);

impl std::fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.endpoints.is_empty() {
            return f.write_str("no endpoint");
        }
        f.write_str(&self.0.endpoints.join(", "))
    }
}
