//! The bytes of Go Kratos, and what is accepted and refused.

use proptest::prelude::*;

use super::*;

/// Captured from go-kratos v2.9.2 with its etcd registry: key and value of two registrations.
const FULL: &str = r#"{"id":"5f8d-1","name":"helloworld","version":"v1.0.0","metadata":{"q":"a\u0026b\u003cc\u003eé","weight":"10","zone":"sh001"},"endpoints":["http://127.0.0.1:8000","grpc://127.0.0.1:9000"]}"#;
const BARE: &str = r#"{"id":"x","name":"helloworld-admin","version":"","metadata":null,"endpoints":null}"#;

fn full() -> ServiceInstance {
    ServiceInstance {
        id: "5f8d-1".into(),
        name: "helloworld".into(),
        version: "v1.0.0".into(),
        metadata: [("zone", "sh001"), ("weight", "10"), ("q", "a&b<c>é")]
            .into_iter()
            .collect(),
        endpoints: ["http://127.0.0.1:8000".into(), "grpc://127.0.0.1:9000".into()].into(),
        since: None,
    }
}

#[test]
fn the_bytes_are_those_of_go_kratos() {
    assert_eq!(full().to_json(), FULL);
    let bare = ServiceInstance {
        id: "x".into(),
        name: "helloworld-admin".into(),
        ..ServiceInstance::default()
    };
    assert_eq!(bare.to_json(), BARE);
}

#[test]
fn what_go_kratos_writes_is_read_back() {
    assert_eq!(ServiceInstance::from_json(FULL.as_bytes()).unwrap(), full());
    assert!(ServiceInstance::from_json(BARE.as_bytes()).unwrap().metadata.is_empty());
}

#[test]
fn characters_are_escaped_as_go_does() {
    let instance = ServiceInstance {
        version: "\u{8}\u{c}\n\r\t\u{1}\"\\\u{2028}\u{2029}\u{7f}é".into(),
        ..ServiceInstance::default()
    };
    let expected = r#""version":"\b\f\n\r\t\u0001\"\\\u2028\u2029"#;
    let json = instance.to_json();
    assert!(json.contains(expected), "{json}");
    assert!(json.contains("\u{7f}é\""), "{json}");
}

