use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::agents::{Agents, Answer};
use super::options::{ConsulOptions, HealthCheck};
use super::presence::ConsulPresence;
use super::record::{self, Mark};
use super::service::Record;
use crate::http::segment;
use crate::instance::ServiceInstance;
use crate::{ErrorKind, Result};

mod errors;

fn instance(endpoints: &[&str]) -> ServiceInstance {
    ServiceInstance {
        id: "5f8d-1".into(),
        name: "helloworld".into(),
        version: "v1.0.0".into(),
        metadata: [("zone", "a")].into_iter().collect(),
        endpoints: endpoints.iter().map(|e| Box::from(*e)).collect(),
        since: None,
    }
}

fn mark() -> Mark {
    Mark {
        order: None,
        owner: "me".to_owned(),
        generation: 7,
    }
}

fn body(instance: &ServiceInstance, options: &ConsulOptions) -> String {
    record::body(instance, options, &mark(), record::PASSING)
}

fn list(name: &str, body: &str) -> Result<Vec<Arc<ServiceInstance>>> {
    let answer = Answer::of(200, body);
    record::read_list(&name.into(), &answer).map(|snapshot| snapshot.instances)
}

/// Captured from Go Kratos against a stub server.
const CAPTURE: &str = r#"{"ID":"5f8d-1","Name":"helloworld","Tags":["version=v1.0.0"],"Port":8000,"Address":"127.0.0.1","TaggedAddresses":{"grpc":{"Address":"grpc://127.0.0.1:9000","Port":9000},"http":{"Address":"http://127.0.0.1:8000","Port":8000}},"Meta":{"zone":"a"},"Check":null,"Checks":[{"Interval":"10s","Timeout":"5s","TCP":"127.0.0.1:8000","DeregisterCriticalServiceAfter":"600s"},{"Interval":"10s","Timeout":"5s","TCP":"127.0.0.1:9000","DeregisterCriticalServiceAfter":"600s"},{"CheckID":"service:5f8d-1","TTL":"20s","DeregisterCriticalServiceAfter":"600s"}]}"#;

