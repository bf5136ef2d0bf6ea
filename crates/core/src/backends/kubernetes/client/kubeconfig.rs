//! Kubeconfig files: which cluster a context means, and as whom.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::exec::Exec;
use crate::error::{Error, Result};
use crate::http::or_null;

/// More than any has.
const LARGEST: u64 = 8 * 1024 * 1024;

/// What a context comes to.
#[derive(Default)]
pub(super) struct Meant {
    pub server: String,
    pub ca: Option<Text>,
    pub cert: Option<Text>,
    pub key: Option<Text>,
    pub namespace: Option<String>,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub exec: Option<Exec>,
}

/// A PEM text, or the file that it stands in.
pub(super) enum Text {
    Here(Vec<u8>),
    File(PathBuf),
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    #[serde(deserialize_with = "or_null")]
    current_context: String,
    #[serde(deserialize_with = "or_null")]
    contexts: Vec<Context>,
    #[serde(deserialize_with = "or_null")]
    clusters: Vec<Cluster>,
    #[serde(deserialize_with = "or_null")]
    users: Vec<User>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    name: String,
    context: ContextOf,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ContextOf {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cluster {
    name: String,
    #[serde(rename = "cluster")]
    means: ClusterOf,
    /// The folder of its file.
    #[serde(skip)]
    of: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct ClusterOf {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    name: String,
    #[serde(rename = "user", deserialize_with = "or_null")]
    means: UserOf,
    #[serde(skip)]
    of: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct UserOf {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    #[serde(rename = "as")]
    impersonated: Option<String>,
    auth_provider: Option<serde::de::IgnoredAny>,
    exec: Option<Exec>,
}

/// What the context of these files means; a name that stands in two counts as it stands in the first. Blocks.
pub(super) fn read(paths: &[PathBuf], context: Option<&str>) -> Result<Meant> {
    let mut all = File::default();
    let mut shown = Vec::new();
    let mut absent = None;
    for path in paths {
        let text = match text(path) {
            Ok(text) => text,
            // Of several that a variable names, some may be missing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && paths.len() > 1 => {
                absent = Some((path, error));
                continue;
            }
            Err(error) => return Err(unread(path, &error)),
        };
        shown.push(path.display().to_string());
        let file: File = serde_yaml_ng::from_str(&text).map_err(|error| {
            // The text of the error may show what stands there; where it stands tells enough.
            let at = error.location();
            let at = at.map_or_else(String::new, |at| {
                format!(" (line {}, column {})", at.line(), at.column())
            });
            Error::invalid(format!(
                "options.kubeconfig: {} is not a kubeconfig, which is YAML with contexts, clusters and users{at}",
                path.display()
            ))
        })?;
        take(&mut all, file, path.parent().unwrap_or_else(|| Path::new("")));
    }
    if let Some((path, error)) = absent.filter(|_| shown.is_empty()) {
        return Err(unread(path, &error));
    }
    mean(&all, context, &shown.join(", "))
}

fn unread(path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(format!(
        "options.kubeconfig: can't read {}: {error}; give the path of a kubeconfig, or server",
        path.display()
    ))
}

fn text(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > LARGEST {
        return Err(std::io::Error::other(format!(
            "{size} bytes are more than a kubeconfig has"
        )));
    }
    std::fs::read_to_string(path)
}

fn take(all: &mut File, mut file: File, of: &Path) {
    for cluster in &mut file.clusters {
        of.clone_into(&mut cluster.of);
    }
    for user in &mut file.users {
        of.clone_into(&mut user.of);
    }
    if all.current_context.is_empty() {
        all.current_context = file.current_context;
    }
    all.contexts.append(&mut file.contexts);
    all.clusters.append(&mut file.clusters);
    all.users.append(&mut file.users);
}

fn mean(all: &File, context: Option<&str>, shown: &str) -> Result<Meant> {
    let name = context.unwrap_or(&all.current_context);
    let known = || {
        let names: Vec<_> = all.contexts.iter().map(|context| context.name.as_str()).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    if name.is_empty() {
        let known = known();
        return Err(Error::invalid(format!(
            "options.context: {shown} has no current-context; name one of its contexts: {known}"
        )));
    }
    let lacks = |what: &str, name: &str, known: &str| {
        Error::invalid(format!("options.context: {shown} has no {what} {name:?}{known}"))
    };
    let context = all.contexts.iter().find(|context| context.name == name);
    let context = &context
        .ok_or_else(|| lacks("context", name, &format!(", but: {}", known())))?
        .context;
    let cluster = all.clusters.iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.ok_or_else(|| lacks("cluster", &context.cluster, ""))?;
    let user = all.users.iter().find(|user| user.name == context.user);
    let user = match user {
        Some(user) => Some(user),
        None if context.user.is_empty() => None,
        None => return Err(lacks("user", &context.user, "")),
    };
    let Cluster { means: cluster, of, .. } = cluster;
    let cannot = |what: &str, instead: &str| {
        Err(Error::invalid(format!(
            "options.kubeconfig: {shown} asks for {what}, which is not supported: {instead}"
        )))
    };
    if cluster.insecure_skip_tls_verify == Some(true) {
        return cannot(
            "insecure-skip-tls-verify",
            "give the certificate-authority of the cluster",
        );
    }
    if cluster.proxy_url.as_deref().is_some_and(|url| !url.is_empty()) {
        return cannot("proxy-url", "give a server that can be reached");
    }
    if cluster.tls_server_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return cannot("tls-server-name", "give a server by a name of its certificate");
    }
    let mut meant = Meant {
        server: cluster.server.clone(),
        ca: pick(
            "certificate-authority-data",
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_ref(),
            of,
        )?,
        namespace: context.namespace.clone().filter(|namespace| !namespace.is_empty()),
        ..Meant::default()
    };
    if let Some(User { means: user, of, .. }) = user {
        if user.impersonated.is_some() {
            return cannot("impersonation (as)", "take a user of its own");
        }
        if user.auth_provider.is_some() {
            return cannot("an auth-provider", "Kubernetes has replaced it by exec plug-ins");
        }
        if user.username.is_some() {
            return cannot(
                "a user name and password",
                "servers have not taken them since 1.19; give a token",
            );
        }
        let cert = (
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_ref(),
        );
        let key = (user.client_key_data.as_deref(), user.client_key.as_ref());
        meant.cert = pick("client-certificate-data", cert.0, cert.1, of)?;
        meant.key = pick("client-key-data", key.0, key.1, of)?;
        meant.token = user.token.clone().filter(|token| !token.trim().is_empty());
        meant.token_file = user.token_file.as_ref().map(|path| of.join(path));
        meant.exec = user.exec.clone().map(|exec| exec.of(of));
    }
    Ok(meant)
}

/// What stands in the file counts before the name of another.
fn pick(name: &str, data: Option<&str>, path: Option<&PathBuf>, of: &Path) -> Result<Option<Text>> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let data: String = data.split_ascii_whitespace().collect();
        let data = STANDARD
            .decode(data)
            .map_err(|_| Error::invalid(format!("options.kubeconfig: {name}: expected base64")))?;
        return Ok(Some(Text::Here(data)));
    }
    let path = path.filter(|path| !path.as_os_str().is_empty());
    Ok(path.map(|path| Text::File(of.join(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, context: Option<&str>) -> Result<Meant> {
        let mut all = File::default();
        let file = serde_yaml_ng::from_str(text).map_err(|error| Error::invalid(error.to_string()))?;
        take(&mut all, file, Path::new("/etc/kube"));
        mean(&all, context, "f")
    }

    const WHOLE: &str = "
apiVersion: v1
kind: Config
current-context: one
contexts:
- name: one
  context: {cluster: c, user: u, namespace: shop}
- name: two
  context: {cluster: c, user: nobody}
clusters:
- name: c
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority: ca.crt}
users:
- name: u
  user: {tokenFile: token, client-key-data: aGk=}
";

    #[test]
    fn a_context_is_a_cluster_and_a_user_and_its_files_lie_beside_it() {
        let meant = read_text(WHOLE, None).unwrap_or_default();
        assert_eq!(meant.server, "https://10.0.0.1:6443");
        assert_eq!(meant.namespace.as_deref(), Some("shop"));
        assert_eq!(meant.token_file, Some(PathBuf::from("/etc/kube/token")));
        assert!(matches!(meant.ca, Some(Text::File(path)) if path == Path::new("/etc/kube/ca.crt")));
        assert!(matches!(meant.key, Some(Text::Here(bytes)) if bytes == b"hi"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let why = |text: &str, context| read_text(text, context).err().map(|error| error.message().to_owned());
        let absent = why(WHOLE, Some("zz")).unwrap_or_default();
        assert!(absent.contains("no context \"zz\", but: one, two"), "{absent}");
        let nobody = why(WHOLE, Some("two")).unwrap_or_default();
        assert!(nobody.contains("no user \"nobody\""), "{nobody}");
        assert!(
            why("contexts: null", None)
                .unwrap_or_default()
                .contains("current-context")
        );
    }
}