#[test]
fn any_order_unknown_keys_null_and_empty_are_accepted() {
    let read = |json: &str| ServiceInstance::from_json(json.as_bytes());
    let a = read(r#" {"extra":[1,{"x":null}],"endpoints":[],"metadata":{},"name":"n","id":"i"} "#).unwrap();
    let b = read(r#"{"id":"i","name":"n","version":null,"metadata":null,"endpoints":null}"#).unwrap();
    assert_eq!(a, b);
    let null = read(r#"{"name":"n","metadata":{"zone":null},"endpoints":[null]}"#).unwrap();
    assert_eq!((null.metadata.get("zone"), &*null.endpoints[0]), (Some(""), ""));
    let last = read(r#"{"id":"first","id":"last","name":"n","metadata":{"k":"1","k":"2"}}"#).unwrap();
    assert_eq!((&*last.id, last.metadata.get("k")), ("last", Some("2")));
}

#[test]
fn what_go_refuses_is_refused_with_the_reason() {
    let refused = |json: &str, reason: &str| {
        let error = ServiceInstance::from_json(json.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{json}: {error}");
    };
    refused("not-json", "not JSON");
    refused("", "not JSON");
    refused("null", "expected a JSON object, got null");
    refused("[]", "expected a JSON object, got an array");
    refused(
        r#"{"metadata":{"weight":10}}"#,
        r#"metadata["weight"]: expected a string, got a number"#,
    );
    refused(r#"{"endpoints":"x"}"#, "endpoints: expected an array, got a string");
    refused(
        r#"{"endpoints":[true]}"#,
        "endpoints[0]: expected a string, got a boolean",
    );
    refused(&"[".repeat(100_000), "not JSON");
}

#[test]
fn the_metadata_codec_carries_the_bare_metadata() {
    let instance = full();
    let value = Codec::Metadata.encode(&instance);
    assert_eq!(value, r#"{"q":"a\u0026b\u003cc\u003eé","weight":"10","zone":"sh001"}"#);
    let read = Codec::Metadata
        .decode(&"helloworld".into(), "5f8d-1", value.as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!(
        (read.metadata, &*read.version, read.endpoints.len()),
        (instance.metadata, "", 0)
    );
}

#[test]
fn the_json_codec_carries_any_json_as_text() {
    let name = "orders".into();
    for text in [r#"{"host":"a","port":3000,"tags":[1]}"#, "null", "3", r#""x""#] {
        let read = Codec::Json.decode(&name, "a", text.as_bytes()).unwrap().unwrap();
        assert_eq!(
            (&*read.id, read.metadata.len(), read.metadata.get("")),
            ("a", 1, Some(text))
        );
        assert_eq!(Codec::Json.encode(&read), text);
    }
    assert_eq!(Codec::Json.encode(&ServiceInstance::default()), "null");
    assert!(Codec::Json.decode(&name, "a", b"{").is_err());
    assert!(Codec::Json.decode(&name, "a", b"\"\xff\"").is_err());
}

#[test]
fn a_record_of_another_name_under_the_same_textual_prefix_is_none_of_ours() {
    assert_eq!(
        Codec::Kratos.decode(&"orders".into(), "a/b", FULL.as_bytes()).unwrap(),
        None
    );
    let nameless = Codec::Kratos
        .decode(&"orders".into(), "a", br#"{"name":"orders"}"#)
        .unwrap()
        .unwrap();
    assert_eq!(&*nameless.id, "a", "a record without an id has that of its key");
}

#[test]
fn bad_instances_are_named_by_their_path() {
    let refused = |change: fn(&mut ServiceInstance), message: &str| {
        let mut instance = full();
        change(&mut instance);
        let error = instance.validate().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
        assert!(error.message().contains(message), "{error}");
    };
    full().validate().unwrap();
    refused(|i| i.name = "".into(), "instance.name: expected a service name");
    refused(|i| i.name = "a/b".into(), "instance.name: must not contain '/'");
    refused(
        |i| i.name = "a\nb".into(),
        "instance.name: must not contain control characters, got U+000A",
    );
    refused(|i| i.id = "a/b".into(), "instance.id: must not contain '/'");
    refused(
        |i| i.id = "x".repeat(513).into(),
        "instance.id: expected at most 512 bytes, got 513",
    );
    refused(
        |i| i.endpoints[1] = "not a url".into(),
        "instance.endpoints[1]: expected a URL",
    );
    refused(
        |i| i.endpoints[1] = "localhost:80".into(),
        "instance.endpoints[1]: expected a URL with a host",
    );
    refused(
        |i| i.endpoints[0] = "http://h:70000".into(),
        "instance.endpoints[0]: expected a URL",
    );
    refused(|i| i.endpoints[0] = "grpc://h:0".into(), "port 0");
    refused(|i| i.endpoints[0] = " grpc://h:1".into(), "must not begin or end");
    refused(|i| i.endpoints[0] = "grpc://h:1 ".into(), "must not begin or end");
    refused(|i| i.endpoints[0] = "http:h:1".into(), "right after \"://\"");
    refused(|i| i.endpoints[0] = "http:///h:1".into(), "right after \"://\"");
    refused(|i| i.endpoints[0] = "http:\\\\h:1".into(), "right after \"://\"");
    refused(
        |i| i.endpoints = vec!["http://h".into(); 65].into(),
        "instance.endpoints: expected at most 64",
    );
    refused(
        |i| i.metadata = [("k", "x".repeat(2 << 20))].into_iter().collect(),
        "instance: the record is",
    );
    refused(
        |i| i.metadata = (0..10_000).map(|n| (n.to_string(), "")).collect(),
        "instance.metadata: expected at most 1024 keys, got 10000",
    );
}

proptest! {
    #[test]
    fn every_instance_survives_the_round_trip(
        id in any::<String>(),
        name in any::<String>(),
        version in any::<String>(),
        metadata in prop::collection::hash_map(any::<String>(), any::<String>(), 0..8),
        endpoints in prop::collection::vec(any::<String>(), 0..4),
    ) {
        let instance = ServiceInstance {
            id: id.into(),
            name: name.into(),
            version: version.into(),
            metadata: metadata.into_iter().collect(),
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            since: None,
        };
        let json = instance.to_json();
        prop_assert_eq!(ServiceInstance::from_json(json.as_bytes()).unwrap(), instance);
    }

    #[test]
    fn no_bytes_whatsoever_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = ServiceInstance::from_json(&bytes);
        let _ = Codec::Metadata.decode(&"n".into(), "i", &bytes);
    }

    #[test]
    fn no_endpoint_whatsoever_makes_the_check_panic(endpoint in "\\PC{0,64}|[a-z]{1,5}://[\\[\\]a-z0-9:@/.*]{0,20}") {
        let _ = crate::advertise::reachable("e", &endpoint, Some("10.0.0.1"));
        let _ = ServiceInstance { name: "n".into(), id: "i".into(), endpoints: [endpoint.into()].into(), ..Default::default() }.validate();
    }
}