#[test]
fn the_body_is_that_of_kratos_but_for_the_status_of_the_checks_and_the_mark() {
    let written = body(
        &instance(&["http://127.0.0.1:8000", "grpc://127.0.0.1:9000"]),
        &ConsulOptions::default(),
    );
    assert_eq!(written.matches(r#""Status":"passing","#).count(), 3);
    let ours = r#""Notes":"rollcall:me:7","#;
    assert_eq!(written.matches(ours).count(), 1);
    assert_eq!(written.replace(r#""Status":"passing","#, "").replace(ours, ""), CAPTURE);
}

#[test]
fn what_is_empty_is_left_out_as_go_does() {
    let bare = ServiceInstance {
        id: "x".into(),
        name: "n".into(),
        ..ServiceInstance::default()
    };
    let options = ConsulOptions {
        heartbeat: false,
        ..ConsulOptions::default()
    };
    assert_eq!(
        body(&bare, &options),
        r#"{"ID":"x","Name":"n","Tags":["version="],"Check":null,"Checks":null}"#
    );
}

#[test]
fn options_add_tags_weights_and_checks_of_the_protocol() {
    let options = ConsulOptions {
        tags: vec!["blue & green".to_owned()],
        weights: Some((10, 1)),
        health_check: HealthCheck::Http,
        health_check_path: "/healthz".to_owned(),
        heartbeat: false,
        ..ConsulOptions::default()
    };
    let written = body(&instance(&["https://[::1]:8443/api?x=1", "grpcs://h:1"]), &options);
    for part in [
        r#""Tags":["version=v1.0.0","blue \u0026 green"],"Port":8443,"Address":"::1""#,
        r#""Weights":{"Passing":10,"Warning":1},"Check":null"#,
        r#"{"Interval":"10s","Timeout":"5s","HTTP":"https://[::1]:8443/healthz","Status":"passing","DeregisterCriticalServiceAfter":"600s"}"#,
        r#""TCP":"h:1","Status":"passing""#,
    ] {
        assert!(written.contains(part), "{part} in {written}");
    }
    let options = ConsulOptions {
        health_check: HealthCheck::Grpc,
        ..options
    };
    let written = body(&instance(&["http://h", "grpcs://h:1"]), &options);
    for part in [
        r#""TCP":"h:80""#,
        r#""Status":"passing","GRPC":"h:1","GRPCUseTLS":true"#,
    ] {
        assert!(written.contains(part), "{part} in {written}");
    }
    assert_eq!(record::duration(std::time::Duration::from_millis(1500)), "1500ms");
}

#[test]
fn the_written_body_is_read_back_with_its_endpoints_in_the_order_of_their_schemes() {
    let entry = r#"[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"5f8d-1","Service":"helloworld","Tags":["blue","version=v1.0.0"],"Address":"127.0.0.1","Port":8000,"Meta":{"zone":"a"},"TaggedAddresses":{"http":{"Address":"http://127.0.0.1:8000","Port":8000},"grpc":{"Address":"grpc://127.0.0.1:9000","Port":9000},"lan_ipv4":{"Address":"127.0.0.1","Port":8000}}},"Checks":[{"CheckID":"service:5f8d-1","Status":"passing","Notes":"rollcall:me:7"}]}]"#;
    let read = list("helloworld", entry).unwrap();
    assert_eq!(*read[0], instance(&["grpc://127.0.0.1:9000", "http://127.0.0.1:8000"]));
    let given = instance(&["http://127.0.0.1:8000", "grpc://127.0.0.1:9000"]);
    assert_eq!(record::as_read(&given), *read[0]);
    assert_eq!(list("HelloWorld", entry).unwrap(), [], "case counts");
}

#[test]
fn foreign_instances_are_read_at_their_address_or_that_of_their_node() {
    let entry = |service: &str| {
        let text = format!(
            r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"x","Service":"n",{service}}},"Checks":null}}]"#
        );
        list("n", &text).unwrap().remove(0)
    };
    let own = entry(
        r#""Tags":null,"Meta":null,"Address":"fe80::1","Port":80,"TaggedAddresses":{"lan":{"Address":"1.2.3.4","Port":1},"other":{"Address":"not a url"}}"#,
    );
    assert_eq!(*own.endpoints, ["http://[fe80::1]:80".into()]);
    assert_eq!((&*own.version, own.metadata.len()), ("", 0));
    assert_eq!(
        *entry(r#""Address":"","Port":80"#).endpoints,
        ["http://10.0.0.1:80".into()]
    );
    assert!(entry(r#""Address":"10.0.0.9","Port":0"#).endpoints.is_empty());
}

#[test]
fn what_consul_would_refuse_is_refused_with_the_pair_or_endpoint_it_is() {
    let refused = |instance: &ServiceInstance, words: &str| {
        let error = record::check_instance(instance).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(words), "{words} in {error}");
    };
    let with = |key: &str, value: &str| ServiceInstance {
        metadata: [(key, value)].into_iter().collect(),
        ..instance(&[])
    };
    refused(&with("a.b", "1"), "a.b");
    refused(&with("", "1"), "metadata[\"\"]");
    refused(&with("consul-x", "1"), "consul-x");
    refused(&with("k", &"x".repeat(600)), "512 bytes, got 600");
    refused(&instance(&["http://a:1", "grpc://a:2", "HTTP://b:1"]), "endpoints[2]");
    let many = ServiceInstance {
        metadata: (0..65).map(|i| (i.to_string(), "")).collect(),
        ..instance(&[])
    };
    refused(&many, "at most 64");
    refused(&instance(&["http://a:1", "lan://a:2"]), "endpoints[1]");
    refused(
        &ServiceInstance {
            name: "Consul".into(),
            ..instance(&[])
        },
        "instance.name",
    );
    assert!(record::check_instance(&with("k_-9Z", &"x".repeat(512))).is_ok());
    let error = record::check_instance(&with(&"k".repeat(9000), "")).unwrap_err();
    assert!(error.message().len() < 300, "{error}");
}

#[test]
fn a_mark_is_read_back_and_nothing_else_is_one() {
    assert_eq!(Mark::parse(&mark().to_string()), Some(mark()));
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    for order in [None, Some(0), Some(0x19c_ffff_ffff), Some(u64::MAX)] {
        let mark = Mark {
            order,
            owner: uuid.to_owned(),
            generation: 1,
        };
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
    }
    for notes in ["", "rollcall", "rollcall:", "rollcall:me", "rollcall:me:x", "by hand"] {
        assert_eq!(Mark::parse(notes), None, "{notes}");
    }
}

#[test]
fn an_answer_that_is_none_of_consuls_is_a_typed_error() {
    for body in ["<html>", "", "[{\"Node\":", "{}", "[1]", "\"x\""] {
        let error = list("n", body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{body}");
    }
    assert_eq!(list("n", "null").unwrap(), []);
    let kind = |status, body: &str| Answer::of(status, body).refusal("x").kind();
    assert_eq!(kind(403, "ACL not found"), ErrorKind::Unauthenticated);
    assert_eq!(kind(403, "Permission denied: token …"), ErrorKind::PermissionDenied);
    assert_eq!(
        kind(500, "rpc error making call: Permission denied"),
        ErrorKind::PermissionDenied
    );
    assert_eq!(kind(500, "No cluster leader"), ErrorKind::Unavailable);
    assert_eq!(kind(429, ""), ErrorKind::Unavailable);
    assert_eq!(kind(302, ""), ErrorKind::Unavailable);
    assert_eq!(kind(400, "Failed to parse filter"), ErrorKind::InvalidArgument);
}

#[test]
fn words_of_paths_are_encoded() {
    assert_eq!(segment("ä & b?c#d%2F/.~"), "%C3%A4%20%26%20b%3Fc%23d%252F%2F.~");
}

#[test]
fn an_agent_that_failed_is_asked_last() {
    let options = ConsulOptions {
        hosts: vec!["a:1".to_owned(), "http://b".to_owned(), "unix:///c".to_owned()],
        ..ConsulOptions::default()
    };
    let agents = Agents::new(&options, &crate::log::Log::default()).unwrap();
    assert_eq!(["a:1", "b:8500", "/c"], [0, 1, 2].map(|agent| agents.host(agent)));
    let order = || agents.order(None).collect::<Vec<_>>();
    assert_eq!(order(), [0, 1, 2]);
    agents.failed(0);
    agents.failed(0);
    assert_eq!(order(), [1, 2, 0]);
    assert_eq!(agents.order(Some(2)).collect::<Vec<_>>(), [2, 0, 1]);
}

/// An agent that sends its answer in `pieces`, 400 ms apart, and nothing after them.
async fn telling_agent(pieces: u32) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".as_slice();
                let _ = socket.write_all(head).await;
                for _ in 0..pieces {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    let _ = socket.write_all(b"x").await;
                }
                std::future::pending::<()>().await;
            });
        }
    });
    host
}

