//! The form of what is written and read, without a server. What the servers do, the conformance suite and the tests of
//! faults see.

use std::sync::Arc;

use super::BilibiliBackend;
use super::options::BilibiliOptions;
use super::record::{Entry, Info, Raw, Writing, check_instance, form, key, names, registration, snapshot};
use crate::backend::Backend as _;
use crate::error::ErrorKind;
use crate::instance::ServiceInstance;
use crate::log::Log;

fn options() -> BilibiliOptions {
    BilibiliOptions {
        zone: "zone1".to_owned(),
        env: "dev".to_owned(),
        region: "sh".to_owned(),
        ..BilibiliOptions::default()
    }
}

fn instance() -> ServiceInstance {
    ServiceInstance {
        id: "5f8d-1".into(),
        name: "helloworld".into(),
        version: "v1.0.0".into(),
        metadata: [("color", "gray")].into_iter().collect(),
        endpoints: ["http://127.0.0.1:8000", "grpc://127.0.0.1:9000"].map(Box::from).into(),
        since: None,
    }
}

/// What Kratos's own registry sends, captured.
const CAPTURED: &str = "addrs=http%3A%2F%2F127.0.0.1%3A8000&addrs=grpc%3A%2F%2F127.0.0.1%3A9000&appid=helloworld&env=dev&hostname=host-1&metadata=%7B%22color%22%3A%22gray%22%2C%22kratos.v2.serviceinstance.id%22%3A%225f8d-1%22%7D&region=sh&status=1&version=v1.0.0&zone=zone1";

#[test]
fn a_registration_is_kratos_but_for_the_host_name_and_whose_it_is() {
    let writing = Writing {
        owner: "me",
        generation: 3,
        dirty: 7,
        status: 1,
    };
    let expected = CAPTURED
        .replace("hostname=host-1", "hostname=5f8d-1")
        .replace("&env=dev", "&dirty_timestamp=7&env=dev")
        .replace("5f8d-1%22%7D", "5f8d-1%22%2C%22rollcall.owner%22%3A%22me%3A3%22%7D");
    assert_eq!(registration(&options(), &instance(), &writing), expected);
    assert_eq!(
        key(&options(), "helloworld", "5f8d-1"),
        "appid=helloworld&env=dev&hostname=5f8d-1&region=sh&zone=zone1"
    );
}

#[test]
fn text_is_encoded_as_go_does() {
    assert_eq!(form(&[("a", "b c+d*e~f-g_h.i/ä")]), "a=b+c%2Bd%2Ae~f-g_h.i%2F%C3%A4");
}

/// What a node answers, as the real one does for a record of Kratos's and one that a peer told it of.
const ANSWERED: &str = r#"{"instances":{
    "zone1":[
        {"region":"sh","zone":"zone1","env":"dev","appid":"helloworld","hostname":"host-1","addrs":["http://127.0.0.1:8000"],"version":"v1.0.0","metadata":{"a":"b","kratos.v2.serviceinstance.id":"5f8d-1"},"status":1,"reg_timestamp":1,"up_timestamp":1,"renew_timestamp":1,"dirty_timestamp":1,"latest_timestamp":1},
        {"region":"","zone":"zone1","env":"dev","appid":"helloworld","hostname":"host-2","addrs":["http://a:1,grpc://b:2"],"version":"","metadata":null,"status":1,"dirty_timestamp":2},
        {"region":"","zone":"zone1","env":"dev","appid":"helloworld","hostname":"out","addrs":null,"version":"","metadata":null,"status":2,"dirty_timestamp":2},
        {"region":"","zone":"zone1","env":"world-dev","appid":"hello","hostname":"other","addrs":null,"version":"","metadata":null,"status":1,"dirty_timestamp":2},
        {"zone":"zone1","env":"dev","appid":"helloworld","hostname":"bad","metadata":{"a":1},"status":1}
    ],
    "zone2":[{"zone":"zone2","env":"dev","appid":"helloworld","hostname":"far","addrs":["tcp://c:3"],"status":1}],
    "zone3":null
},"latest_timestamp":5}"#;

