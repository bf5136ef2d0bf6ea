//! The state machine under paused time, against a scripted presence. Each test is a fault and what follows from it.

use std::sync::Mutex;

use tokio::time::{Instant, sleep, timeout};

use super::OutReason::{Draining, Stalled, Unhealthy, Withdrawn};
use super::machine::WITHDRAW_FOR;
use super::*;
use crate::ErrorKind;
use crate::backend::{Intent, Loss};
use crate::testing::{Answer, Asked, Scripted, ScriptedBackend, ScriptedPresence, TTL, instance};

type Events = Arc<Mutex<Vec<Event>>>;

struct Bench {
    script: Arc<Scripted>,
    registration: Registration,
    events: Events,
    silence: watch::Sender<Duration>,
}

const TIMEOUT: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(30);

fn start(script: Arc<Scripted>) -> Bench {
    start_told(script, Duration::ZERO)
}

/// A registration whose owner takes each event only after this time.
fn start_told(script: Arc<Scripted>, slow: Duration) -> Bench {
    let events = Events::default();
    let heard = events.clone();
    let (silence, silent) = watch::channel(Duration::ZERO);
    let registration = Registration::start(Setup {
        presence: Box::new(ScriptedPresence(script.clone())),
        backend: Arc::new(ScriptedBackend(script.clone())),
        instance: instance("a", "1"),
        advertise_host: Some("10.9.8.7".into()),
        over: CancellationToken::new(),
        tasks: TaskTracker::new(),
        stall: Some(Stall::new(silent, STALL)),
        timeout: TIMEOUT,
        publications: Arc::new(Semaphore::new(64)),
        withdrawals: Arc::new(Semaphore::new(64)),
        on_event: Box::new(move |event| {
            std::thread::sleep(slow);
            heard.lock().unwrap().push(event);
        }),
        log: Log::default(),
        meter: Arc::default(),
        reach: Arc::default(),
    });
    Bench {
        script,
        registration,
        events,
        silence,
    }
}

impl Bench {
    async fn registered() -> Self {
        let bench = start(Scripted::new());
        bench.registration.visible(TIMEOUT).await.unwrap();
        bench
    }

    async fn until(&self, state: State) {
        let mut progress = self.registration.inner.progress.subscribe();
        timeout(Duration::from_secs(120), progress.wait_for(|p| p.state == state))
            .await
            .unwrap_or_else(|_| panic!("expected {state:?}, is {:?}", self.registration.state()))
            .unwrap();
    }

