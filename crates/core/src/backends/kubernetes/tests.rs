//! Records, slices and the lines of a watch.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::lines::{LONGEST, Lines, TooLong};
use super::model::Meta;
use super::options::KubernetesOptions;
use super::pods;
use super::store::{Kind, Store};
use crate::backend::Snapshot;
use crate::instance::ServiceInstance;

fn put(store: &mut Store, kind: Kind, options: &KubernetesOptions, object: &Value) -> Vec<String> {
    let mut changed = HashSet::new();
    let text = RawValue::from_string(object.to_string()).expect("JSON");
    store.put(kind, options, &text, &mut changed);
    changed.iter().map(ToString::to_string).collect()
}

fn read(kind: Kind, options: &KubernetesOptions, objects: &[Value]) -> Snapshot {
    let mut store = Store::default();
    for object in objects {
        put(&mut store, kind, options, object);
    }
    let mut snapshot = store.snapshot(options, &"orders".into());
    snapshot.instances.sort_by(|a, b| a.id.cmp(&b.id));
    snapshot
}

fn endpoints(snapshot: &Snapshot) -> Vec<String> {
    let each = snapshot.instances.iter();
    each.map(|instance| format!("{} {}", instance.id, instance.endpoints.join(" ")))
        .collect()
}

/// A pod that takes calls, with more labels and annotations.
fn pod(annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": "p1", "namespace": "t", "uid": "u1", "resourceVersion": "7", "managedFields": [{}],
            "labels": { "kratos-service-app": "orders", "kratos-service-id": "a", "kratos-service-version": "v1" },
            "annotations": annotations,
        },
        "spec": { "containers": [{ "ports": [
            { "name": "http-main", "containerPort": 8000, "protocol": "TCP" }, { "containerPort": 7000, "protocol": "TCP" },
        ] }] },
        "status": {
            "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }, { "ip": "fd00::3" }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

#[test]
fn a_pod_of_kratos_has_an_endpoint_for_each_port() {
    let options = KubernetesOptions::default();
    let of_kratos = json!({
        "kratos-service-metadata": " {\"zone\":\"a\"}\n", "kratos-service-protocols": "{\"7000\":\"grpc\",\"9000\":\"http\"}",
    });
    let snapshot = read(Kind::Pods, &options, &[pod(&of_kratos)]);
    let instance = &snapshot.instances[0];
    assert_eq!((&*instance.id, &*instance.version), ("a", "v1"));
    assert_eq!(instance.metadata.get("zone"), Some("a"));
    let expected = ["a grpc://10.1.2.3:7000 http://10.1.2.3:8000 http://10.1.2.3:9000"];
    assert_eq!(endpoints(&snapshot), expected);

    let ipv6 = KubernetesOptions {
        prefers_ipv6: true,
        ..options.clone()
    };
    for none in ["", " null\n", "nil", "{}", "[]"] {
        let empty = json!({ "kratos-service-metadata": none, "kratos-service-protocols": none });
        let snapshot = read(Kind::Pods, &ipv6, &[pod(&empty)]);
        assert_eq!(
            endpoints(&snapshot),
            ["a tcp://[fd00::3]:7000 http://[fd00::3]:8000"],
            "{none:?}"
        );
    }
}

#[test]
fn what_takes_no_calls_is_left_out_unless_it_is_asked_for() {
    let options = KubernetesOptions::default();
    let changed = |pointer: &str, value: Value| {
        let mut pod = pod(&Value::Null);
        let (parent, key) = pointer.rsplit_once('/').expect("a path");
        pod.pointer_mut(parent).expect("an object")[key] = value;
        pod
    };
    let unready = changed("/status/conditions", json!([{ "type": "Ready", "status": "False" }]));
    let ending = changed("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    let ended = changed("/status/phase", json!("Succeeded"));
    let removed = changed(
        "/metadata/labels",
        json!({ "kratos-service-app": "", "kratos-service-id": "" }),
    );
    for pod in [&unready, &ending, &ended, &removed] {
        let snapshot = read(Kind::Pods, &options, std::slice::from_ref(pod));
        assert!(snapshot.instances.is_empty() && snapshot.bad.is_empty(), "{pod}");
    }
    let all = KubernetesOptions {
        not_ready: true,
        terminating: true,
        ..options
    };
    for (pod, count) in [(&unready, 1), (&ending, 1), (&ended, 0), (&removed, 0)] {
        assert_eq!(
            read(Kind::Pods, &all, std::slice::from_ref(pod)).instances.len(),
            count,
            "{pod}"
        );
    }
}

#[test]
fn one_bad_record_breaks_no_list() {
    let options = KubernetesOptions::default();
    let good = pod(&Value::Null);
    let bad = |annotations: Value| {
        let mut bad = pod(&annotations);
        bad["metadata"]["name"] = json!("p2");
        let snapshot = read(Kind::Pods, &options, &[good.clone(), bad]);
        assert_eq!((snapshot.instances.len(), snapshot.bad.len()), (1, 1), "{annotations}");
        assert_eq!(snapshot.bad[0].key, "pod t/p2");
        snapshot.bad[0].reason.clone()
    };
    assert!(bad(json!({ "kratos-service-metadata": "{" })).contains("kratos-service-metadata"));
    assert!(bad(json!({ "kratos-service-metadata": "{\"a\":1}" })).contains("expected a string"));
    assert!(bad(json!({ "kratos-service-protocols": "{\"x\":\"http\"}" })).contains("expected a port"));
    // Not even the shape of a pod.
    let odd = json!({
        "metadata": { "name": "p3", "namespace": "t", "labels": { "kratos-service-app": "orders" } }, "spec": { "containers": 7 },
    });
    assert_eq!(read(Kind::Pods, &options, &[odd]).bad.len(), 1);
    let no_pod = json!({ "metadata": 5 });
    assert!(read(Kind::Pods, &options, &[no_pod]).bad.is_empty());
}

fn registered() -> ServiceInstance {
    ServiceInstance {
        id: "a".into(),
        name: "orders".into(),
        version: "v1".into(),
        metadata: [("zone", "a<b")].into_iter().collect(),
        endpoints: [
            "grpc://orders.example:9000".into(),
            "http://10.9.9.9:8000/x?isSecure=true".into(),
        ]
        .into(),
        since: None,
    }
}

/// Applies a patch as the server does, as far as ours go. `None`: one of its tests fails.
fn patched(mut object: Value, patch: &Value) -> Option<Value> {
    for op in patch.as_array()? {
        let at = op["path"].as_str()?;
        let (parent, key) = at.rsplit_once('/')?;
        match op["op"].as_str()? {
            "test" if object.pointer(at) == Some(&op["value"]) => {}
            "add" => object.pointer_mut(parent)?[key] = op["value"].clone(),
            "remove" => drop(object.pointer_mut(parent)?.as_object_mut()?.remove(key)?),
            _ => return None,
        }
    }
    Some(object)
}

fn head(object: &Value) -> Meta {
    serde_json::from_value(object["metadata"].clone()).expect("metadata")
}

#[test]
fn an_instance_is_written_as_kratos_reads_it_and_read_back_whole() {
    let options = KubernetesOptions::default();
    let mut bare = pod(&Value::Null);
    bare["metadata"]["labels"] = json!({ "app": "x" });
    let written = patched(bare.clone(), &pods::publishing(&head(&bare), &registered())).expect("every test holds");
    let annotations = &written["metadata"]["annotations"];
    assert_eq!(
        annotations["kratos-service-metadata"],
        json!("{\"zone\":\"a\\u003cb\"}")
    );
    assert_eq!(
        annotations["kratos-service-protocols"],
        json!("{\"8000\":\"http\",\"9000\":\"grpc\"}")
    );
    assert_eq!(written["metadata"]["labels"]["app"], json!("x"));
    let snapshot = read(Kind::Pods, &options, std::slice::from_ref(&written));
    assert_eq!(*snapshot.instances[0], registered());

    // Another program that labels the pod leaves the endpoints of ours.
    let mut others = written.clone();
    others["metadata"]["labels"]["kratos-service-id"] = json!("b");
    assert_eq!(
        endpoints(&read(Kind::Pods, &options, &[others])),
        ["b tcp://10.1.2.3:7000 http://10.1.2.3:8000 grpc://10.1.2.3:9000"]
    );

    let removed = patched(written.clone(), &pods::withdrawing(&head(&written))).expect("every test holds");
    assert_eq!(removed["metadata"]["labels"], json!({ "app": "x" }));
    assert_eq!(removed["metadata"]["annotations"], json!({}));
}

#[test]
fn a_write_that_comes_late_undoes_nothing() {
    let mut bare = pod(&Value::Null);
    bare["metadata"]["labels"] = json!({});
    let late = pods::publishing(&head(&bare), &registered());
    let first = patched(bare.clone(), &late).expect("every test holds");
    let mut moved = first.clone();
    moved["metadata"]["resourceVersion"] = json!("8");
    assert_eq!(patched(moved.clone(), &late), None, "it was written already");

    let newer = ServiceInstance {
        version: "v2".into(),
        ..registered()
    };
    let late = pods::publishing(&head(&moved), &registered());
    let second = patched(moved.clone(), &pods::publishing(&head(&moved), &newer)).expect("every test holds");
    assert_eq!(patched(second, &late), None, "it was updated since");
    let removed = patched(moved.clone(), &pods::withdrawing(&head(&moved))).expect("every test holds");
    assert_eq!(patched(removed, &late), None, "it was removed since");
    moved["metadata"]["uid"] = json!("u2");
    assert_eq!(patched(moved, &late), None, "it is another pod");
}

#[test]
fn what_a_label_cannot_hold_is_refused_by_its_name() {
    let with = |id: &str, version: &str| {
        let instance = ServiceInstance {
            id: id.into(),
            version: version.into(),
            ..registered()
        };
        pods::check(&instance).err().map(|error| error.message().to_owned())
    };
    assert_eq!(with("a.b_c-9", ""), None);
    for id in ["a/b", "-a", "a-", "é", "a b", &"x".repeat(64)] {
        assert!(with(id, "").is_some_and(|why| why.starts_with("instance.id: ")), "{id}");
    }
    assert!(with("a", "1.0 beta").is_some_and(|why| why.starts_with("instance.version: ")));
    let large = ServiceInstance {
        metadata: [("a", "x".repeat(256 * 1024))].into_iter().collect(),
        ..registered()
    };
    assert!(pods::check(&large).is_err_and(|error| error.message().starts_with("instance.metadata: ")));
}

fn slice(name: &str, kind: &str, version: &str, endpoints: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "t", "resourceVersion": version, "labels": { "kubernetes.io/service-name": "orders" },
        },
        "addressType": kind,
        "ports": [{ "name": "grpc-main", "port": 9000 }, { "name": "", "port": 80, "appProtocol": "http" }, { "name": "any" }],
        "endpoints": endpoints,
    })
}

