//! TLS of the backends that have it: what is believed, who we are, and that both are read again when their files change.
//!
//! One [`Tls`] for each client. Its rustls configuration is made once and asks for the newest certificates at every
//! handshake; whoever is about to make a connection calls [`Tls::refresh`] first.

mod options;
mod verify;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, InconsistentKeys, SignatureScheme};

pub use self::options::TlsOptions;
use crate::crypto::provider;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::sync::lock;

/// The longest that the files are waited for, before a connection is made with what was read last.
const PATIENCE: Duration = Duration::from_secs(2);

/// TLS of one client.
#[derive(Clone)]
pub(crate) struct Tls {
    config: ClientConfig,
    current: Arc<Current>,
}

/// What the three PEM texts come to.
struct Material {
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<CertifiedKey>>,
}

/// The newest material, which handshakes ask for.
struct Current {
    material: Mutex<Arc<Material>>,
    files: Files,
    /// What was read last, good or bad, so that each change is told once.
    last: Mutex<Read>,
    /// One reads at a time, and the others wait for what it finds.
    turn: tokio::sync::Mutex<()>,
    /// A read hangs, as on a network that is gone.
    hangs: Arc<AtomicBool>,
    log: Log,
}

/// The three texts, in the order of [`Files`], or why they can't be read.
type Read = Result<[Option<Vec<u8>>; 3], String>;

/// One of `ca`, `cert` and `key`: its name, the file to read again, and the text that stays without one.
type Source = (&'static str, Option<PathBuf>, Option<Vec<u8>>);

/// `ca`, `cert` and `key`.
#[derive(Clone)]
struct Files([Source; 3]);

impl Files {
    fn any(&self) -> bool {
        self.0.iter().any(|(_, file, _)| file.is_some())
    }

    /// Blocks.
    fn read(&self) -> Read {
        let [ca, cert, key] = &self.0;
        let read = |(name, file, text): &Source| match file {
            None => Ok(text.clone()),
            Some(path) => match std::fs::read(path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) => Err(format!(
                    "options.tls.{name}File: can't read {}: {error}",
                    path.display()
                )),
            },
        };
        Ok([read(ca)?, read(cert)?, read(key)?])
    }
}

impl Tls {
    /// Errors are `InvalidArgument` and name the option. No I/O but reading the system's authorities, without a `ca`.
    pub(crate) fn new(options: &TlsOptions, log: Log) -> Result<Self> {
        let texts = [options.ca.clone(), options.cert.clone(), options.key.clone()];
        let material = Material::new(&texts, None)?;
        let [ca, cert, key] = &texts;
        let files = Files([
            ("ca", options.ca_file.clone(), ca.clone()),
            ("cert", options.cert_file.clone(), cert.clone()),
            ("key", options.key_file.clone(), key.clone()),
        ]);
        let current = Arc::new(Current {
            material: Mutex::new(Arc::new(material)),
            files,
            last: Mutex::new(Ok(texts)),
            turn: tokio::sync::Mutex::new(()),
            hangs: Arc::default(),
            log,
        });
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut config = builder
            .map_err(|error| Error::invalid(format!("options.tls: {error}")))?
            .dangerous() // rustls's word for any verifier that is not made by itself; ours asks it
            .with_custom_certificate_verifier(Arc::clone(&current) as _)
            .with_client_cert_resolver(Arc::clone(&current) as _);
        // A resumed session would pass by authorities that have changed meanwhile.
        config.resumption = Resumption::disabled();
        Ok(Self { config, current })
    }

    /// The configuration, with these protocols to choose from.
    pub(crate) fn config(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// Reads the files again, if there are any, for a connection that is about to be made. What is bad leaves the last
    /// good ones, with a warning for each change. Takes 2 s at most.
    pub(crate) async fn refresh(&self) {
        let current = &self.current;
        if !current.files.any() {
            return;
        }
        let _turn = current.turn.lock().await;
        if current.hangs.swap(true, Ordering::AcqRel) {
            return; // the thread that reads has not come back yet
        }
        let (files, hangs) = (current.files.clone(), Arc::clone(&current.hangs));
        let reading = tokio::task::spawn_blocking(move || {
            let read = files.read();
            hangs.store(false, Ordering::Release);
            read
        });
        let read = match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => return, // the runtime ends
            Err(_) => Err(format!(
                "options.tls: the files were not read within {} ms",
                PATIENCE.as_millis()
            )),
        };
        current.take(read);
    }
}

impl Current {
    fn take(&self, read: Read) {
        let mut last = lock(&self.last);
        if *last == read {
            return;
        }
        // The usual authorities are kept as they were: reading them takes long.
        let usual = self.files.0[0].2.is_none() && self.files.0[0].1.is_none();
        let before = lock(&self.material).clone();
        let made = match &read {
            Err(why) => Err(why.clone()),
            Ok(texts) => Material::new(texts, usual.then(|| Arc::clone(&before.verifier)))
                .map_err(|error| error.message().to_owned()),
        };
        *last = read;
        drop(last);
        match made {
            Ok(material) => {
                *lock(&self.material) = Arc::new(material);
                self.log.info(format_args!(
                    "the files of options.tls have changed and are used from now on"
                ));
            }
            Err(why) => self.log.warn(format_args!(
                "{why}; going on with the certificates that were read before"
            )),
        }
    }

    fn now(&self) -> Arc<Material> {
        lock(&self.material).clone()
    }
}

impl Material {
    /// `usual` stands for the authorities where no `ca` is given.
    fn new([ca, cert, key]: &[Option<Vec<u8>>; 3], usual: Option<Arc<dyn ServerCertVerifier>>) -> Result<Self> {
        let verifier = match (ca, usual) {
            (None, Some(usual)) => usual,
            (None, None) => verify::usual()?,
            (Some(ca), _) => verify::only(certificates("ca", ca)?)?,
        };
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(Arc::new(identity(cert, key)?)),
            (None, None) => None,
            _ => {
                return Err(Error::invalid(
                    "options.tls: expected cert and key together, or neither",
                ));
            }
        };
        Ok(Self { verifier, identity })
    }
}

/// The certificates of a PEM text, at least one.
fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Error::invalid(format!(
            "options.tls.{name}: expected PEM text with \"-----BEGIN CERTIFICATE-----\""
        ))),
    }
}

fn identity(cert: &[u8], key: &[u8]) -> Result<CertifiedKey> {
    let chain = certificates("cert", cert)?;
    // Errors of these readers are not repeated: they may hold pieces of the key.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        Error::invalid("options.tls.key: expected PEM text with \"-----BEGIN … PRIVATE KEY-----\", not encrypted")
    })?;
    let key = provider().key_provider.load_private_key(key).map_err(|_| {
        Error::invalid(
            "options.tls.key: this key can't be used: expected RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, \
             or Ed25519 (with ring: RSA of up to 4096 bits, no P-521)",
        )
    })?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => Err(Error::invalid(
            "options.tls.key: it is not the key of the certificate in options.tls.cert",
        )),
        Err(error) => Err(Error::invalid(format!(
            "options.tls.cert: the certificate can't be used: {error}"
        ))),
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ServerCertVerifier for Current {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let verifier = &self.now().verifier;
        verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.now().verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.now().verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().verifier.supported_verify_schemes()
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.now().identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.now().identity.is_some()
    }
}