    fn heard(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    fn gone(&self) {
        self.script.lose(Loss::Gone("test".into()));
    }
}

fn lost() -> Event {
    Event::Lost("test".into())
}

fn out(reason: OutReason, all: &[OutReason]) -> Event {
    Event::Out(reason, all.iter().copied().fold(OutFor::NONE, OutFor::with))
}

/// It says who was asked, and about what.
fn is_about_the_instance(error: &Error) {
    assert_eq!(
        (error.endpoint(), error.key()),
        (Some("script:1"), Some("orders/a")),
        "{error}"
    );
}

fn version(version: &str) -> Patch {
    Patch {
        version: Some(version.into()),
        ..Patch::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_publication_claims_and_every_later_one_keeps() {
    let bench = Bench::registered().await;
    bench.gone();
    bench.until(State::Lost).await;
    bench.until(State::Registered).await;
    assert_eq!(
        bench.script.asked(),
        [
            Asked::Publish("1".into(), Intent::Claim),
            Asked::Publish("1".into(), Intent::Keep)
        ]
    );
    assert_eq!(bench.heard(), [lost(), Event::Restored]);
}

// A new state that is read before its event is under way looks like an event that was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_a_new_state_finds_its_event_on_the_way() {
    let bench = start_told(Scripted::new(), Duration::from_millis(30));
    bench.registration.visible(TIMEOUT).await.unwrap();
    let mut expected = Vec::new();
    let mut seen = async |state: State, events: &[Event]| {
        while bench.registration.state() != state {
            sleep(Duration::from_micros(100)).await;
        }
        expected.extend_from_slice(events);
        assert_eq!(*bench.events.lock().unwrap(), expected);
    };
    bench.gone();
    seen(State::Lost, &[lost()]).await;
    seen(State::Registered, &[Event::Restored]).await;
    bench.silence.send_replace(STALL);
    let why = "stalled: the JavaScript thread has not ticked for 30000 ms (stallTimeoutMs)";
    seen(State::Stalled, &[out(Stalled, &[Stalled]), Event::Lost(why.into())]).await;
    bench.silence.send_replace(Duration::ZERO);
    seen(State::Registered, &[Event::Restored, Event::In]).await;
    bench.script.lose(Loss::Replaced);
    seen(State::Replaced, &[Event::Replaced]).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_before_the_first_success_fires_nothing_and_is_retried_within_the_time_given() {
    let script = Scripted::new();
    script.answers([Answer::Fail(ErrorKind::Unavailable), Answer::Hang, Answer::Ok]);
    let bench = start(script);
    bench.registration.visible(Duration::from_secs(60)).await.unwrap();
    assert_eq!(bench.heard(), []);
    let claims = bench.script.asked();
    assert!(
        claims.iter().all(|a| *a == Asked::Publish("1".into(), Intent::Claim)),
        "{claims:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_rejects_at_once_and_takes_back_what_may_have_been_written() {
    let script = Scripted::new();
    script.answers([Answer::Fail(ErrorKind::PermissionDenied)]);
    let bench = start(script);
    let before = Instant::now();
    let error = bench.registration.visible(TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(before.elapsed() < Duration::from_secs(1));
    bench.until(State::Deregistered).await;
    assert_eq!(bench.script.asked().last(), Some(&Asked::Withdraw));
}

#[tokio::test(start_paused = true)]
async fn a_first_publication_without_an_answer_rejects_with_a_timeout_and_is_taken_back() {
    let script = Scripted::new();
    script.answers([Answer::Hang, Answer::Hang]);
    let bench = start(script);
    let error = bench.registration.visible(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.message(), "the script did not answer within 5000 ms");
    is_about_the_instance(&error);
    bench.until(State::Deregistered).await;
    assert_eq!(bench.script.asked().last(), Some(&Asked::Withdraw));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_any_length_fires_one_lost_and_one_restored() {
    let bench = Bench::registered().await;
    bench.script.answers(vec![Answer::Fail(ErrorKind::Unavailable); 500]);
    bench.gone();
    bench.until(State::Lost).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(bench.registration.state(), State::Lost);
    let tries = bench.script.published();
    assert!(
        (300..900).contains(&tries),
        "an hour of tries at most ten and at least five seconds apart: {tries}"
    );
    bench.script.publish.lock().unwrap().clear();
    timeout(Duration::from_secs(11), bench.until(State::Registered))
        .await
        .expect("back within one ceiling");
    assert_eq!(bench.heard(), [lost(), Event::Restored]);
}

#[tokio::test(start_paused = true)]
async fn the_first_repair_comes_within_half_a_second() {
    let bench = Bench::registered().await;
    sleep(TTL * 2).await;
    let before = Instant::now();
    bench.gone();
    bench.until(State::Lost).await;
    bench.until(State::Registered).await;
    assert!(before.elapsed() <= Duration::from_millis(510), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_back_off_is_reset_only_once_the_record_has_held_for_one_ttl() {
    let bench = Bench::registered().await;
    for _ in 0..8 {
        bench.gone();
        bench.until(State::Lost).await;
        bench.until(State::Registered).await;
    }
    let before = Instant::now();
    bench.gone();
    bench.until(State::Lost).await;
    bench.until(State::Registered).await;
    assert!(
        before.elapsed() >= Duration::from_secs(5),
        "a record that never holds is retried slowly"
    );
    sleep(TTL + Duration::from_millis(1)).await;
    let before = Instant::now();
    bench.gone();
    bench.until(State::Lost).await;
    bench.until(State::Registered).await;
    assert!(before.elapsed() <= Duration::from_millis(510));
}

#[tokio::test(start_paused = true)]
async fn a_newer_owner_ends_it_without_a_fight() {
    let bench = Bench::registered().await;
    bench.script.lose(Loss::Replaced);
    bench.until(State::Replaced).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.heard(), [Event::Replaced]);
    assert_eq!(bench.script.published(), 1, "it never publishes again");
    let error = bench.registration.update(version("2"), TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Replaced);
    bench.registration.deregister(TIMEOUT).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_finds_a_newer_owner_ends_it() {
    let bench = Bench::registered().await;
    bench
        .script
        .answers([Answer::Fail(ErrorKind::Unavailable), Answer::Fail(ErrorKind::Replaced)]);
    bench.gone();
    bench.until(State::Replaced).await;
    assert_eq!(bench.heard(), [lost(), Event::Replaced]);
}

#[tokio::test(start_paused = true)]
async fn an_update_is_published_at_once_and_without_events() {
    let bench = Bench::registered().await;
    bench.registration.update(version("2"), TIMEOUT).await.unwrap();
    assert_eq!(
        bench.script.asked().last(),
        Some(&Asked::Publish("2".into(), Intent::Keep))
    );
    assert_eq!(bench.heard(), []);
    assert_eq!(&*bench.registration.instance().version, "2");
}

#[tokio::test(start_paused = true)]
async fn a_failed_update_is_published_by_the_next_try_and_the_record_stays() {
    let bench = Bench::registered().await;
    bench.script.answers([Answer::Hang]);
    let error = bench
        .registration
        .update(version("2"), Duration::from_secs(3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(
        bench.registration.state(),
        State::Registered,
        "the old record still stands"
    );
    sleep(Duration::from_secs(30)).await;
    assert_eq!(
        bench.script.asked().last(),
        Some(&Asked::Publish("2".into(), Intent::Keep))
    );
    assert_eq!(bench.heard(), []);
}

#[tokio::test(start_paused = true)]
async fn an_update_while_lost_is_what_the_repair_publishes() {
    let bench = Bench::registered().await;
    bench.script.answers(vec![Answer::Fail(ErrorKind::Unavailable); 3]);
    bench.gone();
    bench.until(State::Lost).await;
    bench
        .registration
        .update(version("2"), Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(
        bench.script.asked().last(),
        Some(&Asked::Publish("2".into(), Intent::Keep))
    );
    assert_eq!(bench.heard(), [lost(), Event::Restored]);
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_host_of_an_update_is_replaced_too() {
    let bench = Bench::registered().await;
    let patch = Patch {
        endpoints: Some(["http://0.0.0.0:80".into()].into()),
        ..Patch::default()
    };
    bench.registration.update(patch, TIMEOUT).await.unwrap();
    assert_eq!(&*bench.registration.instance().endpoints, ["http://10.9.8.7:80".into()]);
}

#[tokio::test(start_paused = true)]
async fn a_deregister_that_waits_ends_with_the_close_of_the_client() {
    let bench = Bench::registered().await;
    bench.script.withdrawals([Answer::Hang, Answer::Hang]);
    let over = bench.registration.inner.over.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        over.cancel();
    });
    let before = Instant::now();
    let error = bench
        .registration
        .deregister(Duration::from_secs(3600))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), before.elapsed()),
        (ErrorKind::Closed, Duration::from_secs(1))
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_update_changes_nothing() {
    let bench = Bench::registered().await;
    let patch = Patch {
        endpoints: Some(["not a url".into()].into()),
        ..Patch::default()
    };
    let error = bench.registration.update(patch, TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(bench.registration.instance().endpoints.is_empty());
    assert_eq!(bench.script.published(), 1);
}

#[tokio::test(start_paused = true)]
async fn deregister_in_the_middle_of_a_repair_wins() {
    let bench = Bench::registered().await;
    bench.script.answers([Answer::Hang]);
    bench.gone();
    bench.until(State::Lost).await;
    sleep(Duration::from_secs(2)).await; // the repair is waiting for its answer now
    bench.registration.deregister(TIMEOUT).await.unwrap();
    let asked = bench.script.asked();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.script.asked(), asked, "nothing is published after it");
    assert_eq!(asked.last(), Some(&Asked::Withdraw));
    assert_eq!(bench.registration.state(), State::Deregistered);
}

#[tokio::test(start_paused = true)]
async fn what_came_of_an_attempt_that_core_gave_up_is_told_with_what_was_not_achieved() {
    const WHY: &str = "the script did not answer within 10000 ms";
    let script = Scripted::new();
    script.answers(vec![Answer::Hang; 9]);
    let bench = start(script);
    let error = bench.registration.visible(TIMEOUT * 2).await.unwrap_err();
    is_about_the_instance(&error);
    assert!(error.message().contains(WHY), "{error}");
    bench.until(State::Deregistered).await;

    let bench = Bench::registered().await;
    bench.script.withdrawals(vec![Answer::Hang; 9]);
    let error = bench.registration.withdraw(Withdrawn, TIMEOUT * 2).await.unwrap_err();
    is_about_the_instance(&error);
    assert!(error.message().contains(WHY), "{error}");

    let bench = Bench::registered().await;
    bench.script.lose(Loss::Replaced);
    bench.until(State::Replaced).await;
    let error = bench.registration.update(version("2"), TIMEOUT).await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Replaced, Some("orders/a")));
}

#[tokio::test(start_paused = true)]
async fn deregister_is_bounded_is_tried_on_and_may_be_repeated() {
    let bench = Bench::registered().await;
    bench
        .script
        .withdrawals([Answer::Hang, Answer::Fail(ErrorKind::Unavailable)]);
    let before = Instant::now();
    let error = bench.registration.deregister(Duration::from_secs(4)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    is_about_the_instance(&error);
    assert_eq!(before.elapsed(), Duration::from_secs(4));
    assert_eq!(bench.registration.state(), State::Deregistering);
    bench.registration.deregister(Duration::from_secs(60)).await.unwrap();
    bench.registration.deregister(Duration::from_secs(60)).await.unwrap();
    assert_eq!(
        bench.script.asked().iter().filter(|a| **a == Asked::Withdraw).count(),
        3
    );
    assert_eq!(bench.heard(), []);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_never_succeeds_ends_after_ten_minutes() {
    let bench = Bench::registered().await;
    bench
        .script
        .withdrawals(vec![Answer::Fail(ErrorKind::Unavailable); 10_000]);
    bench.registration.deregister(Duration::from_secs(1)).await.unwrap_err();
    sleep(WITHDRAW_FOR).await;
    bench.until(State::Deregistered).await;
}

#[tokio::test(start_paused = true)]
async fn a_stall_withdraws_and_the_next_tick_puts_it_back() {
    let bench = Bench::registered().await;
    bench.silence.send_replace(STALL / 2);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.registration.state(), State::Registered);
    bench.silence.send_replace(STALL);
    bench.until(State::Stalled).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.script.asked().last(), Some(&Asked::Withdraw));
    assert_eq!(bench.registration.state(), State::Stalled);
    bench.silence.send_replace(Duration::ZERO);
    bench.until(State::Registered).await;
    let heard = bench.heard();
    assert!(
        matches!(
            &heard[..],
            [Event::Out(Stalled, _), Event::Lost(why), Event::Restored, Event::In] if why.starts_with("stalled")
        ),
        "{heard:?}"
    );
    assert_eq!(
        bench.script.asked().last(),
        Some(&Asked::Publish("1".into(), Intent::Keep))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stall_whose_withdrawal_fails_is_withdrawn_by_a_later_try() {
    let bench = Bench::registered().await;
    bench
        .script
        .withdrawals([Answer::Hang, Answer::Fail(ErrorKind::Unavailable)]);
    bench.silence.send_replace(STALL);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        bench.script.asked().iter().filter(|a| **a == Asked::Withdraw).count(),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn a_stall_during_an_outage_tells_of_one_loss_only() {
    let bench = Bench::registered().await;
    bench.script.answers(vec![Answer::Fail(ErrorKind::Unavailable); 100]);
    bench.gone();
    bench.until(State::Lost).await;
    bench.silence.send_replace(STALL);
    bench.until(State::Stalled).await;
    bench.script.publish.lock().unwrap().clear();
    bench.silence.send_replace(Duration::ZERO);
    bench.until(State::Registered).await;
    let expected = [lost(), out(Stalled, &[Stalled]), Event::Restored, Event::In];
    assert_eq!(bench.heard(), expected);
}

#[tokio::test(start_paused = true)]
async fn deregister_while_stalled_ends_it() {
    let bench = Bench::registered().await;
    bench.silence.send_replace(STALL);
    bench.until(State::Stalled).await;
    bench.registration.deregister(TIMEOUT).await.unwrap();
    bench.silence.send_replace(Duration::ZERO);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.script.published(), 1);
}

#[tokio::test(start_paused = true)]
async fn updates_more_often_than_every_ttl_do_not_keep_the_back_off_up() {
    let bench = Bench::registered().await;
    for _ in 0..8 {
        bench.gone();
        bench.until(State::Lost).await;
        bench.until(State::Registered).await;
    }
    for i in 0..20 {
        sleep(TTL / 3).await;
        bench
            .registration
            .update(version(&i.to_string()), TIMEOUT)
            .await
            .unwrap();
    }
    let before = Instant::now();
    bench.gone();
    bench.until(State::Lost).await;
    bench.until(State::Registered).await;
    assert!(before.elapsed() <= Duration::from_millis(510), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_update_does_not_wait_for_the_pause_after_a_failed_one() {
    let bench = Bench::registered().await;
    bench.script.answers(vec![Answer::Fail(ErrorKind::Unavailable); 60]);
    bench
        .registration
        .update(version("2"), Duration::from_secs(15))
        .await
        .unwrap_err();
    bench.script.publish.lock().unwrap().clear();
    bench
        .registration
        .update(version("3"), Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(
        bench.script.asked().last(),
        Some(&Asked::Publish("3".into(), Intent::Keep))
    );
}

mod traffic;