#[tokio::test]
async fn an_answer_that_is_coming_has_more_than_its_share_of_the_time() {
    let agents = async |pieces| {
        let options = ConsulOptions {
            hosts: vec![telling_agent(pieces).await, telling_agent(5).await],
            timeout: Duration::from_secs(3),
            ..ConsulOptions::default()
        };
        Agents::new(&options, &crate::log::Log::default()).unwrap()
    };
    let path = "/v1/agent/self";
    // Two seconds for it, where each of two agents has one and a half.
    let (agent, answer) = agents(5).await.read(path).await.unwrap();
    assert_eq!((agent, answer.body.len()), (0, 5));
    // It stops in the middle: the next one is asked.
    let (agent, answer) = agents(1).await.read(path).await.unwrap();
    assert_eq!((agent, answer.body.len()), (1, 5));
}

#[test]
fn bad_options_are_named() {
    for (options, named) in [
        (
            ConsulOptions {
                hosts: vec!["http://".to_owned()],
                ..ConsulOptions::default()
            },
            "options.hosts",
        ),
        (
            ConsulOptions {
                hosts: Vec::new(),
                ..ConsulOptions::default()
            },
            "options.hosts",
        ),
        (
            ConsulOptions {
                token: Some("a b".to_owned()),
                ..ConsulOptions::default()
            },
            "options.token",
        ),
    ] {
        let error = super::ConsulBackend::new(options, crate::log::Log::default())
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains(named), "{error}");
    }
}

