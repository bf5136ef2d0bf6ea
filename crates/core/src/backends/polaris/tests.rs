use std::sync::Arc;

use super::client::Instance;
use super::options::{PolarisLayout, PolarisOptions};
use super::record::{Form, Writing, leaving, mark_of};
use crate::instance::ServiceInstance;

fn form(layout: PolarisLayout) -> Form {
    Form::of(&PolarisOptions {
        layout,
        ..PolarisOptions::default()
    })
}

fn instance(metadata: &[(&str, &str)], endpoints: &[&str]) -> ServiceInstance {
    ServiceInstance {
        id: "a/1".into(),
        name: "orders".into(),
        version: "v1".into(),
        metadata: metadata.iter().copied().collect(),
        endpoints: endpoints.iter().map(|endpoint| (*endpoint).into()).collect(),
        since: None,
    }
}

/// What a form writes, as a server tells it: each service with its records.
fn told(form: &Form, instance: &ServiceInstance, owner: &str, number: u64) -> Vec<(String, Vec<Instance>)> {
    let merge = "m";
    let records = form.write(instance, &Writing { owner, merge, number }).unwrap();
    let told = |((service, host, port), mut record): ((String, String, u32), Instance)| {
        record.id = Some(format!("{host}-{port}"));
        record
            .metadata
            .insert("protocol".to_owned(), record.protocol.clone().unwrap_or_default());
        record
            .metadata
            .insert("version".to_owned(), record.version.clone().unwrap_or_default());
        (service, vec![record])
    };
    records.into_iter().map(told).collect()
}

fn read(form: &Form, lists: &[(String, Vec<Instance>)]) -> (Vec<ServiceInstance>, bool) {
    let name = "orders".into();
    let lists = lists.iter().map(|(service, list)| (service.as_str(), list.as_slice()));
    let merged = form.merge(&name, lists);
    let instances = merged.snapshot.instances.into_iter().map(Arc::unwrap_or_clone);
    (instances.collect(), merged.is_whole)
}

fn record(host: &str, port: u32, metadata: &[(&str, &str)]) -> Instance {
    Instance {
        id: Some(format!("id-{port}")),
        host: Some(host.to_owned()),
        port: Some(port),
        protocol: Some("grpc".to_owned()),
        version: Some("v1".to_owned()),
        weight: Some(100),
        healthy: Some(true),
        isolate: Some(false),
        metadata: metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Instance::default()
    }
}

#[test]
fn what_is_written_is_read_unchanged_in_both_layouts() {
    let endpoints = [
        "http://h:80/path?x=1",
        "grpc://[::1]:9000",
        "grpcs://h:9001?isSecure=true",
    ];
    for layout in [PolarisLayout::Polaris, PolarisLayout::Registry] {
        let form = form(layout);
        for metadata in [
            &[("zone", "z")][..],
            &[("weight", "7")],
            &[("weight", "many")],
            &[("weight", "0")],
        ] {
            let given = instance(metadata, &endpoints);
            let lists = told(&form, &given, "o", 1);
            assert_eq!(read(&form, &lists), (vec![given], true), "{layout:?} {metadata:?}");
        }
    }
    let form = form(PolarisLayout::Polaris);
    let given = instance(&[], &[]);
    assert_eq!(read(&form, &told(&form, &given, "o", 1)), (vec![given], true));
}

#[test]
fn the_records_are_those_of_kratos() {
    let given = instance(&[("zone", "z")], &["grpc://h:1"]);
    let lists = told(&form(PolarisLayout::Polaris), &given, "o", 1);
    let (service, record) = (&lists[0].0, &lists[0].1[0]);
    assert_eq!((service.as_str(), record.protocol.as_deref()), ("orders", Some("grpc")));
    assert_eq!(record.metadata.get("merge").map(String::as_str), Some("m"));
    assert_eq!(
        record.health_check.as_ref().unwrap().heartbeat.as_ref().unwrap().ttl,
        Some(5)
    );
    let lists = told(&form(PolarisLayout::Registry), &given, "o", 1);
    let (service, record) = (&lists[0].0, &lists[0].1[0]);
    assert_eq!(service, "ordersgrpc");
    assert_eq!(record.metadata.get("kind").map(String::as_str), Some("grpc"));
    assert_eq!(record.metadata.get("version").map(String::as_str), Some("v1"));
}

#[test]
fn a_weight_of_the_options_is_told_to_kratos_too() {
    let form = Form::of(&PolarisOptions {
        weight: 30,
        ..PolarisOptions::default()
    });
    let lists = told(&form, &instance(&[], &["grpc://h:1"]), "o", 1);
    assert_eq!(lists[0].1[0].weight, Some(30));
    assert_eq!(read(&form, &lists).0[0].metadata.get("weight"), Some("30"));
}

#[test]
fn the_newest_owner_and_its_newest_writing_count() {
    let form = form(PolarisLayout::Polaris);
    let old = told(&form, &instance(&[], &["grpc://old:1"]), "o1", 9);
    let part = told(&form, &instance(&[], &["grpc://h:1", "grpc://h:2"]), "o2", 1);
    let (list, is_whole) = read(&form, &[old.clone(), part[..1].to_vec()].concat());
    assert_eq!((list.len(), is_whole), (1, false));
    assert_eq!(&*list[0].endpoints, &["grpc://h:1".into()]);
    let newer = told(&form, &instance(&[], &["grpc://new:1"]), "o2", 2);
    let (list, is_whole) = read(&form, &[old, part, newer].concat());
    assert_eq!((list.len(), is_whole), (1, true));
    assert_eq!(&*list[0].endpoints, &["grpc://new:1".into()]);
}