#[test]
fn an_endpoint_is_ready_unless_it_says_otherwise() {
    let endpoint = |ip: &str, conditions: Value| json!({ "addresses": [ip, "10.0.0.99"], "conditions": conditions });
    let all = slice(
        "s",
        "IPv4",
        "1",
        &json!([
            { "addresses": ["10.0.0.1"], "zone": "z1", "nodeName": "n1", "targetRef": { "name": "p1", "uid": "u1" } },
            endpoint("10.0.0.2", json!({})),
            endpoint("10.0.0.3", json!({ "ready": false })),
            endpoint("10.0.0.4", json!({ "ready": false, "serving": true, "terminating": true })),
            endpoint("10.0.0.5", json!({ "ready": false, "serving": false, "terminating": true })),
            { "addresses": [] },
        ]),
    );
    let options = KubernetesOptions::default();
    let snapshot = read(Kind::Slices, &options, std::slice::from_ref(&all));
    assert_eq!(
        endpoints(&snapshot),
        [
            "10.0.0.2 grpc://10.0.0.2:9000 http://10.0.0.2:80",
            "p1 grpc://10.0.0.1:9000 http://10.0.0.1:80"
        ]
    );
    let metadata = &snapshot.instances[1].metadata;
    assert_eq!((metadata.get("zone"), metadata.get("node")), (Some("z1"), Some("n1")));

    let ids = |options: &KubernetesOptions| {
        let snapshot = read(Kind::Slices, options, std::slice::from_ref(&all));
        snapshot
            .instances
            .iter()
            .map(|instance| instance.id.to_string())
            .collect::<Vec<_>>()
    };
    let terminating = KubernetesOptions {
        terminating: true,
        ..options.clone()
    };
    assert_eq!(ids(&terminating), ["10.0.0.2", "10.0.0.4", "p1"]);
    let not_ready = KubernetesOptions {
        not_ready: true,
        ..options.clone()
    };
    assert_eq!(ids(&not_ready), ["10.0.0.2", "10.0.0.3", "p1"]);
    let port = KubernetesOptions {
        port_name: Some("grpc-main".to_owned()),
        ..options
    };
    assert_eq!(
        endpoints(&read(Kind::Slices, &port, &[all]))[1],
        "p1 grpc://10.0.0.1:9000"
    );
}

