//! The way to a cluster: where its API is, whom to believe there, and who we are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use tower::layer::layer_fn;
use url::Url;

use super::super::options::KubernetesOptions;
use super::auth::{Auth, Origin};
use super::kubeconfig::{self, Meant, Text};
use crate::error::{Error, Result};
use crate::http::{Refreshed, innermost};
use crate::log::Log;
use crate::tls::{Tls, TlsOptions};

/// Where a pod finds what it may do.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Connections that are kept for the next call, and for how long.
const IDLE: (usize, Duration) = (8, Duration::from_secs(60));
/// The namespace where nothing names one.
const DEFAULT: &str = "default";

pub(super) struct Access {
    /// `https://host:6443`, without a slash at its end.
    pub base: String,
    pub http: Client,
    pub auth: Auth,
    /// The namespace of the own pod, or of the context.
    pub namespace: String,
}

/// Finds the way. Blocks: it reads files.
pub(super) fn find(options: &KubernetesOptions, log: &Log) -> Result<Access> {
    let mut meant = meant(options)?;
    if let Some(path) = &options.ca_file {
        meant.ca = Some(Text::File(path.clone()));
    }
    let origin = if let Some(token) = &options.token {
        Origin::Given(token.clone())
    } else if let Some(path) = options.token_file.clone().or(meant.token_file) {
        Origin::File(path)
    } else if let Some(token) = meant.token {
        Origin::Given(token)
    } else if let Some(exec) = meant.exec {
        Origin::Plugin(Arc::new(exec))
    } else {
        Origin::Nowhere
    };
    let base = base(&meant.server)?;
    let given = options.namespace.clone().filter(|namespace| namespace != "*");
    Ok(Access {
        http: client(options, &base, [meant.ca, meant.cert, meant.key], log)?,
        base,
        auth: Auth::new(origin, log.clone()),
        namespace: given.or(meant.namespace).unwrap_or_else(|| DEFAULT.to_owned()),
    })
}

fn meant(options: &KubernetesOptions) -> Result<Meant> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(server) = &options.server {
        let server = server.clone();
        return Ok(Meant {
            server,
            ..Meant::default()
        });
    }
    let context = options.context.as_deref();
    if let Some(path) = &options.kubeconfig {
        return kubeconfig::read(std::slice::from_ref(path), context);
    }
    if context.is_none()
        && let Some((host, port)) = set("KUBERNETES_SERVICE_HOST").zip(set("KUBERNETES_SERVICE_PORT"))
    {
        return Ok(around(&host, &port));
    }
    let paths: Vec<PathBuf> = match set("KUBECONFIG") {
        Some(paths) => std::env::split_paths(&paths)
            .filter(|path| !path.as_os_str().is_empty())
            .collect(),
        None => set("HOME")
            .map(|home| Path::new(&home).join(".kube/config"))
            .into_iter()
            .collect(),
    };
    if paths.is_empty() || (paths.len() == 1 && !paths[0].exists()) {
        return Err(Error::invalid(
            "options.server: this process runs in no cluster (KUBERNETES_SERVICE_HOST is not set), and there is no kubeconfig at \
             ~/.kube/config or where KUBECONFIG says: give server, or kubeconfig",
        ));
    }
    kubeconfig::read(&paths, context)
}

/// The cluster that this process runs in.
fn around(host: &str, port: &str) -> Meant {
    let account = Path::new(ACCOUNT);
    let namespace = std::fs::read_to_string(account.join("namespace")).unwrap_or_default();
    let host = super::super::pods::host(host);
    Meant {
        server: format!("https://{host}:{port}"),
        ca: Some(Text::File(account.join("ca.crt"))),
        token_file: Some(account.join("token")),
        namespace: Some(namespace.trim().to_owned()).filter(|namespace| !namespace.is_empty()),
        ..Meant::default()
    }
}

fn base(server: &str) -> Result<String> {
    let wrong = |why: &str| Error::invalid(format!("options.server: expected \"https://host:6443\", {why}"));
    let url = if server.contains("://") {
        server.to_owned()
    } else {
        format!("https://{server}")
    };
    let url = Url::parse(&url).map_err(|error| wrong(&format!("got {server:?} ({error})")))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong(&format!("got {server:?}")));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("without a user, \"?\" or \"#\""));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn client(options: &KubernetesOptions, base: &str, texts: [Option<Text>; 3], log: &Log) -> Result<Client> {
    let mut files = [None, None, None];
    let mut bytes = [None, None, None];
    for (i, text) in texts.into_iter().enumerate() {
        match text {
            None => {}
            Some(Text::Here(text)) => bytes[i] = Some(text),
            Some(Text::File(path)) => {
                let read = std::fs::read(&path).map_err(|error| {
                    let what = ["caFile", "kubeconfig: client-certificate", "kubeconfig: client-key"][i];
                    Error::invalid(format!("options.{what}: can't read {}: {error}", path.display()))
                })?;
                (bytes[i], files[i]) = (Some(read), Some(path));
            }
        }
    }
    let ([ca, cert, key], [ca_file, cert_file, key_file]) = (bytes, files);
    let given = TlsOptions {
        ca,
        cert,
        key,
        server_name: None,
        ca_file,
        cert_file,
        key_file,
    };
    let mut http = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(IDLE.0)
        .pool_idle_timeout(IDLE.1);
    if base.starts_with("http://") {
        http = http.tls_backend_preconfigured(crate::crypto::none()?);
    } else {
        let tls = Tls::new(&given, log.clone()).map_err(|error| {
            let message = error.message().replace("options.tls.ca:", "options.caFile:");
            Error::invalid(message.replace("options.tls", "options.kubeconfig"))
        })?;
        // HTTP/1.1 alone: a watch has a connection to itself, so a call that is not answered closes none.
        http = http
            .tls_backend_preconfigured(tls.config(&[b"http/1.1"]))
            .connector_layer(layer_fn(move |inner| Refreshed::new(inner, tls.clone())));
    }
    http.build().map_err(|error| {
        let inner = innermost(&error).to_string();
        Error::invalid(format!("options: no HTTP client can be made of them: {inner}"))
    })
}
