//! Who does the cryptography.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

#[cfg(not(any(feature = "tls-aws-lc", feature = "tls-ring")))]
compile_error!("TLS needs a crypto provider: the cargo feature \"tls-aws-lc\" or \"tls-ring\"");

/// The one crypto provider. Not the process's default, which belongs to nobody.
pub(super) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-ring")]
    let provider = rustls::crypto::ring::default_provider();
    #[cfg(all(feature = "tls-aws-lc", not(feature = "tls-ring")))]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Arc::new(provider)
}
