//! TLS as it should be, and every way in which it is not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rollcall_core::ErrorKind;
use rollcall_core::backend::{Backend as _, Intent};
use rollcall_core::backends::etcd::{EtcdBackend, EtcdRecords};
use rollcall_core::etcd::{EtcdOptions, TlsOptions};
use rollcall_core::log::Log;

use crate::support::{etcd, instance, options, presence_of, registry, temporary_folder, within};

/// Certificates of one authority: `ca`, `server`, `client`, each `.pem` and `.key`.
struct Certificates(PathBuf);

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Certificates {
    fn make() -> Self {
        let folder = temporary_folder();
        openssl(
            &folder,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority",
        );
        for (name, alt) in [("server", "IP:127.0.0.1,DNS:etcd.test"), ("client", "DNS:client.test")] {
            openssl(
                &folder,
                &format!(
                    "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
                ),
            );
            std::fs::write(folder.join("ext"), format!("subjectAltName={alt}\n")).unwrap();
            openssl(
                &folder,
                &format!(
                    "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile ext"
                ),
            );
        }
        Self(folder)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.0.join(file)).unwrap()
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let status = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the test needs openssl");
    assert!(status.success(), "openssl {arguments}");
}

fn backend(address: &str, tls: Option<TlsOptions>) -> EtcdBackend {
    let options = EtcdOptions {
        tls,
        timeout: Duration::from_secs(4),
        ..options(&[address])
    };
    registry(options, 3)
}

#[tokio::test]
async fn tls_with_client_certificates() {
    let certificates = Certificates::make();
    let (cert, key, ca) = (
        format!("--cert-file={}", certificates.path("server.pem")),
        format!("--key-file={}", certificates.path("server.key")),
        format!("--trusted-ca-file={}", certificates.path("ca.pem")),
    );
    let server = etcd!(&cert, &key, &ca, "--client-cert-auth");
    let right = TlsOptions {
        ca: Some(certificates.read("ca.pem")),
        cert: Some(certificates.read("client.pem")),
        key: Some(certificates.read("client.key")),
        ..TlsOptions::default()
    };
    let good = backend(&server.address(), Some(right.clone()));
    within(10, "contact", good.contact()).await.unwrap();
    let mut presence = presence_of(&good, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    presence.withdraw().await.unwrap();

    let named = TlsOptions {
        server_name: Some("etcd.test".to_owned()),
        ..right.clone()
    };
    backend(&server.address(), Some(named)).contact().await.unwrap();

    for (wrong, words) in [
        (
            TlsOptions {
                ca: None,
                ..right.clone()
            },
            "not trusted",
        ),
        (
            TlsOptions {
                server_name: Some("other.test".to_owned()),
                ..right.clone()
            },
            "not trusted",
        ),
        (
            TlsOptions {
                cert: None,
                key: None,
                ..right.clone()
            },
            "",
        ),
    ] {
        let error = within(10, "an error", backend(&server.address(), Some(wrong)).contact())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains(words), "{error:?}");
    }

    // Plain text to a TLS port.
    let error = within(10, "an error", backend(&server.address(), None).contact())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("is the server TLS"), "{error:?}");
}

#[tokio::test]
async fn tls_to_a_plain_port() {
    let server = etcd!();
    let tls = Some(TlsOptions::default());
    let error = within(10, "an error", backend(&server.address(), tls).contact())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("is the server TLS"), "{error:?}");
}

#[test]
fn a_certificate_that_is_none_is_refused_by_name() {
    for (tls, path) in [
        (
            TlsOptions {
                ca: Some(b"x".to_vec()),
                ..TlsOptions::default()
            },
            "options.tls.ca",
        ),
        (
            TlsOptions {
                cert: Some(b"x".to_vec()),
                ..TlsOptions::default()
            },
            "options.tls",
        ),
        (
            TlsOptions {
                cert: Some(b"x".to_vec()),
                key: Some(b"y".to_vec()),
                ..TlsOptions::default()
            },
            "options.tls.cert",
        ),
    ] {
        let options = EtcdOptions {
            tls: Some(tls),
            ..EtcdOptions::default()
        };
        let error = EtcdBackend::new(options, &EtcdRecords::default(), Log::default())
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(path), "{error}");
    }
}
