//! What a client of ZooKeeper is made of.

use std::time::Duration;

use super::client::Acl;
use super::paths::check_path;
use crate::error::{Error, Result};
use crate::instance::Codec;
use crate::tls::TlsOptions;

/// Options of a [`ZookeeperBackend`](super::ZookeeperBackend). Defaults are those of the public API.
#[derive(Clone)]
pub struct ZookeeperOptions {
    /// The members, `host:port` each.
    pub hosts: Vec<String>,
    /// The path below which everything of this client lies; it must exist. Empty: none.
    pub chroot: String,
    /// The parent of all names.
    pub prefix: String,
    /// How an instance is written.
    pub codec: Codec,
    /// Who we are, with a password; none by default.
    pub user: Option<User>,
    /// Who may do what with the nodes that we make.
    pub acl: NodeAcl,
    /// TLS to the members.
    pub tls: Option<TlsOptions>,
    /// How long the opening of a session may take, all members together.
    pub connect_timeout: Duration,
    /// The session timeout to ask for. What the server grants counts.
    pub ttl: Duration,
    /// Whether persistent recursive watches are tried (ZooKeeper 3.6). Without them every node has a watch of its own,
    /// which is what an older server gets.
    pub recursive_watches: bool,
}

/// A user and how it is proved.
#[derive(Clone)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
    /// The way to prove it.
    pub by: Authentication,
}

/// How a user is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// ZooKeeper's own scheme `digest`: any user and password are accepted, and open what they were given rights to.
    Digest,
    /// SASL with DIGEST-MD5: the server knows its users.
    Sasl,
}

/// Who may do what with the nodes that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeAcl {
    /// `world:anyone` everything.
    Anyone,
    /// Our user everything, nobody else anything: what Kratos's `WithDigestACL` gives.
    Creator,
    /// Our user everything, anyone reading.
    CreatorAnyoneReads,
}

impl Default for ZookeeperOptions {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:2181".to_owned()],
            chroot: String::new(),
            prefix: "/microservices".to_owned(),
            codec: Codec::Kratos,
            user: None,
            acl: NodeAcl::Anyone,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            ttl: Duration::from_secs(15),
            recursive_watches: true,
        }
    }
}

impl ZookeeperOptions {
    /// Brings the paths into one form; refuses what can't be right.
    pub(super) fn checked(mut self) -> Result<Self> {
        if self.hosts.is_empty() {
            return Err(Error::invalid("options.hosts: expected at least one \"host:port\""));
        }
        for (option, path) in [
            ("options.chroot", &mut self.chroot),
            ("options.prefix", &mut self.prefix),
        ] {
            path.truncate(path.trim_end_matches('/').len());
            if !path.is_empty() {
                check_path(option, path)?;
            }
        }
        // The scheme knows the two as one text.
        let is_cut = |user: &User| user.by == Authentication::Digest && user.name.contains(':');
        if self.user.as_ref().is_some_and(is_cut) {
            return Err(Error::invalid(
                "options.username: must not contain \":\", where the scheme \"digest\" has the password begin",
            ));
        }
        if self.acl != NodeAcl::Anyone && self.user.is_none() {
            return Err(Error::invalid(
                "options.acl: expected a username and password with \"creator\", who would own the nodes otherwise?",
            ));
        }
        Ok(self)
    }

    /// The access rights of what we make.
    pub(super) fn acls(&self) -> Vec<Acl> {
        let anyone = |permissions| Acl {
            permissions,
            scheme: "world",
            id: "anyone",
        };
        // Whoever the server knows the maker by.
        let creator = Acl {
            permissions: Acl::ALL,
            scheme: "auth",
            id: "",
        };
        match self.acl {
            NodeAcl::Anyone => vec![anyone(Acl::ALL)],
            NodeAcl::Creator => vec![creator],
            NodeAcl::CreatorAnyoneReads => vec![creator, anyone(Acl::READ)],
        }
    }
}
