//! TLS to ZooKeeper: what the crate wants of the certificates.

use zookeeper_client::TlsOptions;

use super::options::ZookeeperTls;
use crate::error::{Error, Result};

/// The options of the crate. The PEM was looked at before; what is still wrong with it is an argument that can't be right.
pub(super) fn options(tls: &ZookeeperTls) -> Result<TlsOptions> {
    let text = |option: &str, pem: &[u8]| {
        String::from_utf8(pem.to_vec()).map_err(|_| Error::invalid(format!("options.tls.{option}: expected PEM")))
    };
    let wrong = |option: &'static str| {
        move |error: zookeeper_client::Error| Error::invalid(format!("options.tls.{option}: {error}")).caused_by(error)
    };
    let mut options = TlsOptions::new();
    if let Some(ca) = &tls.ca {
        options = options.with_pem_ca(&text("ca", ca)?).map_err(wrong("ca"))?;
    }
    if let Some((cert, key)) = &tls.identity {
        options = options
            .with_pem_identity(&text("cert", cert)?, &text("key", key)?)
            .map_err(wrong("cert"))?;
    }
    Ok(options)
}
