//! The README's matrix says what the backends say of themselves. On a difference this prints the table as it must be.
#![cfg(all(
    feature = "memory",
    feature = "etcd",
    feature = "consul",
    feature = "zookeeper",
    feature = "nacos",
    feature = "kubernetes",
    feature = "polaris",
    feature = "bilibili"
))]
#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use std::time::Duration;

use rollcall_core::backend::{Backend, Capabilities};
use rollcall_core::backends::bilibili::{BilibiliBackend, BilibiliOptions};
use rollcall_core::backends::consul::{ConsulBackend, ConsulOptions};
use rollcall_core::backends::etcd::{EtcdBackend, EtcdRecords};
use rollcall_core::backends::kubernetes::{KubernetesBackend, KubernetesOptions};
use rollcall_core::backends::memory::MemoryBackend;
use rollcall_core::backends::nacos::{NacosBackend, NacosOptions};
use rollcall_core::backends::polaris::{PolarisBackend, PolarisOptions};
use rollcall_core::backends::zookeeper::{ZookeeperBackend, ZookeeperOptions};
use rollcall_core::etcd::EtcdOptions;
use rollcall_core::log::Log;

/// What a column of the matrix is headed with, and what its backend says.
fn columns() -> Vec<(&'static str, Capabilities)> {
    let log = Log::default;
    let consul = |heartbeat| {
        let options = ConsulOptions {
            heartbeat,
            ..ConsulOptions::default()
        };
        ConsulBackend::new(options, log()).unwrap().capabilities()
    };
    let memory = MemoryBackend::new("matrix", Duration::from_secs(15));
    let etcd = EtcdBackend::new(EtcdOptions::default(), &EtcdRecords::default(), log()).unwrap();
    let zookeeper = ZookeeperBackend::new(ZookeeperOptions::default(), log()).unwrap();
    let nacos = NacosBackend::new(NacosOptions::default(), &log()).unwrap();
    let kubernetes = KubernetesBackend::new(KubernetesOptions::default(), log()).unwrap();
    let bilibili = BilibiliOptions {
        zone: "sh001".to_owned(),
        env: "prod".to_owned(),
        ..BilibiliOptions::default()
    };
    let bilibili = BilibiliBackend::new(bilibili, log()).unwrap();
    let polaris = PolarisBackend::new(PolarisOptions::default(), &log()).unwrap();
    vec![
        ("memory", memory.capabilities()),
        ("etcd", etcd.capabilities()),
        ("Consul", consul(true)),
        ("Consul, `heartbeat: false`", consul(false)),
        ("ZooKeeper", zookeeper.capabilities()),
        ("Nacos", nacos.capabilities()),
        ("Kubernetes", kubernetes.capabilities()),
        ("discovery", bilibili.capabilities()),
        ("Polaris", polaris.capabilities()),
    ]
}

/// The rows: what the public API calls a capability, what it is, and how it is shown. Each field has one.
fn rows(of: Capabilities) -> [(&'static str, &'static str, String); 12] {
    let Capabilities {
        register,
        expires,
        owners,
        keeps_id,
        lists_names,
        counts_names,
        one_registration,
        settles,
        since,
        expires_in,
        leaving_reason,
        own_switch,
    } = of;
    let yes = |fact: bool| if fact { "yes" } else { "no" }.to_owned();
    [
        ("register", "Takes registrations", yes(register)),
        (
            "expires",
            "The instance of a process that died goes by itself",
            yes(expires),
        ),
        ("owners", "Owners of one id are told apart", yes(owners)),
        (
            "keepsId",
            "An instance is found under the id it was registered with",
            yes(keeps_id),
        ),
        ("listsNames", "`services()` and `watchServices()`", yes(lists_names)),
        ("countsNames", "… with the number of instances", yes(counts_names)),
        (
            "oneRegistration",
            "One registration for each client only",
            yes(one_registration),
        ),
        (
            "settlesMs",
            "How long others may see a part of a change, in ms",
            settles.as_millis().to_string(),
        ),
        ("since", "Lists say since when an instance is registered", yes(since)),
        ("expiresIn", "… how much time is left to it", yes(expires_in)),
        ("leavingReason", "… why it left", yes(leaving_reason)),
        (
            "ownSwitch",
            "Operators can take an instance out by a switch of the registry",
            yes(own_switch),
        ),
    ]
}

fn table() -> String {
    let columns = columns();
    let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    let mut lines = vec![
        format!("| `capabilities` | | {} |", heads.join(" | ")),
        format!("|---|---|{}", "---|".repeat(columns.len())),
    ];
    let all: Vec<_> = columns.iter().map(|(_, of)| rows(*of)).collect();
    for row in 0..all[0].len() {
        let (name, what, _) = &all[0][row];
        let facts: Vec<&str> = all.iter().map(|rows| rows[row].2.as_str()).collect();
        lines.push(format!("| `{name}` | {what} | {} |", facts.join(" | ")));
    }
    lines.join("\n")
}

#[tokio::test]
async fn the_matrix_of_the_readme_is_what_the_backends_say() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let table = table();
    assert!(readme.contains(&table), "the README must have this table:\n\n{table}\n");
}
