//! A client of Polaris's naming over gRPC: as much as a registry needs, on [tonic]. It holds one connection at a time, made when
//! somebody wants it.

mod connection;
mod error;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

use self::connection::Plan;
use super::options::PolarisOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Log;
use crate::sync::lock;
use crate::tls::Tls;

pub(super) use self::connection::{Answered, Connection, List};
pub(super) use self::wire::{HealthCheck, Heartbeat, Instance, Method};

/// How long nobody tries again what has just failed, however many want a connection.
const AGAIN: Duration = Duration::from_millis(100);

/// The client.
pub(super) struct Client {
    addresses: Vec<String>,
    tls: Option<Tls>,
    server_name: Option<String>,
    token: Option<MetadataValue<Ascii>>,
    connect_timeout: Duration,
    timeout: Duration,
    current: Mutex<Option<Arc<Connection>>>,
    /// Where dialling begins; held by whoever dials.
    place: tokio::sync::Mutex<usize>,
    /// When dialling failed last, and with what: all who wait for it have that answer.
    failed: Mutex<Option<(Instant, Error)>>,
}

impl Client {
    pub(super) fn new(options: &PolarisOptions, log: &Log) -> Result<Self> {
        let tls = options.tls.as_ref().map(|tls| Tls::new(tls, log.clone())).transpose()?;
        let token = options.token.as_deref().map(|token| {
            let mut token = MetadataValue::try_from(token)
                .map_err(|_| Error::invalid("options.token: expected printable ASCII characters alone"))?;
            token.set_sensitive(true);
            Ok::<_, Error>(token)
        });
        Ok(Self {
            addresses: options.hosts.clone(),
            server_name: options.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            tls,
            token: token.transpose()?,
            connect_timeout: options.connect_timeout,
            timeout: options.timeout,
            current: Mutex::default(),
            place: tokio::sync::Mutex::default(),
            failed: Mutex::default(),
        })
    }

    /// The connection that there is.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        lock(&self.current).clone().filter(|connection| !connection.is_over())
    }

    /// The server that is asked, or would be asked next.
    pub(super) fn endpoint(&self) -> Option<String> {
        if let Some(connection) = self.current() {
            return Some(connection.address().to_owned());
        }
        let place = self.place.try_lock().map_or(0, |place| *place);
        self.addresses.get(place).cloned()
    }

    /// The connection, made now if there is none: one attempt at each server.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>> {
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        let asked = Instant::now();
        let mut place = self.place.lock().await;
        if let Some(connection) = self.current() {
            return Ok(connection);
        }
        if let Some((at, error)) = &*lock(&self.failed)
            && (*at >= asked || at.elapsed() < AGAIN)
        {
            return Err(error.clone());
        }
        let limit = self.connect_timeout / u32::try_from(self.addresses.len()).unwrap_or(1).max(1);
        let mut failure = None;
        for _ in 0..self.addresses.len() {
            let opened = Connection::open(Plan {
                address: self.addresses[*place].clone(),
                tls: self.tls.clone(),
                server_name: self.server_name.clone(),
                token: self.token.clone(),
                connect_timeout: limit,
                timeout: self.timeout,
            });
            match opened.await {
                Ok(connection) => {
                    *lock(&self.current) = Some(Arc::clone(&connection));
                    return Ok(connection);
                }
                Err(error) => failure = Some(error),
            }
            *place = (*place + 1) % self.addresses.len();
        }
        let failure = failure.unwrap_or_else(|| Error::new(ErrorKind::Internal, "there is no server to connect to"));
        *lock(&self.failed) = Some((Instant::now(), failure.clone()));
        Err(failure)
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        if let Some(connection) = lock(&self.current).take() {
            connection.end(Error::new(ErrorKind::Closed, "the client is closed"));
        }
    }
}
