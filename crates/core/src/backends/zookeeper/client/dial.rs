//! From a list of members to a connection that carries our session.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::error::{ZkError, check};
use super::sasl;
use super::wire::{self, Frame, Reader, Write as _, op, xid};
use crate::tls::Tls;

/// Who we are, and how it is proved.
#[derive(Clone)]
pub(in super::super) enum Proof {
    /// The scheme `digest`: `user:password`.
    Digest(String, String),
    /// SASL with DIGEST-MD5.
    Sasl(String, String),
}

/// How the members are reached.
#[derive(Clone)]
pub(in super::super) struct Members {
    /// `host:port` each.
    pub(in super::super) hosts: Vec<String>,
    pub(in super::super) tls: Option<Tls>,
    /// The name that the members' certificates carry, where that is not their host.
    pub(in super::super) server_name: Option<String>,
    pub(in super::super) proof: Option<Proof>,
    /// The session timeout that is asked for.
    pub(in super::super) timeout: Duration,
}

/// A session, as a server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) password: Vec<u8>,
    pub(super) granted: Duration,
}

pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection that carries a session.
pub(super) struct Opened {
    pub(super) io: Box<dyn Io>,
    /// What has come after the greeting.
    pub(super) came: BytesMut,
    pub(super) identity: Identity,
}

/// What a server was asked for, besides its word.
#[derive(Clone, Copy)]
pub(super) struct Resume<'a> {
    /// `None` asks for a new session.
    pub(super) identity: Option<&'a Identity>,
    /// The newest transaction that we know of: a member that is behind does not take us.
    pub(super) zxid: i64,
}

/// How hard it is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Each member is tried once in such a time, whether the tries before have ended or not: one that hangs keeps nobody,
    /// and one that answers late is taken.
    pub(super) round: Duration,
    /// No try is longer.
    pub(super) longest: Duration,
}

/// How many tries go on at once.
const AT_ONCE: usize = 8;

/// Why a try failed.
enum Failure {
    /// Another member, or a later try, may do better.
    Unreachable(String),
    /// No try will.
    Final(ZkError),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

impl Members {
    /// Tries the members in turns, beginning with the one after `place`, which is left at the one that was found.
    ///
    /// Without `patient` it ends when each has failed once, else only with a session or the end of the one to resume.
    pub(super) async fn open(
        &self,
        resume: Resume<'_>,
        place: &mut usize,
        times: Pace,
        patient: bool,
    ) -> Result<Opened, ZkError> {
        let members = self.hosts.len();
        let step = times.round / u32::try_from(members).unwrap_or(u32::MAX).max(1);
        let mut tries = FuturesUnordered::new();
        let mut begun = 0;
        let mut next = Instant::now();
        let mut last = String::new();
        loop {
            let is_done = !patient && begun >= members;
            if is_done && tries.is_empty() {
                return Err(ZkError::NoSession(last));
            }
            tokio::select! {
                () = sleep_until(next), if !is_done && tries.len() < AT_ONCE => {
                    *place = (*place + 1) % members.max(1);
                    let at = *place;
                    begun += 1;
                    next = Instant::now() + step.mul_f64(0.75 + fastrand::f64() / 4.0);
                    tries.push(async move { (at, timeout(times.longest, self.try_one(&self.hosts[at], resume)).await) });
                }
                Some((at, outcome)) = tries.next() => match outcome {
                    Ok(Ok(opened)) => {
                        *place = at;
                        return Ok(opened);
                    }
                    Ok(Err(Failure::Final(error))) => return Err(error),
                    failed => {
                        let why = match failed {
                            Ok(Err(Failure::Unreachable(why))) => why,
                            _ => format!("no answer within {} ms", times.longest.as_millis()),
                        };
                        last = format!("{}: {why}", self.hosts[at]);
                        // The others are asked at once, the first time.
                        if begun < members {
                            next = Instant::now();
                        }
                    }
                },
            }
        }
    }

    async fn try_one(&self, host: &str, resume: Resume<'_>) -> Result<Opened, Failure> {
        let tcp = TcpStream::connect(host).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return self.greet(Box::new(tcp), resume).await;
        };
        tls.refresh().await;
        let name = self
            .server_name
            .as_deref()
            .unwrap_or_else(|| host.rsplit_once(':').map_or(host, |(name, _)| name));
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|error| Failure::Unreachable(error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(tls.config(&[])));
        let io = connector.connect(name, tcp).await?;
        self.greet(Box::new(io), resume).await
    }

