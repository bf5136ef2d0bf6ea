//! A client of Nacos's naming over gRPC: as much as a registry needs, on [tonic]. It holds one connection at a time, made when
//! somebody wants it.

mod connection;
mod error;
mod lists;
mod packed;
mod reading;
mod signing;
mod subscriptions;
mod tokens;
mod wire;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use self::connection::{Plan, Scope};
use self::tokens::Tokens;
use super::options::NacosOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::grpc::Servers;
use crate::log::Log;
use crate::sync::lock;
use crate::tls::Tls;

pub(super) use self::connection::Connection;
pub(super) use self::lists::{Host, List, bare};
pub(super) use self::packed::Packed;
pub(super) use self::subscriptions::Subscription;

/// The longest time between two questions whether the server is there.
const BEAT: Duration = Duration::from_secs(5);
/// How long a connection that is given up may be used on, so that what it carries is there twice before it is there once.
const HANDOVER: Duration = Duration::from_secs(3);

/// The client.
pub(super) struct Client {
    servers: Servers,
    options: Arc<NacosOptions>,
    scope: Arc<Scope>,
    tls: Option<Tls>,
    tokens: Arc<Tokens>,
    current: watch::Sender<Option<Arc<Connection>>>,
    moved: mpsc::UnboundedSender<(String, Value)>,
    moves: Mutex<Option<mpsc::UnboundedReceiver<(String, Value)>>>,
    moving: Mutex<Option<AbortOnDropHandle<()>>>,
    log: Log,
}

impl Client {
    pub(super) fn new(options: &Arc<NacosOptions>, log: &Log) -> Result<Self> {
        let tls = options.tls.as_ref().map(|tls| Tls::new(tls, log.clone())).transpose()?;
        let addresses: Result<Vec<String>> = options
            .hosts
            .iter()
            .map(|host| grpc_address(host, options.grpc_port))
            .collect();
        let (moved, inbox) = mpsc::unbounded_channel();
        Ok(Self {
            servers: Servers::new(addresses?),
            scope: Arc::new(Scope {
                namespace: options.namespace.clone(),
                group: options.group.clone(),
                cluster: options.cluster.clone(),
            }),
            tokens: Arc::new(Tokens::new(options, tls.as_ref())?),
            tls,
            current: watch::channel(None).0,
            moved,
            moves: Mutex::new(Some(inbox)),
            moving: Mutex::default(),
            options: Arc::clone(options),
            log: log.clone(),
        })
    }

    /// The connection that there is.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        self.current.borrow().clone().filter(|connection| !connection.is_over())
    }

    /// What tells of another connection.
    pub(super) fn changes(&self) -> watch::Receiver<Option<Arc<Connection>>> {
        self.current.subscribe()
    }

    /// The connection, made now if there is none: one attempt at each server.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Arc<Connection>> {
        let open = |address: String, limit| async move {
            self.listen_to_moves();
            let connection = self.open(&address, limit).await?;
            self.current.send_replace(Some(Arc::clone(&connection)));
            Ok(connection)
        };
        let time = self.options.connect_timeout;
        self.servers.connection(time, || self.current(), open).await
    }

    async fn open(&self, address: &str, limit: Duration) -> Result<Arc<Connection>> {
        let options = &self.options;
        let opened = Connection::open(Plan {
            address: address.to_owned(),
            tls: self.tls.clone(),
            server_name: options.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            scope: Arc::clone(&self.scope),
            tokens: Arc::clone(&self.tokens),
            access_key: options.access_key.clone(),
            connect_timeout: limit,
            timeout: options.timeout,
            beat: BEAT.min(options.ttl / 4),
            moved: self.moved.clone(),
        });
        opened.await
    }

    /// Follows servers that send their clients elsewhere.
    fn listen_to_moves(self: &Arc<Self>) {
        let Some(mut moves) = lock(&self.moves).take() else {
            return;
        };
        let client = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            while let Some((from, body)) = moves.recv().await {
                let Some(client) = client.upgrade() else { return };
                client.move_on(&from, &body).await;
            }
        });
        *lock(&self.moving) = Some(AbortOnDropHandle::new(task));
    }

    /// Connects elsewhere before what there is ends: to the server that was named, if it is one of ours, else to the next.
    async fn move_on(&self, from: &str, body: &Value) {
        let Some(old) = self.current().filter(|connection| connection.address() == from) else {
            return;
        };
        let ip = body.get("serverIp").and_then(Value::as_str).unwrap_or_default();
        let port = body.get("serverPort").and_then(Value::as_str).unwrap_or_default();
        let named = grpc_address(&format!("{ip}:{port}"), self.options.grpc_port).ok();
        {
            let mut place = self.servers.place.lock().await;
            let there = named.and_then(|named| self.servers.addresses.iter().position(|address| *address == named));
            *place = there.unwrap_or((*place + 1) % self.servers.addresses.len());
            match self
                .open(&self.servers.addresses[*place], self.options.connect_timeout)
                .await
            {
                Ok(new) => {
                    self.log
                        .info(format_args!("Nacos at {from} asks us to go to {}", new.address()));
                    self.current.send_replace(Some(new));
                }
                // The old one ends, and whoever needs a connection makes one.
                Err(error) => self
                    .log
                    .warn(format_args!("Nacos at {from} asks us to go elsewhere: {error}")),
            }
        }
        sleep(HANDOVER).await;
        old.end(Error::new(ErrorKind::Unavailable, "Nacos asked us to go elsewhere"));
    }

    /// Ends the connection, and all that servers have of this client.
    pub(super) fn close(&self) {
        lock(&self.moving).take();
        if let Some(connection) = self.current.send_replace(None) {
            connection.end(Error::new(ErrorKind::Closed, "the client is closed"));
        }
    }
}

/// `host:port` of gRPC, of that of HTTP.
fn grpc_address(host: &str, grpc_port: Option<u16>) -> Result<String> {
    let wrong = || Error::invalid(format!("options.hosts: expected \"host:port\", got {host:?}"));
    let (name, port) = host.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let port = match grpc_port {
        Some(port) => port,
        None => port.checked_add(1000).ok_or_else(|| {
            Error::invalid(format!(
                "options.hosts: {host:?} leaves no room for the port of gRPC, which is 1,000 above; give options.grpcPort"
            ))
        })?,
    };
    Ok(format!("{name}:{port}"))
}
