//! What a campaign does with what it hears: without etcd, which a script stands for where it must.

use std::sync::Mutex as Written;

use tokio::time::advance;

use super::*;
use crate::etcd::client::EtcdClient;
use crate::etcd::election::candidate::Naming;
use crate::etcd::lease::slot::Slot;
use crate::etcd::options::EtcdOptions;
use crate::etcd::watch::subscription::Script;
use crate::log::Log;
use crate::stall::Stall;

const TTL: Duration = Duration::from_secs(10);
const LEASE: i64 = 0x1f;

type Told = Arc<Written<Vec<String>>>;

fn elections() -> Elections {
    let options = EtcdOptions {
        hosts: vec!["127.0.0.1:1".to_owned()], // nobody listens there
        timeout: Duration::from_millis(100),
        ..EtcdOptions::default()
    };
    EtcdClient::new(options, Log::default()).unwrap().elections
}

fn options(again: bool) -> CampaignOptions {
    CampaignOptions {
        place: Place::Queue {
            prefix: b"job/".to_vec(),
            naming: Naming::Hex,
        },
        value: b"me".to_vec(),
        ttl: TTL,
        waits: true,
        again,
        attach: None,
        stall: None,
    }
}

fn machine(again: bool) -> (Machine, Told) {
    let told = Told::default();
    let heard = Arc::clone(&told);
    let on_event: OnEvent = Box::new(move |event| {
        heard.lock().unwrap().push(match event {
            CampaignEvent::Elected(token) => format!("elected {token}"),
            CampaignEvent::Lost(failure) => format!("lost: {}", failure.error()),
            CampaignEvent::Failed(failure) => format!("failed: {}", failure.error()),
        });
    });
    (Machine::new(elections(), options(again), on_event), told)
}

/// Puts a machine into a term whose key was created at the revision 7.
fn in_a_term(machine: &Machine) -> (Arc<Term>, Arc<Slot>) {
    let (lease, slot) = Lease::scripted(LEASE, TTL);
    let term = Arc::new(Term {
        lease,
        key: b"job/1f".to_vec(),
        gone: CancellationToken::new(),
        expired: CancellationToken::new(),
    });
    machine.change(|now| {
        now.asked = Some(LEASE);
        now.created = 7;
        now.state = CampaignState::Waiting;
        now.term = Some(Arc::clone(&term));
    });
    (term, slot)
}

fn change(key: &str, value: Option<&str>, lease: i64) -> Batch {
    let change = Change {
        key: key.to_owned().into(),
        value: value.map(|value| value.to_owned().into()),
        lease,
        mod_revision: 9,
    };
    Batch { changes: vec![change] }
}