    /// Asks for the session, and proves who we are.
    async fn greet(&self, mut io: Box<dyn Io>, resume: Resume<'_>) -> Result<Opened, Failure> {
        let mut out = BytesMut::new();
        wire::put_frame(&mut out, |out| {
            out.int(0); // the version of the protocol
            out.long(resume.zxid);
            out.int(i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX));
            if let Some(identity) = resume.identity {
                out.long(identity.id);
                out.bytes(&identity.password);
            } else {
                out.long(0);
                out.bytes(&[0; 16]);
            }
            out.bool(false); // not a member that can only be read
        });
        let mut came = BytesMut::new();
        send(&mut io, &mut out).await?;
        let mut answer = receive(&mut io, &mut came).await?;
        let identity = (|| {
            let _version = answer.int()?;
            let granted = answer.int()?;
            let id = answer.long()?;
            let password = answer.bytes()?.to_vec();
            Ok::<_, wire::Malformed>((granted, id, password))
        })();
        let (granted, id, password) = identity.map_err(|_| malformed())?;
        // How a server says that there is no such session any more.
        let Some(granted) = u64::try_from(granted).ok().filter(|granted| *granted > 0) else {
            return Err(if resume.identity.is_some() {
                Failure::Final(ZkError::SessionExpired)
            } else {
                malformed()
            });
        };
        match &self.proof {
            Some(Proof::Digest(user, password)) => digest(&mut io, &mut came, user, password).await?,
            Some(Proof::Sasl(user, password)) => sasl_md5(&mut io, &mut came, user, password).await?,
            None => {}
        }
        Ok(Opened {
            io,
            came,
            identity: Identity {
                id,
                password,
                granted: Duration::from_millis(granted),
            },
        })
    }
}

fn malformed() -> Failure {
    Failure::Unreachable("what answers there is no ZooKeeper".to_owned())
}

async fn send(io: &mut Box<dyn Io>, out: &mut BytesMut) -> Result<(), Failure> {
    io.write_all(&out.split()).await?;
    io.flush().await?;
    Ok(())
}

async fn receive(io: &mut Box<dyn Io>, came: &mut BytesMut) -> Result<Reader, Failure> {
    loop {
        match wire::frame(came).map_err(|_| malformed())? {
            Some(Frame::Whole(frame)) => return Ok(Reader::new(frame)),
            Some(Frame::TooLong { .. }) => return Err(malformed()),
            None => {}
        }
        if io.read_buf(came).await? == 0 {
            return Err(Failure::Unreachable(
                "it closed the connection: it has no quorum, is behind, or refuses us".to_owned(),
            ));
        }
    }
}

/// The answer to a request of the greeting; what is told of watches has nobody to hear it yet.
async fn answered(io: &mut Box<dyn Io>, came: &mut BytesMut, to: i32) -> Result<Reader, Failure> {
    loop {
        let mut frame = receive(io, came).await?;
        let (of, _zxid) = (frame.int(), frame.long());
        let code = frame.int().map_err(|_| malformed())?;
        if of != Ok(to) {
            continue;
        }
        return match check(code) {
            Ok(()) => Ok(frame),
            Err(_) => Err(Failure::Final(ZkError::AuthFailed)),
        };
    }
}

async fn digest(io: &mut Box<dyn Io>, came: &mut BytesMut, user: &str, password: &str) -> Result<(), Failure> {
    let mut out = BytesMut::new();
    wire::put_frame(&mut out, |out| {
        out.int(xid::AUTH);
        out.int(op::AUTH);
        out.int(0);
        out.text("digest");
        out.text(&format!("{user}:{password}"));
    });
    send(io, &mut out).await?;
    answered(io, came, xid::AUTH).await.map(drop)
}

async fn sasl_md5(io: &mut Box<dyn Io>, came: &mut BytesMut, user: &str, password: &str) -> Result<(), Failure> {
    let refused = || Failure::Final(ZkError::AuthFailed);
    let mut token = Vec::new();
    // No token, then the answer to the challenge. The server's proof that it knows the password comes with the second
    // answer; it is not looked at, as in ZooKeeper's own client: who has the password's digest has the user.
    for number in 1..=2 {
        let mut out = BytesMut::new();
        wire::put_frame(&mut out, |out| {
            out.int(number);
            out.int(op::SASL);
            out.bytes(&token);
        });
        send(io, &mut out).await?;
        let challenge = answered(io, came, number).await?.bytes().map_err(|_| malformed())?;
        if number == 1 {
            let cnonce = uuid::Uuid::new_v4().simple().to_string();
            token = sasl::answer(&challenge, user, password, &cnonce).ok_or_else(refused)?;
        }
    }
    Ok(())
}