#[test]
fn the_slices_of_a_service_are_one_and_a_pod_counts_once() {
    let of = |ip: &str, uid: &str, ready: bool| json!({ "addresses": [ip], "conditions": { "ready": ready }, "targetRef": { "name": format!("p-{uid}"), "uid": uid } });
    let slices = [
        slice(
            "a",
            "IPv4",
            "5",
            &json!([
                of("10.0.0.1", "1", true),
                of("10.0.0.2", "2", true),
                of("10.0.0.3", "3", true)
            ]),
        ),
        slice(
            "b",
            "IPv6",
            "9",
            &json!([of("fd00::1", "1", true), of("fd00::4", "4", true)]),
        ),
        // 2 has moved here; 3 was not ready when it stood here before.
        slice("c", "IPv4", "6", &json!([of("10.0.0.2", "2", true)])),
        slice("d", "IPv4", "4", &json!([of("10.0.0.3", "3", false)])),
    ];
    let ports = |address: &str| format!("grpc://{address}:9000 http://{address}:80");
    let listed = |options: &KubernetesOptions| endpoints(&read(Kind::Slices, options, &slices));
    let expected: Vec<_> = [
        ("1", "10.0.0.1"),
        ("2", "10.0.0.2"),
        ("3", "10.0.0.3"),
        ("4", "[fd00::4]"),
    ]
    .map(|(uid, address)| format!("p-{uid} {}", ports(address)))
    .into();
    assert_eq!(listed(&KubernetesOptions::default()), expected);
    let ipv6 = KubernetesOptions {
        prefers_ipv6: true,
        ..KubernetesOptions::default()
    };
    assert_eq!(listed(&ipv6)[0], format!("p-1 {}", ports("[fd00::1]")));
}

