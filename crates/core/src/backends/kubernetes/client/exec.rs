//! Credential plug-ins of a kubeconfig: programs that print a token.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::http::{one_line, or_null};

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How much of what it prints is read.
const PRINTED: u64 = 1024 * 1024;
/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a plug-in is called.
#[derive(Deserialize, Clone, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Exec {
    api_version: String,
    command: String,
    #[serde(deserialize_with = "or_null")]
    args: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    env: Vec<Pair>,
}

#[derive(Deserialize, Clone)]
struct Pair {
    name: String,
    value: String,
}

/// What it prints.
#[derive(Deserialize)]
struct Credential {
    status: CredentialStatus,
}

#[derive(Deserialize)]
struct CredentialStatus {
    token: Option<String>,
}

impl Exec {
    /// The plug-in of a kubeconfig in this folder, to which a path is relative.
    pub(super) fn of(mut self, folder: &Path) -> Self {
        if self.command.contains('/') {
            self.command = folder.join(&self.command).display().to_string();
        }
        self
    }

    /// Runs it. Blocks, for 10 s at most. What it prints is never repeated: a token may be in it.
    pub(super) fn run(&self) -> Result<String> {
        let name = self.command.rsplit('/').next().unwrap_or_default();
        let failed = |why: &str| {
            Error::new(
                ErrorKind::Unauthenticated,
                format!("options.kubeconfig: the credential plug-in {name:?} {why}"),
            )
        };
        if self.command.is_empty() {
            return Err(failed("has no command: give users[].user.exec.command"));
        }
        let env: BTreeMap<_, _> = self.env.iter().map(|pair| (&pair.name, &pair.value)).collect();
        let info =
            json!({ "apiVersion": self.api_version, "kind": "ExecCredential", "spec": { "interactive": false } });
        let mut child = Command::new(&self.command)
            .args(&self.args)
            .envs(env)
            .env("KUBERNETES_EXEC_INFO", info.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(&format!("can't be started ({error}): is it installed, and in PATH?")))?;
        let (printed, complained) = (drained(child.stdout.take()), drained(child.stderr.take()));
        let Some(status) = ended(&mut child) else {
            return Err(failed(&format!("did not end within {} ms", LIMIT.as_millis())));
        };
        if !status.success() {
            let said = one_line(&complained());
            let ended = status
                .code()
                .map_or_else(|| "by a signal".to_owned(), |code| format!("with status {code}"));
            return Err(failed(&format!("ended {ended}: {said}")));
        }
        let Ok(credential) = serde_json::from_slice::<Credential>(&printed()) else {
            return Err(failed("printed no ExecCredential with a status"));
        };
        let token = credential.status.token.filter(|token| !token.trim().is_empty());
        token.ok_or_else(|| failed("printed no token, and client certificates of plug-ins are not supported"))
    }
}

/// Reads a pipe on a thread of its own, to a bound, and hands over what came until the plug-in has ended: a process that it
/// has left behind may hold the pipe open.
fn drained(pipe: Option<impl std::io::Read + Send + 'static>) -> impl FnOnce() -> Vec<u8> {
    let (told, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(PRINTED).read_to_end(&mut bytes); // what came counts
        }
        let _ = told.send(bytes); // nobody may want it any more
    });
    move || read.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
}

/// How it ended; killed, it has none.
fn ended(child: &mut Child) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            _ => {
                let _ = child.kill(); // it may have ended by now
                let _ = child.wait();
                return None;
            }
        }
    }
}