#[test]
fn what_is_out_of_traffic_is_in_no_list() {
    let form = form(PolarisLayout::Polaris);
    let given = instance(&[], &["grpc://h:1", "grpc://h:2"]);
    let out: [fn(&mut Instance); 3] = [
        |record| record.healthy = Some(false),
        |record| record.isolate = Some(true),
        |record| record.weight = Some(0),
    ];
    for out in out {
        let mut lists = told(&form, &given, "o", 1);
        out(&mut lists[0].1[0]);
        let (list, is_whole) = read(&form, &lists);
        assert_eq!((list[0].endpoints.len(), is_whole), (1, true));
        out(&mut lists[1].1[0]);
        assert_eq!(read(&form, &lists), (vec![], true));
    }
    let mut lists = told(&form, &given, "o", 1);
    lists[0].1[0].weight = Some(30);
    assert_eq!(read(&form, &lists).0[0].metadata.get("weight"), Some("30"));
}

#[test]
fn records_of_kratos_are_read_by_their_group_or_each() {
    let group = [
        record("h", 2, &[("merge", "x"), ("zone", "z"), ("weight", "100")]),
        record("h", 1, &[("merge", "x"), ("zone", "z"), ("weight", "100")]),
        record("h", 3, &[("merge", "y")]),
        record("h", 4, &[]),
    ];
    let (mut list, _) = read(&form(PolarisLayout::Polaris), &[("orders".to_owned(), group.to_vec())]);
    list.sort_by(|a, b| a.id.cmp(&b.id));
    let ids: Vec<&str> = list.iter().map(|one| &*one.id).collect();
    assert_eq!(ids, ["id-1", "id-3", "id-4"]);
    assert_eq!(list[0].endpoints.len(), 2);
    assert_eq!(list[0].metadata.get("merge"), None);
    assert_eq!(list[0].metadata.get("zone"), Some("z"));

    // Its default weight is 0, and it means nothing by it.
    let mut kratos = record("h", 1, &[("kind", "http"), ("version", "v1")]);
    kratos.protocol = None;
    kratos.weight = Some(0);
    let form = form(PolarisLayout::Registry);
    let lists = [("ordershttp".to_owned(), vec![kratos.clone()])];
    let (list, _) = read(&form, &lists);
    assert_eq!(&*list[0].endpoints, &["http://h:1".into()]);
    assert_eq!(list[0].metadata.len(), 0);
    assert_eq!(form.name_in("ordershttp", &lists[0].1), Some("orders"));
    assert_eq!(form.name_in("ordershttps", &lists[0].1), None);
}

#[test]
fn what_polaris_refuses_is_refused_by_its_field() {
    let polaris = form(PolarisLayout::Polaris);
    let long = |length| "x".repeat(length);
    let pairs: Vec<(String, String)> = (0..61).map(|at| (format!("k{at}"), String::new())).collect();
    let pairs: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let wrong = |field: &str, instance: &ServiceInstance| {
        let error = polaris.check(instance).unwrap_err();
        assert!(error.message().starts_with(field), "{field}: {error}");
    };
    let one = &["grpc://h:1"][..];
    wrong("instance.metadata: ", &instance(&pairs, one));
    assert!(polaris.check(&instance(&pairs[1..], one)).is_ok());
    wrong("instance.metadata[\"merge\"]: ", &instance(&[("merge", "")], one));
    wrong(
        "instance.metadata[\"rollcall.id\"]: ",
        &instance(&[("rollcall.id", "")], one),
    );
    wrong("instance.metadata[\"k\"]: ", &instance(&[("k", &long(4097))], one));
    wrong("instance.endpoints[1]: ", &instance(&[], &["grpc://h:1", "http://h:1"]));
    wrong(
        "instance.endpoints[0]: ",
        &instance(&[], &[&format!("grpc://{}:1", long(129))]),
    );
    wrong(
        "instance.endpoints[0]: ",
        &instance(&[], &[&format!("{}://h:1", long(33))]),
    );
    let mut other = instance(&[], one);
    other.version = long(33).into();
    wrong("instance.version: ", &other);
    for name in ["a b", "ü", "%", &long(129)] {
        let mut other = instance(&[], one);
        other.name = name.into();
        wrong("instance.name: ", &other);
    }
    let registry = form(PolarisLayout::Registry);
    for endpoints in [&[][..], &["ws://h:1"]] {
        let error = registry.check(&instance(&[], endpoints)).unwrap_err();
        assert!(error.message().starts_with("instance.endpoints"), "{error}");
    }
    assert!(
        registry
            .check(&instance(&[("merge", "")], &["grpc://h:1", "http://h:1"]))
            .is_ok()
    );
}

#[test]
fn what_leaves_is_as_it_was_but_out_of_traffic() {
    let form = form(PolarisLayout::Polaris);
    let lists = told(&form, &instance(&[("zone", "z")], &["grpc://h:1"]), "o", 1);
    let before = &lists[0].1[0];
    let left = leaving(&form, "orders", before);
    assert_eq!((left.id.as_deref(), left.isolate), (None, Some(true)));
    assert_eq!(mark_of(&left), mark_of(before));
    assert_eq!(left.metadata.get("version"), None);
}