#[test]
fn a_slice_of_another_kind_of_address_is_bad_and_the_others_stand() {
    let good = slice("a", "IPv4", "1", &json!([{ "addresses": ["10.0.0.1"] }]));
    let bad = slice("b", "IPv4", "1", &json!([{ "addresses": ["example.com"] }]));
    let unknown = slice("c", "IPv9", "1", &json!([]));
    let snapshot = read(Kind::Slices, &KubernetesOptions::default(), &[good, bad, unknown]);
    assert_eq!((snapshot.instances.len(), snapshot.bad.len()), (1, 2));
}

#[test]
fn a_change_that_is_none_of_ours_is_no_change() {
    let (options, mut store) = (KubernetesOptions::default(), Store::default());
    let mut pod = pod(&Value::Null);
    assert_eq!(put(&mut store, Kind::Pods, &options, &pod), ["orders"]);
    pod["metadata"]["resourceVersion"] = json!("8");
    pod["status"]["hostIP"] = json!("10.0.0.9");
    assert!(put(&mut store, Kind::Pods, &options, &pod).is_empty());
    pod["metadata"]["labels"]["kratos-service-app"] = json!("billing");
    let mut changed = put(&mut store, Kind::Pods, &options, &pod);
    changed.sort();
    assert_eq!(changed, ["billing", "orders"]);
    assert_eq!(store.names(&options), [Arc::from("billing")]);
}

#[test]
fn lines_are_cut_wherever_the_pieces_end_and_none_is_held_that_is_too_long() {
    let text = b"{\"a\":1}\n\n{\"b\":2}\r\n{\"c\"";
    for size in 1..text.len() {
        let (mut lines, mut cut) = (Lines::default(), Vec::new());
        for piece in text.chunks(size) {
            lines.push(piece);
            while let Some(line) = lines.next().expect("no line is long") {
                cut.push(String::from_utf8_lossy(line).trim().to_owned());
            }
        }
        assert_eq!(cut, ["{\"a\":1}", "{\"b\":2}"], "{size}");
        assert!(lines.is_half());
    }
    let mut lines = Lines::default();
    let piece = vec![b'x'; 64 * 1024];
    let pushed = (0..).take_while(|_| {
        lines.push(&piece);
        lines.next() != Err(TooLong)
    });
    assert_eq!(pushed.count(), LONGEST / piece.len());
}