fn read(options: &BilibiliOptions) -> (Vec<String>, usize) {
    let info: Info<Entry> = serde_json::from_str(ANSWERED).unwrap();
    let list = snapshot(options, &"helloworld".into(), info);
    let shown = |one: &Arc<ServiceInstance>| format!("{} {} {:?}", one.id, one.version, one.endpoints);
    (list.instances.iter().map(shown).collect(), list.bad.len())
}

#[test]
fn a_list_is_that_of_the_own_zone_with_addresses_taken_apart_and_nobody_elses_records() {
    let own = [
        r#"5f8d-1 v1.0.0 ["http://127.0.0.1:8000"]"#,
        r#"host-2  ["http://a:1", "grpc://b:2"]"#,
    ];
    assert_eq!(read(&options()), (own.map(str::to_owned).to_vec(), 1));
    let mut elsewhere = options();
    elsewhere.zone = "zone3".to_owned();
    assert_eq!(read(&elsewhere), (vec![], 0));
    elsewhere.zone_fallback = true;
    assert_eq!(read(&elsewhere).0.len(), 3);
    let mut with_fallback = options();
    with_fallback.zone_fallback = true;
    assert_eq!(read(&with_fallback).0.len(), 2, "the own zone has some");
}

#[test]
fn names_are_those_of_which_something_would_be_listed() {
    let list = |zone: &str, status: u32, app: &str| {
        Some(vec![
            serde_json::from_value::<Raw>(
                serde_json::json!({ "zone": zone, "env": "dev", "appid": app, "status": status }),
            )
            .unwrap(),
        ])
    };
    let all = || {
        [
            ("near", list("zone1", 1, "near")),
            ("far", list("zone2", 1, "far")),
            ("out", list("zone1", 2, "out")),
            ("infra.discovery", list("zone1", 1, "infra.discovery")),
            ("none", None),
        ]
        .map(|(name, list)| (name.to_owned(), list))
        .into()
    };
    assert_eq!(names(&options(), all()), ["near"]);
    let mut with_fallback = options();
    with_fallback.zone_fallback = true;
    assert_eq!(names(&with_fallback, all()), ["far", "near"]);
}

#[test]
fn what_can_not_be_held_is_refused_by_its_path() {
    let refused = |change: fn(&mut ServiceInstance)| {
        let mut one = instance();
        change(&mut one);
        check_instance(&one).unwrap_err().message().to_owned()
    };
    assert!(check_instance(&instance()).is_ok());
    assert!(refused(|one| one.endpoints[1] = "grpc://a:1/x,y".into()).starts_with("instance.endpoints[1]: "));
    assert!(refused(|one| one.name = "infra.discovery".into()).starts_with("instance.name: "));
    assert!(
        refused(|one| one.metadata = [("rollcall.owner", "x")].into_iter().collect())
            .starts_with("instance.metadata[\"rollcall.owner\"]: ")
    );
}

#[test]
fn options_that_can_not_be_right_are_refused_by_their_path() {
    type Change = fn(&mut BilibiliOptions);
    let cases: [(Change, &str); 5] = [
        (|options| options.zone.clear(), "options.zone: "),
        (|options| options.env.clear(), "options.env: "),
        (|options| options.env = "a\nb".to_owned(), "options.env: "),
        (|options| options.hosts.clear(), "options.hosts: "),
        (
            |options| options.hosts = vec!["https://a:1".to_owned()],
            "options.hosts: ",
        ),
    ];
    for (change, path) in cases {
        let mut options = options();
        change(&mut options);
        let error = BilibiliBackend::new(options, Log::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(path), "{error}");
    }
}

#[test]
fn a_host_without_a_port_has_that_of_discovery() {
    let mut options = options();
    options.hosts = vec!["discovery.internal".to_owned(), "[::1]:80".to_owned()];
    let backend = BilibiliBackend::new(options, Log::default()).unwrap();
    assert_eq!(backend.endpoint().as_deref(), Some("http://discovery.internal:7171"));
}