fn told(told: &Told) -> Vec<String> {
    std::mem::take(&mut told.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn it_leads_once_and_no_longer_than_its_lease() {
    let (machine, heard) = machine(false);
    let (term, _slot) = in_a_term(&machine);
    assert!(!machine.now.borrow().may_act(), "it waits");
    assert!(machine.lead(&term) && machine.lead(&term));
    assert_eq!(told(&heard), ["elected 7"]);
    advance(TTL / 10 * 9).await;
    assert!(machine.now.borrow().may_act());
    advance(TTL / 10).await;
    assert!(!machine.now.borrow().may_act());
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_answered_after_the_lease_elects_nobody() {
    let (machine, heard) = machine(false);
    let (term, _slot) = in_a_term(&machine);
    advance(TTL).await;
    assert!(!machine.lead(&term));
    assert_eq!(told(&heard), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn once_somebody_was_told_that_the_time_is_over_a_late_renewal_changes_nothing() {
    let (machine, _heard) = machine(false);
    let (term, slot) = in_a_term(&machine);
    machine.lead(&term);
    advance(TTL).await;
    term.expired.cancel(); // what `Campaign::is_leading` does when it says no
    slot.confirm(Instant::now() + TTL, TTL);
    assert!(!machine.now.borrow().may_act());
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_its_power_at_once() {
    let (machine, _heard) = machine(false);
    let (term, slot) = in_a_term(&machine);
    machine.lead(&term);
    slot.lose("revoked");
    assert!(!machine.now.borrow().may_act());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_once_and_hands_the_lease_out_once() {
    let (machine, heard) = machine(false);
    in_a_term(&machine);
    let left = machine.finish(CampaignState::Failed, Some(CampaignFailure::Taken));
    assert!(left.is_some_and(|left| left.lease == LEASE && left.granted));
    assert!(machine.finish(CampaignState::Resigned, None).is_none());
    assert!(
        machine
            .finish(CampaignState::Failed, Some(CampaignFailure::Over))
            .is_none()
    );
    assert!(!machine.change(|now| now.state = CampaignState::Leading));
    assert_eq!(machine.now.borrow().state, CampaignState::Failed);
    assert_eq!(told(&heard), ["failed: the key is held by someone else"]);
    assert!(machine.over.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn who_resigns_is_told_nothing_and_leaves_what_was_asked_for() {
    let (machine, heard) = machine(false);
    machine.change(|now| now.asked = Some(LEASE)); // its grant is not answered yet
    let left = machine.finish(CampaignState::Resigned, None);
    assert!(left.is_some_and(|left| left.lease == LEASE && !left.granted));
    assert_eq!(told(&heard), [""; 0]);
}

/// What is heard of our own key.
async fn own(say: impl FnOnce(Script)) -> Option<Heard> {
    let (script, mut watch) = Subscription::scripted();
    say(script);
    timeout(TTL, own_gone(Some(&mut watch), LEASE)).await.ok()
}

#[tokio::test(start_paused = true)]
async fn our_key_is_gone_when_it_is_deleted_or_lies_under_another_lease() {
    let says = |batch: Batch| own(move |script| script.batches.try_send(batch).unwrap());
    assert!(matches!(says(change("job/1f", None, 0)).await, Some(Heard::Gone(_))));
    assert!(matches!(
        says(change("job/1f", Some("x"), 5)).await,
        Some(Heard::Gone(_))
    ));
    // Our own words, and then the end of the watch, which says nothing of the key.
    let after = says(change("job/1f", Some("new"), LEASE)).await;
    assert!(after.is_none_or(|heard| matches!(heard, Heard::Nothing)));
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_watch_is_told_apart() {
    let gone = own(|script| script.end(WatchEnd::Compacted(3))).await;
    assert!(matches!(gone, Some(Heard::Nothing)));
    let denied = Error::new(ErrorKind::PermissionDenied, "no");
    let refused = own(|script| script.end(WatchEnd::Refused(denied))).await;
    assert!(matches!(refused, Some(Heard::Refused(_))));
    assert!(
        own(|script| script.end(WatchEnd::Closed)).await.is_none(),
        "the lease tells"
    );
}

#[tokio::test(start_paused = true)]
async fn the_candidate_before_gives_way_when_it_is_none_any_more() {
    let (machine, _heard) = machine(false);
    let look = async |batch: Batch| {
        let (script, watch) = Subscription::scripted();
        script.batches.try_send(batch).unwrap();
        let mut older = Older {
            key: b"job/2a".to_vec(),
            created: 5,
            watch,
        };
        let heard = timeout(TTL, machine.gives_way(Some(&mut older))).await.ok();
        drop(script);
        heard
    };
    assert!(matches!(look(change("job/2a", None, 0)).await, Some(Heard::OlderGone)));
    assert!(matches!(
        look(change("job/2a", Some("x"), 0)).await,
        Some(Heard::OlderGone)
    ));
    assert!(look(change("job/2a", Some("x"), 0x2a)).await.is_none(), "it proclaims");
}

#[tokio::test(start_paused = true)]
async fn a_thread_stalls_at_its_limit() {
    let limit = Duration::from_secs(3);
    let (silence, heard) = watch::channel(Duration::ZERO);
    let stall = Stall::new(heard, limit);
    let mut waiting = std::pin::pin!(stalled(Some(&stall)));
    silence.send_replace(Duration::from_secs(2));
    assert!(timeout(TTL, waiting.as_mut()).await.is_err());
    silence.send_replace(Duration::from_secs(4));
    assert_eq!(waiting.await, Duration::from_secs(4));
    assert!(timeout(TTL, stalled(None)).await.is_err());
}

#[tokio::test]
async fn without_etcd_it_fails_or_goes_on_as_it_was_told() {
    let (machine, heard) = machine(false);
    machine.run().await;
    assert_eq!(machine.now.borrow().state, CampaignState::Failed);
    let words = told(&heard);
    assert!(words.len() == 1 && words[0].starts_with("failed: "), "{words:?}");

    let (machine, heard) = self::machine(true);
    let mut now = machine.now.subscribe();
    tokio::select! {
        () = machine.run() => unreachable!("it goes on"),
        _ = now.wait_for(|now| now.failure.is_some()) => {}
    }
    // It never led, so nothing was lost.
    assert_eq!(machine.now.borrow().state, CampaignState::Granting);
    assert_eq!(told(&heard), [""; 0]);
}
