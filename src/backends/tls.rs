//! TLS, of whichever backend has it.

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
#[cfg(any(
    feature = "etcd",
    feature = "consul",
    feature = "zookeeper",
    feature = "nacos",
    feature = "polaris"
))]
use rollcall_core::tls::TlsOptions;

#[napi(object, use_nullable = true)]
pub struct NativeTlsOptions {
    pub ca: Option<Buffer>,
    pub cert: Option<Buffer>,
    pub key: Option<Buffer>,
    pub server_name: Option<String>,
    /// The files that `ca`, `cert` and `key` were read from, to be read again.
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
}

#[cfg(any(
    feature = "etcd",
    feature = "consul",
    feature = "zookeeper",
    feature = "nacos",
    feature = "polaris"
))]
impl From<NativeTlsOptions> for TlsOptions {
    fn from(tls: NativeTlsOptions) -> Self {
        Self {
            ca: tls.ca.map(Into::into),
            cert: tls.cert.map(Into::into),
            key: tls.key.map(Into::into),
            server_name: tls.server_name,
            ca_file: tls.ca_file.map(Into::into),
            cert_file: tls.cert_file.map(Into::into),
            key_file: tls.key_file.map(Into::into),
        }
    }
}
