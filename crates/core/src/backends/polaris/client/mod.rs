//! A client of Polaris's naming over gRPC: as much as a registry needs, on [tonic]. It holds one connection at a time, made when
//! somebody wants it.

mod connection;
mod error;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};

use self::connection::Plan;
use super::options::PolarisOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::grpc::Servers;
use crate::log::Log;
use crate::sync::lock;
use crate::tls::Tls;

pub(super) use self::connection::{Answered, Connection, List};
pub(super) use self::wire::{HealthCheck, Heartbeat, Instance, Method};

/// The client.
pub(super) struct Client {
    servers: Servers,
    tls: Option<Tls>,
    server_name: Option<String>,
    token: Option<MetadataValue<Ascii>>,
    connect_timeout: Duration,
    timeout: Duration,
    current: Mutex<Option<Arc<Connection>>>,
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
            servers: Servers::new(options.hosts.clone()),
            server_name: options.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            tls,
            token: token.transpose()?,
            connect_timeout: options.connect_timeout,
            timeout: options.timeout,
            current: Mutex::default(),
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
        let place = self.servers.place.try_lock().map_or(0, |place| *place);
        self.servers.addresses.get(place).cloned()
    }

    /// The connection, made now if there is none: one attempt at each server.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>> {
        let open = |address, limit| async move {
            let opened = Connection::open(Plan {
                address,
                tls: self.tls.clone(),
                server_name: self.server_name.clone(),
                token: self.token.clone(),
                connect_timeout: limit,
                timeout: self.timeout,
            });
            let connection = opened.await?;
            *lock(&self.current) = Some(Arc::clone(&connection));
            Ok(connection)
        };
        self.servers
            .connection(self.connect_timeout, || self.current(), open)
            .await
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        if let Some(connection) = lock(&self.current).take() {
            connection.end(Error::new(ErrorKind::Closed, "the client is closed"));
        }
    }
}
