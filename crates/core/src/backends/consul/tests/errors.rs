//! The rarer ends: each says which agent it was and what it is about. What an agent would answer then, a stub answers.

use futures::StreamExt as _;

use super::*;
use crate::backend::{Backend as _, Follow, Intent, Presence};
use crate::backends::consul::ConsulBackend;
use crate::error::Error;
use crate::log::Log;

/// What the stub answers: of a method and a path the first of these whose words they hold, else 200 with `{}`.
type Script = &'static [(&'static str, u16, &'static str)];

const FREE: &str = r#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#;
const OTHERS: &str = r#"{"AggregatedStatus":"passing","Service":{},"Checks":[{"CheckID":"service:a","ServiceID":"a","Status":"passing","Notes":"rollcall:ffffffffffffffff-550e8400-e29b-41d4-a716-446655440000:1"}]}"#;
const UNMARKED: &str = r#"{"AggregatedStatus":"passing","Service":{},"Checks":[]}"#;
const LOOK: &str = "GET /v1/agent/health/service/id/a";
const LIST: &str = "GET /v1/health/service/orders";
const TWINS: &str = "GET /v1/agent/services";

async fn agent(script: Script) -> ConsulBackend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut index = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut asked = vec![0; 4096];
            let read = socket.read(&mut asked).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
            let found = script.iter().find(|(words, ..)| asked.starts_with(words));
            let (status, body) = found.map_or((200, "{}"), |(_, status, body)| (*status, *body));
            // Each answer but the first is of an index that went back.
            index = if index == 0 { 100 } else { 50 };
            let answer = format!(
                "HTTP/1.1 {status} x\r\nconnection: close\r\nx-consul-index: {index}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    let options = ConsulOptions {
        hosts: vec![host],
        health_check: HealthCheck::Off,
        timeout: Duration::from_secs(1),
        ..ConsulOptions::default()
    };
    ConsulBackend::new(options, Log::default()).unwrap()
}

fn orders() -> ServiceInstance {
    ServiceInstance {
        id: "a".into(),
        name: "orders".into(),
        ..ServiceInstance::default()
    }
}

async fn publish(script: Script, intent: Intent) -> (Error, ConsulBackend) {
    let backend = agent(script).await;
    let mut presence = backend.presence("orders", "a").unwrap();
    let error = presence.publish(&orders(), intent).await.unwrap_err();
    (error, backend)
}

/// The error is of this kind, in these words, of the agent, and about `key`.
fn is(error: &Error, backend: &ConsulBackend, kind: ErrorKind, words: &str, key: Option<&str>) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(words), "{words} in {error}");
    assert_eq!(
        (error.endpoint(), error.key()),
        (backend.endpoint().as_deref(), key),
        "{error}"
    );
    assert!(error.endpoint().unwrap().starts_with("http://127.0.0.1:"));
}

