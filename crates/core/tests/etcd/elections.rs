//! Campaigns and their observers, when everything goes well and when it does not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{GetOptions, PutOptions};
use rollcall_core::etcd::{
    Campaign, CampaignEvent, CampaignFailure, CampaignOptions, CampaignState, EtcdClient, EtcdOptions, Naming,
    Observer, ObserverEvent, Place,
};
use rollcall_core::log::Log;
use rollcall_core::stall::Stall;
use tokio::sync::watch;

use crate::support::{Proxy, Server, etcd, eventually, options, within};

const PREFIX: &str = "election/job/";

fn client(options: EtcdOptions) -> EtcdClient {
    EtcdClient::new(options, Log::default()).unwrap()
}

fn running_for(value: &str) -> CampaignOptions {
    CampaignOptions {
        place: Place::Queue {
            prefix: PREFIX.into(),
            naming: Naming::Decimal,
        },
        value: value.into(),
        ttl: Duration::from_secs(2),
        waits: true,
        again: false,
        attach: None,
        stall: None,
    }
}

/// What a campaign told, in words.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn now(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn campaign(client: &EtcdClient, options: CampaignOptions) -> (Campaign, Told) {
    let told = Told::default();
    let list = told.clone();
    let on_event = Box::new(move |event| {
        let word = match event {
            CampaignEvent::Elected(_) => "elected".to_owned(),
            CampaignEvent::Lost(failure) => format!("lost {}", name(&failure)),
            CampaignEvent::Failed(failure) => format!("failed {}", name(&failure)),
        };
        list.0.lock().unwrap().push(word);
    });
    (Campaign::start(&client.elections, options, on_event), told)
}

fn name(failure: &CampaignFailure) -> &'static str {
    match failure {
        CampaignFailure::LeaseLost { .. } => "lease",
        CampaignFailure::KeyGone(_) => "key",
        CampaignFailure::Stalled(_) => "stall",
        CampaignFailure::Taken => "taken",
        CampaignFailure::Over => "over",
        CampaignFailure::Call(_) => "call",
    }
}

/// The keys of the candidates, the oldest first.
async fn candidates(server: &Server) -> Vec<String> {
    let oldest = GetOptions::new()
        .with_prefix()
        .with_sort(etcd_client::SortTarget::Create, etcd_client::SortOrder::Ascend);
    let answer = server.raw().await.get(PREFIX, Some(oldest)).await.unwrap();
    answer.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
}

async fn are_waiting(campaigns: &[&Campaign]) {
    eventually("all wait", || async {
        campaigns.iter().all(|one| one.state() == CampaignState::Waiting)
    })
    .await;
}

#[tokio::test]
async fn candidates_lead_in_turn_with_growing_tokens() {
    let server = etcd!();
    let client = client(server.options());
    let mut all = Vec::new();
    for i in 0..30 {
        let (one, told) = campaign(&client, running_for(&i.to_string()));
        within(10, "a key", one.key()).await.unwrap();
        all.push((one, told));
        if i == 0 {
            within(5, "the first", all[0].0.elected()).await.unwrap();
        }
    }
    let mut last = 0;
    // In the order of their keys, which is not quite that of their starts.
    while !all.is_empty() {
        let leading: Vec<usize> = (0..all.len()).filter(|i| all[*i].0.is_leading()).collect();
        assert!(leading.len() <= 1, "{} lead", leading.len());
        let Some(i) = leading.first() else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let (leader, told) = all.remove(*i);
        let token = leader.revision().unwrap();
        assert!(token > last, "{token} follows {last}");
        last = token;
        assert_eq!(told.now(), ["elected"]);
        within(5, "resign", leader.resign()).await.unwrap();
        assert!(!leader.is_leading());
        assert_eq!(told.now(), ["elected"], "nothing after");
    }
    assert_eq!(candidates(&server).await, [""; 0]);
}

