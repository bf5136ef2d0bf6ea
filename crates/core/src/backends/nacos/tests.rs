//! What of an instance lies where, and what is read of it.

use std::collections::BTreeMap;

use super::client::{Host, List};
use super::merge::merge;
use super::options::NacosForm;
use super::record::{Form, Place, mark_of};
use crate::error::ErrorKind;
use crate::instance::ServiceInstance;
use crate::parts::Merged;

fn form(codec: NacosForm) -> Form {
    Form {
        codec,
        cluster: "DEFAULT".to_owned(),
        weight: 100.0,
    }
}

fn instance(endpoints: &[&str]) -> ServiceInstance {
    ServiceInstance {
        id: "a".into(),
        name: "orders".into(),
        version: "1.4.0".into(),
        metadata: [("weight", "30"), ("zone", "a")].into_iter().collect(),
        endpoints: endpoints.iter().map(|endpoint| (*endpoint).into()).collect(),
        since: None,
    }
}

fn lists(hosts: &[&BTreeMap<Place, Host>]) -> Vec<List> {
    let mut lists: BTreeMap<String, List> = BTreeMap::new();
    for ((service, ..), host) in hosts.iter().copied().flatten() {
        let list = lists.entry(service.clone()).or_default();
        list.service.clone_from(service);
        list.hosts.push(host.clone());
    }
    lists.into_values().collect()
}

fn read(of: &Form, hosts: &[&BTreeMap<Place, Host>]) -> Merged {
    merge(of, "DEFAULT_GROUP", &"orders".into(), &lists(hosts))
}

#[test]
fn each_endpoint_lies_in_the_service_of_its_scheme_as_kratos_has_it() {
    let of = form(NacosForm::Kratos);
    let written = instance(&["grpc://10.8.0.1:9000", "http://10.8.0.1:8000/", "tcp://[::1]:7"]);
    let hosts = of.write(&written, "o", 3).unwrap();
    let places: Vec<(&str, &str, u16)> = hosts
        .keys()
        .map(|(s, ip, port)| (s.as_str(), ip.as_str(), *port))
        .collect();
    assert_eq!(
        places,
        [
            ("orders", "::1", 7),
            ("orders.grpc", "10.8.0.1", 9000),
            ("orders.http", "10.8.0.1", 8000)
        ]
    );
    let grpc = &hosts[&("orders.grpc".to_owned(), "10.8.0.1".to_owned(), 9000)];
    assert_eq!(
        (grpc.get("kind"), grpc.get("version"), grpc.weight),
        (Some("grpc"), Some("1.4.0"), 30.0)
    );
    assert_eq!(
        (grpc.get("rollcall.n"), grpc.get("rollcall.endpoint")),
        (Some("1/3/3"), None)
    );
    let http = &hosts[&("orders.http".to_owned(), "10.8.0.1".to_owned(), 8000)];
    assert_eq!(http.get("rollcall.endpoint"), Some("http://10.8.0.1:8000/"));
    let merged = read(&of, &[&hosts]);
    assert!(merged.is_whole);
    assert_eq!(*merged.snapshot.instances[0], written);
}

#[test]
fn an_instance_without_endpoints_lies_where_nobody_calls_it() {
    for of in [form(NacosForm::Kratos), form(NacosForm::Plain)] {
        let written = instance(&[]);
        let hosts = of.write(&written, "o", 1).unwrap();
        let ((service, ip, _), host) = hosts.first_key_value().unwrap();
        assert_eq!((service.as_str(), host.weight, host.get("kind")), ("orders", 0.0, None));
        assert!(ip.starts_with("100::"), "{ip}");
        assert_eq!(*read(&of, &[&hosts]).snapshot.instances[0], written);
    }
}

#[test]
fn the_newest_owner_and_its_newest_writing_count_whatever_the_order() {
    let of = form(NacosForm::Kratos);
    let old = of.write(&instance(&["grpc://a:1", "http://a:2"]), "1", 9).unwrap();
    let new = of.write(&instance(&["grpc://b:1", "http://b:2"]), "2", 1).unwrap();
    let newer = of.write(&instance(&["grpc://c:1"]), "2", 2).unwrap();
    for order in [[&old, &new, &newer], [&newer, &new, &old], [&new, &newer, &old]] {
        let merged = read(&of, &order);
        assert_eq!(merged.snapshot.instances.len(), 1);
        assert_eq!(&*merged.snapshot.instances[0].endpoints, [Box::from("grpc://c:1")]);
        assert!(merged.is_whole);
    }
    let mut part = new.clone();
    part.pop_last();
    assert!(
        !read(&of, &[&old, &part]).is_whole,
        "the half of a new writing is waited for"
    );
}