#[tokio::test]
async fn what_ends_a_publication_names_the_agent_and_the_instance() {
    use ErrorKind::{PermissionDenied, Replaced, Unavailable};
    let seen_by_nobody: Script = &[(LOOK, 404, FREE), (LIST, 200, "[]"), (TWINS, 200, "{}")];
    let cases: [(Script, Intent, ErrorKind, &str); 6] = [
        (
            &[(LOOK, 200, OTHERS)],
            Intent::Keep,
            Replaced,
            "belongs to a newer registration",
        ),
        (
            &[(LOOK, 404, FREE), ("PUT /v1/agent/check/update", 404, "Unknown check")],
            Intent::Claim,
            Unavailable,
            "deregistered by someone else",
        ),
        (
            &[
                (LOOK, 404, FREE),
                ("PUT /v1/agent/service/register", 403, "Permission denied"),
            ],
            Intent::Claim,
            PermissionDenied,
            "policy = \"write\"",
        ),
        (
            &[
                (LOOK, 404, FREE),
                (LIST, 200, "[]"),
                (TWINS, 200, r#"{"A":{"ID":"A","Service":"orders"}}"#),
            ],
            Intent::Claim,
            Unavailable,
            "had to go first",
        ),
        (seen_by_nobody, Intent::Claim, Unavailable, "removed or written over"),
        (
            &[(LOOK, 200, UNMARKED), (LIST, 500, "No cluster leader")],
            Intent::Claim,
            Unavailable,
            "No cluster leader",
        ),
    ];
    for (script, intent, kind, words) in cases {
        let (error, backend) = publish(script, intent).await;
        is(&error, &backend, kind, words, Some("orders/a"));
    }
    let (error, _) = publish(
        &[
            (LOOK, 404, FREE),
            ("PUT /v1/agent/service/register", 403, "Permission denied"),
        ],
        Intent::Claim,
    )
    .await;
    assert!(error.message().contains("answered 403: Permission denied"), "{error}");
}

#[tokio::test]
async fn what_is_not_seen_in_time_says_where() {
    // The stub holds it for as long as it is asked, and lists it never.
    let backend = agent(&[(LIST, 200, "[]")]).await;
    let options = ConsulOptions {
        hosts: backend.shared.options.hosts.clone(),
        heartbeat: false,
        health_check: HealthCheck::Off,
        timeout: Duration::from_millis(400),
        ..ConsulOptions::default()
    };
    let backend = ConsulBackend::new(options, Log::default()).unwrap();
    let record = Record::new(Arc::clone(&backend.shared), "orders", "a");
    let error = record.seen(0, &orders(), 1, Intent::Keep).await.unwrap_err();
    let words = "not visible: the catalog does not have it yet";
    is(
        &record.named(error),
        &backend,
        ErrorKind::Unavailable,
        words,
        Some("orders/a"),
    );
}

#[tokio::test]
async fn a_withdrawal_that_is_refused_names_the_agent_and_the_instance() {
    let script: Script = &[(LOOK, 500, "No cluster leader"), (LIST, 200, "[]")];
    let backend = agent(script).await;
    let mut presence = ConsulPresence::new(Arc::clone(&backend.shared), "orders", "a");
    presence.record.lock().written.push((0, tokio::time::Instant::now()));
    let error = presence.withdraw().await.unwrap_err();
    is(
        &error,
        &backend,
        ErrorKind::Unavailable,
        "No cluster leader",
        Some("orders/a"),
    );
}

#[tokio::test]
async fn first_contact_names_the_agent() {
    const LEADER: &str = "GET /v1/status/leader";
    let cases: [(Script, &str); 3] = [
        (&[(LEADER, 200, "\"\"")], "no leader"),
        (&[(LEADER, 200, "{}")], "none of Consul's"),
        (&[(LEADER, 200, "<html>")], "something else than Consul does"),
    ];
    for (script, words) in cases {
        let backend = agent(script).await;
        let error = backend.contact().await.unwrap_err();
        is(&error, &backend, ErrorKind::Unavailable, words, None);
    }
}

const ENTRY: &str = r#"[{"Node":{"Address":"n"},"Service":{"ID":"a","Service":"orders","Address":"h","Port":80}}]"#;

#[tokio::test]
async fn what_ends_a_stream_names_the_agent_and_the_name() {
    let Follow::Stream(mut lists) = agent(&[(LIST, 500, "No cluster leader")]).await.follow("orders") else {
        panic!("a stream");
    };
    let error = lists.next().await.unwrap().unwrap_err();
    assert_eq!(error.key(), Some("orders"));
    assert!(error.endpoint().is_some());

    let script: Script = &[
        ("GET /v1/health/service/orders?passing=1&&consistent", 200, "[]"),
        (LIST, 200, ENTRY),
    ];
    let backend = agent(script).await;
    let Follow::Stream(mut lists) = backend.follow("orders") else {
        panic!("a stream");
    };
    lists.next().await.unwrap().unwrap();
    let error = lists.next().await.unwrap().unwrap_err();
    is(
        &error,
        &backend,
        ErrorKind::Unavailable,
        "index went back",
        Some("orders"),
    );
}

#[tokio::test]
async fn an_agent_that_falls_silent_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // whose connections nobody serves
    let options = ConsulOptions {
        hosts: vec![listener.local_addr().unwrap().to_string()],
        timeout: Duration::from_millis(200),
        ..ConsulOptions::default()
    };
    let backend = ConsulBackend::new(options, Log::default()).unwrap();
    let error = backend.fetch("orders").await.unwrap_err();
    is(
        &error,
        &backend,
        ErrorKind::Timeout,
        "did not answer within",
        Some("orders"),
    );
    let over = backend.shared.lives.of(&backend.shared.agents, 0);
    drop(listener);
    let error = over.over().await;
    is(
        &error,
        &backend,
        ErrorKind::Unavailable,
        "does not answer any more",
        None,
    );
}
