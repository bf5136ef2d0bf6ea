//! Who does the cryptography of TLS, and a configuration for those who have none.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

#[cfg(not(any(feature = "tls-aws-lc", feature = "tls-ring")))]
compile_error!("TLS needs a crypto provider: the cargo feature \"tls-aws-lc\" or \"tls-ring\"");

/// The one crypto provider. Not the process's default, which belongs to nobody.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-ring")]
    let provider = rustls::crypto::ring::default_provider();
    #[cfg(all(feature = "tls-aws-lc", not(feature = "tls-ring")))]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Arc::new(provider)
}

/// A configuration that trusts nobody, for HTTP clients that want one and never use it.
#[cfg(any(feature = "http", feature = "nacos"))]
pub(crate) fn none() -> crate::error::Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| crate::error::Error::invalid(format!("options.tls: {error}")))?;
    Ok(builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}