#[tokio::test]
async fn a_key_deleted_by_hand_ends_the_campaign_once() {
    let server = etcd!();
    let client = client(server.options());
    let (leader, told) = campaign(&client, running_for("a"));
    within(5, "elected", leader.elected()).await.unwrap();
    let (second, second_told) = campaign(&client, running_for("b"));
    are_waiting(&[&second]).await;
    let (third, third_told) = campaign(&client, running_for("c"));
    are_waiting(&[&third]).await;
    let mut raw = server.raw().await;
    // One that waits, and then the one that leads.
    raw.delete(second.key().await.unwrap(), None).await.unwrap();
    eventually("the waiting one ends", || async { second.state().is_final() }).await;
    assert_eq!(second_told.now(), ["failed key"]);
    assert!(leader.is_leading());
    raw.delete(leader.key().await.unwrap(), None).await.unwrap();
    within(5, "the third", third.elected()).await.unwrap();
    eventually("the leader ends", || async { leader.state().is_final() }).await;
    assert_eq!(told.now(), ["elected", "failed key"]);
    assert_eq!(third_told.now(), ["elected"]);
    assert!(!leader.is_leading());
    assert!(matches!(
        leader.proclaim(b"x".to_vec()).await,
        Err(CampaignFailure::Over)
    ));
    eventually("their leases are revoked too", || async {
        server.raw().await.leases().await.unwrap().leases().len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_lease_revoked_by_hand_is_lost_at_once() {
    let server = etcd!();
    let client = client(server.options());
    let long = CampaignOptions {
        ttl: Duration::from_secs(60),
        ..running_for("a")
    };
    let (leader, told) = campaign(&client, long);
    within(5, "elected", leader.elected()).await.unwrap();
    let (lease, _) = leader.lease_and_key().unwrap();
    server.raw().await.lease_revoke(lease).await.unwrap();
    within(3, "the end", leader.ended()).await;
    eventually("it is told", || async { told.now() == ["elected", "failed lease"] }).await;
    assert!(matches!(leader.failure(), Some(CampaignFailure::LeaseLost { lease: lost, .. }) if lost == lease));
}

#[tokio::test]
async fn a_key_taken_out_of_its_lease_is_lost() {
    let server = etcd!();
    let client = client(server.options());
    let (leader, told) = campaign(&client, running_for("a"));
    within(5, "elected", leader.elected()).await.unwrap();
    let key = leader.key().await.unwrap();
    // As `etcdctl put` does without a lease: the key would outlive everybody.
    server.raw().await.put(key, "mine", None).await.unwrap();
    eventually("it is told", || async { told.now() == ["elected", "failed key"] }).await;
}

#[tokio::test]
async fn an_outage_longer_than_the_lease_ends_both_and_elects_nobody() {
    let mut server = etcd!();
    let client = client(server.options());
    let (leader, told) = campaign(&client, running_for("a"));
    within(5, "elected", leader.elected()).await.unwrap();
    let (waiting, waiting_told) = campaign(&client, running_for("b"));
    are_waiting(&[&waiting]).await;
    server.kill();
    within(3, "the leader ends within its time to live", leader.ended()).await;
    assert!(!leader.is_leading());
    eventually("both have ended", || async {
        leader.state() == CampaignState::Failed && waiting.state() == CampaignState::Failed
    })
    .await;
    server.restart().await;
    eventually("no key is left", || async { candidates(&server).await.is_empty() }).await;
    assert_eq!(told.now(), ["elected", "failed lease"]);
    assert_eq!(waiting_told.now(), ["failed lease"], "never elected");
    let (next, _) = campaign(&client, running_for("c"));
    within(10, "the next", next.elected()).await.unwrap();
}

#[tokio::test]
async fn a_restart_within_the_lease_changes_nothing() {
    let mut server = etcd!();
    let client = client(server.options());
    let long = |value| CampaignOptions {
        ttl: Duration::from_secs(30),
        ..running_for(value)
    };
    let (leader, told) = campaign(&client, long("a"));
    within(5, "elected", leader.elected()).await.unwrap();
    let (waiting, waiting_told) = campaign(&client, long("b"));
    are_waiting(&[&waiting]).await;
    server.kill();
    server.restart().await;
    eventually("a value can be proclaimed", || async {
        leader.proclaim(b"a2".to_vec()).await.is_ok()
    })
    .await;
    assert!(leader.is_leading());
    leader.resign().await.unwrap();
    within(10, "the next", waiting.elected()).await.unwrap();
    assert_eq!(
        (told.now(), waiting_told.now()),
        (vec!["elected".into()], vec!["elected".into()])
    );
}

#[tokio::test]
async fn a_campaign_that_goes_on_tells_each_lost_term_once() {
    let mut server = etcd!();
    let client = client(server.options());
    let going_on = |value| CampaignOptions {
        again: true,
        ..running_for(value)
    };
    let (one, told) = campaign(&client, going_on("a"));
    within(5, "elected", one.elected()).await.unwrap();
    let (two, two_told) = campaign(&client, going_on("b"));
    are_waiting(&[&two]).await;
    let first = one.revision().unwrap().max(two.revision().unwrap());
    server.kill();
    eventually("the term is lost", || async { told.now().len() == 2 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(two_told.now(), [""; 0], "who did not lead has nothing to lose");
    server.restart().await;
    eventually("one leads", || async { one.is_leading() || two.is_leading() }).await;
    let leader = if one.is_leading() { &one } else { &two };
    assert!(leader.revision().unwrap() > first);
    eventually("each has one key", || async {
        let own = [one.key().await.unwrap(), two.key().await.unwrap()];
        let keys = candidates(&server).await;
        keys.len() == 2 && keys.iter().all(|key| own.contains(&key.clone().into_bytes()))
    })
    .await;
    assert!(!(one.is_leading() && two.is_leading()));
    assert_eq!(told.now()[..2], ["elected", "lost lease"]);
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_recognized() {
    let server = etcd!();
    let proxy = Proxy::to(server.address()).await;
    let client = client(EtcdOptions {
        timeout: Duration::from_millis(900),
        ..options(&[&proxy.address])
    });
    let queue = running_for("a");
    let key = Place::Key(format!("{PREFIX}alone").into_bytes());
    for place in [queue.place.clone(), key] {
        let long = CampaignOptions {
            place,
            ttl: Duration::from_secs(30),
            ..queue.clone()
        };
        let (one, told) = campaign(&client, long);
        // The lease is granted: the next answer is the one about the key.
        within(5, "a lease", one.key()).await.unwrap();
        proxy.lose_answers(true);
        eventually("the key is there", || async { candidates(&server).await.len() == 1 }).await;
        assert_eq!(one.state(), CampaignState::Granting, "and nobody here knows");
        proxy.lose_answers(false);
        within(10, "elected", one.elected()).await.unwrap();
        assert_eq!(candidates(&server).await.len(), 1);
        assert_eq!(told.now(), ["elected"]);
        one.resign().await.unwrap();
    }
}

#[tokio::test]
async fn who_resigns_before_it_is_elected_leaves_nothing_and_says_nothing() {
    let server = etcd!();
    let client = client(server.options());
    let (leader, _) = campaign(&client, running_for("a"));
    within(5, "elected", leader.elected()).await.unwrap();
    let (waiting, told) = campaign(&client, running_for("b"));
    let (early, early_told) = campaign(&client, running_for("c"));
    within(5, "resign while it is granted", early.resign()).await.unwrap();
    are_waiting(&[&waiting]).await;
    let waits = waiting.elected();
    tokio::pin!(waits);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut waits)
            .await
            .is_err()
    );
    within(5, "resign", waiting.resign()).await.unwrap();
    assert!(matches!(waits.await, Err(CampaignFailure::Over)));
    within(1, "again", waiting.resign()).await.unwrap();
    leader.resign().await.unwrap();
    eventually("no key is left", || async { candidates(&server).await.is_empty() }).await;
    eventually("no lease is left", || async {
        server.raw().await.leases().await.unwrap().leases().is_empty()
    })
    .await;
    assert!(told.now().is_empty() && early_told.now().is_empty());
    assert_eq!(waiting.state(), CampaignState::Resigned);
}

#[tokio::test]
async fn a_silent_thread_gives_the_leadership_up_and_another_takes_it() {
    let server = etcd!();
    let client = client(server.options());
    let (silence, heard) = watch::channel(Duration::ZERO);
    let limit = Duration::from_secs(1);
    let (leader, told) = campaign(
        &client,
        CampaignOptions {
            stall: Some(Stall::new(heard, limit)),
            ..running_for("a")
        },
    );
    within(5, "elected", leader.elected()).await.unwrap();
    let (next, _) = campaign(&client, running_for("b"));
    are_waiting(&[&next]).await;
    silence.send_replace(limit / 2);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(leader.is_leading());
    silence.send_replace(limit);
    within(5, "the next", next.elected()).await.unwrap();
    assert!(!leader.is_leading());
    assert_eq!(told.now(), ["elected", "failed stall"]);
    silence.send_replace(Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(told.now().len(), 2, "it is never regained in silence");
}

#[tokio::test]
async fn a_proclamation_is_seen_once_and_the_same_one_is_not_sent() {
    let server = etcd!();
    let client = client(server.options());
    let (leader, _) = campaign(&client, running_for("a"));
    // Before the key is there as well.
    within(5, "proclaim", leader.proclaim(b"b".to_vec())).await.unwrap();
    let key = leader.key().await.unwrap();
    let mut raw = server.raw().await;
    let version = async |raw: &mut etcd_client::Client| {
        let answer = raw.get(key.clone(), None).await.unwrap();
        let kv = &answer.kvs()[0];
        (kv.value().to_vec(), kv.version(), kv.create_revision())
    };
    let (value, before, created) = version(&mut raw).await;
    assert_eq!((value, Some(created)), (b"b".to_vec(), leader.revision()));
    leader.proclaim(b"b".to_vec()).await.unwrap();
    assert_eq!(version(&mut raw).await.1, before);
    leader.proclaim(b"c".to_vec()).await.unwrap();
    assert_eq!(version(&mut raw).await, (b"c".to_vec(), before + 1, created));
    // Written by hand meanwhile, under our lease: still ours, and written over.
    let (lease, _) = leader.lease_and_key().unwrap();
    let by_hand = PutOptions::new().with_lease(lease);
    raw.put(key.clone(), "by hand", Some(by_hand)).await.unwrap();
    leader.proclaim(b"d".to_vec()).await.unwrap();
    assert_eq!(version(&mut raw).await, (b"d".to_vec(), before + 3, created));
    assert!(leader.is_leading());
}

#[tokio::test]
async fn an_observer_tells_the_leader_its_words_and_a_drop() {
    let mut server = etcd!();
    let client = client(server.options());
    let events = Arc::new(Mutex::new(Vec::new()));
    let list = events.clone();
    let observer = Observer::start(
        &client.elections,
        PREFIX.into(),
        Box::new(move |event| {
            list.lock().unwrap().push(match event {
                ObserverEvent::Changed => "changed",
                ObserverEvent::Disconnected(_) => "disconnected",
                ObserverEvent::Failed(_) => "failed",
            });
        }),
    );
    let value = || observer.leader().map(|leader| String::from_utf8(leader.value).unwrap());
    eventually("nobody leads, and that is told", || async {
        *events.lock().unwrap() == ["changed"]
    })
    .await;
    assert_eq!(value(), None);
    let long = |value| CampaignOptions {
        ttl: Duration::from_secs(30),
        ..running_for(value)
    };
    let (one, _) = campaign(&client, long("a"));
    eventually("the first leader", || async { value().as_deref() == Some("a") }).await;
    assert_eq!(observer.leader().unwrap().revision, one.revision().unwrap());
    let (two, _) = campaign(&client, long("b"));
    are_waiting(&[&two]).await;
    one.proclaim(b"a2".to_vec()).await.unwrap();
    eventually("its words", || async { value().as_deref() == Some("a2") }).await;
    server.kill();
    eventually("the drop is told", || async {
        events.lock().unwrap().contains(&"disconnected")
    })
    .await;
    server.restart().await;
    eventually("resigned", || async { one.resign().await.is_ok() }).await;
    eventually("the second leader", || async { value().as_deref() == Some("b") }).await;
    two.resign().await.unwrap();
    eventually("nobody", || async { value().is_none() }).await;
    let drops = events
        .lock()
        .unwrap()
        .iter()
        .filter(|event| **event == "disconnected")
        .count();
    assert_eq!(drops, 1);
}

#[tokio::test]
async fn the_leader_is_a_candidate_and_no_other_key() {
    let server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    let leader = async || {
        client
            .elections
            .leader(PREFIX.as_bytes())
            .await
            .unwrap()
            .map(|leader| leader.value)
    };
    raw.put(format!("{PREFIX}readme"), "no", None).await.unwrap();
    let nested = CampaignOptions {
        place: Place::Queue {
            prefix: format!("{PREFIX}eu/").into(),
            naming: Naming::Hex,
        },
        ..running_for("eu")
    };
    let (below, _) = campaign(&client, nested);
    within(5, "the leader of the nested one", below.elected())
        .await
        .unwrap();
    let observer = Observer::start(&client.elections, PREFIX.into(), Box::new(|_| {}));
    assert_eq!(leader().await, None);
    let (one, _) = campaign(&client, running_for("a"));
    within(5, "the leader", one.elected()).await.unwrap();
    assert_eq!(leader().await.as_deref(), Some(b"a".as_slice()));
    eventually("it is observed", || async {
        observer.leader().is_some_and(|leader| leader.value == b"a")
    })
    .await;
    assert!(one.is_leading() && below.is_leading());
}

#[tokio::test]
async fn an_older_candidate_out_of_a_backup_ends_who_leads() {
    let mut server = etcd!();
    let client = client(server.options());
    let mut raw = server.raw().await;
    let under = |lease| PutOptions::new().with_lease(lease);
    let old = raw.lease_grant(600, None).await.unwrap().id();
    raw.put(format!("{PREFIX}{old}"), "old", Some(under(old)))
        .await
        .unwrap();
    raw.put(format!("{PREFIX}readme"), "", None).await.unwrap();
    let long = CampaignOptions {
        ttl: Duration::from_secs(60),
        ..running_for("a")
    };
    let (one, told) = campaign(&client, long);
    are_waiting(&[&one]).await;
    let backup = server.snapshot();
    raw.lease_revoke(old).await.unwrap();
    within(5, "elected", one.elected()).await.unwrap();
    server.restore(&backup).await;
    eventually("it has ended", || async { told.now() == ["elected", "failed key"] }).await;
}
