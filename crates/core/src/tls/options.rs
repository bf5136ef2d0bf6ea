//! What a client is told of TLS.

use std::fmt;
use std::path::PathBuf;

/// TLS of the connections of one client. Everything is PEM.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Certificates that may sign the server's, or the server's own. Default: the system's authorities and, for images
    /// without any, Mozilla's.
    pub ca: Option<Vec<u8>>,
    /// Our certificate chain, for servers that ask for one. Needs `key`.
    pub cert: Option<Vec<u8>>,
    /// The private key of `cert`. Never logged.
    pub key: Option<Vec<u8>>,
    /// The name that the server's certificate must hold. Default: the host as it is written in `hosts`.
    pub server_name: Option<String>,
    /// The file that `ca` was read from. It is read again for each later connection. Default none.
    pub ca_file: Option<PathBuf>,
    /// The same for `cert`.
    pub cert_file: Option<PathBuf>,
    /// The same for `key`.
    pub key_file: Option<PathBuf>,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_some() { "***" } else { "none" };
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca.as_ref().map(Vec::len))
            .field("cert", &self.cert.as_ref().map(Vec::len))
            .field("key", &format_args!("{key}"))
            .field("server_name", &self.server_name)
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish()
    }
}
