//! Three members, one of which goes.

use std::time::Duration;

use rollcall_core::backend::{Backend as _, Intent};

use crate::support::{Server, binary, follow_until, ids, instance, options, presence_of, registry, retrying};

/// Which of them leads.
async fn leader(servers: &[Server]) -> usize {
    for (i, server) in servers.iter().enumerate() {
        let status = server.raw().await.status().await.unwrap();
        if status.leader() == status.header().unwrap().member_id() {
            return i;
        }
    }
    panic!("nobody leads");
}

#[tokio::test]
async fn registration_and_watch_survive_the_death_of_the_leader() {
    let Some(binary) = binary() else { return };
    let mut servers = Server::three(&binary).await;
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    let hosts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let backend = registry(options(&hosts), 5); // an election takes one to two seconds
    backend.contact().await.unwrap();
    let mut presence = presence_of(&backend, "a", "1");
    presence.publish(&instance("a", "1"), Intent::Claim).await.unwrap();
    follow_until(&backend, "a", |list| ids(list) == ["1"]).await;

    let leads = leader(&servers).await;
    servers[leads].kill();
    let lost = tokio::time::timeout(Duration::from_secs(8), presence.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    let mut second = presence_of(&backend, "a", "2");
    retrying("publish", async || {
        second.publish(&instance("a", "2"), Intent::Claim).await
    })
    .await;
    follow_until(&backend, "a", |list| ids(list) == ["1", "2"]).await;

    // A frozen member accepts connections and says nothing.
    servers[leads].restart().await;
    let leads = leader(&servers).await;
    servers[leads].freeze();
    let lost = tokio::time::timeout(Duration::from_secs(8), presence.lost()).await;
    assert!(lost.is_err(), "{lost:?}");
    let mut third = presence_of(&backend, "a", "3");
    retrying("publish", async || {
        third.publish(&instance("a", "3"), Intent::Claim).await
    })
    .await;
    follow_until(&backend, "a", |list| ids(list) == ["1", "2", "3"]).await;
    servers[leads].thaw();
}