#[test]
fn what_others_write_is_read_by_its_service_and_what_is_out_is_not() {
    let of = form(NacosForm::Kratos);
    let host = |weight: f64, metadata: &[(&str, &str)]| Host {
        ip: "10.0.0.1".to_owned(),
        port: 80,
        weight,
        healthy: true,
        enabled: true,
        cluster: "DEFAULT".to_owned(),
        metadata: metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    };
    let listed = |service: &str, host: Host| {
        let list = List {
            service: service.to_owned(),
            hosts: vec![host],
            group: String::new(),
            at_ms: 0,
            bad: Vec::new(),
        };
        let merged = merge(&of, "DEFAULT_GROUP", &"orders".into(), &[list]);
        merged.snapshot.instances.first().map(|instance| {
            let weight = instance.metadata.get("weight").map(str::to_owned);
            (instance.id.to_string(), instance.endpoints.join(","), weight)
        })
    };
    let go = [("kind", "grpc"), ("version", "v1"), ("weight", "30")];
    let id = "10.0.0.1#80#DEFAULT#DEFAULT_GROUP@@orders.grpc".to_owned();
    let grpc = "grpc://10.0.0.1:80".to_owned();
    assert_eq!(
        listed("orders.grpc", host(100.0, &go)),
        Some((id.clone(), grpc.clone(), Some("30".to_owned())))
    );
    // An operator's weight is the weight.
    assert_eq!(
        listed("orders.grpc", host(12.5, &go)),
        Some((id, grpc, Some("13".to_owned())))
    );
    assert_eq!(listed("orders.grpc", host(0.0, &go)), None);
    for (healthy, enabled) in [(false, true), (true, false)] {
        let out = Host {
            healthy,
            enabled,
            ..host(100.0, &go)
        };
        assert_eq!(listed("orders.grpc", out), None);
    }
    // Java's, under the name itself.
    let id = "10.0.0.1#80#DEFAULT#DEFAULT_GROUP@@orders".to_owned();
    assert_eq!(
        listed("orders", host(1.0, &[])),
        Some((id, "http://10.0.0.1:80".to_owned(), None))
    );
    // Another name, which ends like a scheme.
    let ours = [("rollcall.id", "a"), ("rollcall.n", "0/0/1")];
    assert_eq!(listed("orders.grpc", host(0.0, &ours)), None);
}

#[test]
fn what_nacos_can_not_hold_is_refused_by_its_name() {
    let of = form(NacosForm::Kratos);
    let refused = |instance: &ServiceInstance, path: &str| {
        let error = of.check(instance).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(path), "{error}");
    };
    let named = |name: &str| ServiceInstance {
        name: name.into(),
        ..instance(&[])
    };
    for name in ["a b", "订单", "@a", "a@@b", "a@", &"l".repeat(507)] {
        refused(&named(name), "instance.name: ");
    }
    of.check(&named(&"l".repeat(506))).unwrap();
    let with = |key: &str, value: &str| ServiceInstance {
        metadata: [(key, value)].into_iter().collect(),
        ..instance(&["grpc://10.0.0.1:1"])
    };
    for key in ["kind", "version", "rollcall.id"] {
        refused(&with(key, "x"), &format!("instance.metadata[{key:?}]: "));
    }
    of.check(&with("k", &"v".repeat(800))).unwrap();
    refused(&with("k", &"v".repeat(1000)), "instance.metadata: ");
    refused(&instance(&["http://h:80/a", "http://h/b"]), "instance.endpoints[1]: ");
    refused(
        &instance(&[&format!("grpc://{}:1", "h".repeat(129))]),
        "instance.endpoints[0]: ",
    );
    // All of one scheme: 64 of them are 64 hosts.
    let many: Vec<String> = (1..=64).map(|port| format!("grpc://10.0.0.1:{port}")).collect();
    let many = instance(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(of.write(&many, "o", 1).unwrap().len(), 64);
}

#[test]
fn a_mark_that_is_none_is_no_part() {
    let mut host = form(NacosForm::Kratos)
        .write(&instance(&[]), "o", 1)
        .unwrap()
        .pop_first()
        .unwrap()
        .1;
    assert_eq!(mark_of(&host).unwrap().part, Some((0, 0, 1)));
    for bad in ["", "1", "1/2", "a/b/c", "1/-2/3", "99999999999999999999/1/1"] {
        for (key, value) in &mut host.metadata {
            if key == "rollcall.n" {
                bad.clone_into(value);
            }
        }
        assert_eq!(mark_of(&host).unwrap().part, None, "{bad:?}");
    }
}