#[test]
fn an_entry_that_cannot_be_read_is_a_bad_record_and_the_others_stand() {
    let good = r#"{"Node":{"Address":"n"},"Service":{"ID":"good","Service":"a","Address":"h","Port":80}}"#;
    let service =
        |fields: &str| format!(r#"{{"Node":{{"Address":"n"}},"Service":{{"Service":"a","Address":"h",{fields}}}}}"#);
    let mut hostile = vec![
        (service(r#""ID":"x","Port":70000"#), "x"),
        (service(r#""ID":"x","Port":-1"#), "x"),
        (service(r#""ID":"x","Port":1e30"#), "x"),
        (service(r#""ID":7"#), "a[0]"),
        (service(r#""Port":1"#), "a[0]"),
    ];
    for field in ["Tags", "Meta", "Port", "TaggedAddresses"] {
        hostile.push((service(&format!(r#""ID":"x","{field}":"text""#)), "x"));
    }
    hostile.push((service(r#""ID":"x","Tags":[1]"#), "x"));
    hostile.push((service(r#""ID":"x","Meta":{"k":{}}"#), "x"));
    hostile.push((service(r#""ID":"x","TaggedAddresses":{"http":{"Address":[]}}"#), "x"));
    for entry in ["{}", r#"{"Service":null}"#, r#"{"Node":3,"Service":[]}"#] {
        hostile.push((entry.to_owned(), "a[0]"));
    }
    for (entry, key) in hostile {
        let answer = Answer::of(200, &format!("[{entry},{good}]"));
        let snapshot = record::read_list(&"a".into(), &answer).unwrap();
        assert_eq!(snapshot.instances.len(), 1, "{entry}");
        assert_eq!(&*snapshot.instances[0].id, "good");
        let bad: Vec<&str> = snapshot.bad.iter().map(|bad| &*bad.key).collect();
        assert_eq!(bad, [key], "{entry}");
        assert!(!snapshot.bad[0].reason.is_empty());
    }
    // A bad entry of a name that differs in case is nothing to the readers of this one.
    let other = r#"[{"Node":{},"Service":{"ID":"x","Service":"A","Tags":1}}]"#;
    let snapshot = record::read_list(&"a".into(), &Answer::of(200, other)).unwrap();
    assert!(snapshot.instances.is_empty() && snapshot.bad.is_empty());
}

#[test]
fn of_one_instance_at_several_agents_the_newest_record_is_listed() {
    let record = |mark: Option<(u64, u64)>, endpoint: &str, version: &str| {
        let owner = "d40f1c51-26a4-4f7c-9a3b-5a2f0bd0b1a1";
        let notes = mark.map_or_else(String::new, |(order, generation)| {
            let order = Some(order);
            let owner = owner.to_owned();
            Mark {
                order,
                owner,
                generation,
            }
            .to_string()
        });
        format!(
            r#"{{"Node":{{}},"Service":{{"ID":"x","Service":"a","Tags":["version={version}"],"TaggedAddresses":{{"grpc":{{"Address":"{endpoint}"}}}}}},"Checks":[{{"CheckID":"service:x","Status":"passing","Notes":"{notes}"}}]}}"#
        )
    };
    let (here, there) = ("grpc://10.0.0.1:9000", "grpc://10.0.0.2:9000");
    let versions = |records: &[String]| -> Vec<String> {
        let mut found = list("a", &format!("[{}]", records.join(","))).unwrap();
        found.sort_by(|a, b| a.version.cmp(&b.version));
        found.iter().map(|instance| instance.version.to_string()).collect()
    };
    let older = record(Some((7, 3)), here, "b-older");
    let newer = record(Some((8, 1)), here, "c-newer");
    let newest = record(Some((8, 2)), here, "a-newest");
    assert_eq!(versions(&[newest.clone(), older.clone(), newer.clone()]), ["a-newest"]);
    assert_eq!(versions(&[older.clone(), newer, newest.clone()]), ["a-newest"]);
    // At other addresses it is another place to call; and of one that somebody else wrote nobody knows how old it is.
    let elsewhere = record(Some((1, 1)), there, "e-elsewhere");
    let foreign = record(None, here, "d-foreign");
    assert_eq!(
        versions(&[older, elsewhere, foreign, newest]),
        ["a-newest", "d-foreign", "e-elsewhere"]
    );
}
