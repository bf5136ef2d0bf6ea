//! Out of traffic and in again: what the owner wants, what the stall guard wants, and both at once.

use super::*;

fn asked_after(bench: &Bench, seen: usize) -> Vec<Asked> {
    bench.script.asked().split_off(seen)
}

fn publish(version: &str) -> Asked {
    Asked::Publish(version.into(), Intent::Keep)
}

fn withdrawals(bench: &Bench) -> usize {
    bench.script.asked().iter().filter(|a| **a == Asked::Withdraw).count()
}

fn words(registration: &Registration) -> String {
    registration.out_for().to_string()
}

/// Waits for both at once.
async fn together<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    tokio::join!(a, b)
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_is_removed_and_comes_back_when_it_is_restored() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    assert_eq!(
        (registration.state(), words(registration).as_str()),
        (State::Out, "withdrawn")
    );
    assert_eq!(asked_after(&bench, 1), [Asked::Stop, Asked::Stop, Asked::Withdraw]);
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(withdrawals(&bench), 1, "an hour later nothing was done but that");
    registration.restore(Withdrawn, TIMEOUT).await.unwrap();
    assert_eq!(
        (registration.state(), words(registration).as_str()),
        (State::Registered, "")
    );
    assert_eq!(bench.script.asked().last(), Some(&publish("1")));
    assert_eq!(bench.heard(), [out(Withdrawn, &[Withdrawn]), Event::In], "and no loss");
}

#[tokio::test(start_paused = true)]
async fn what_stands_again_while_it_is_out_is_removed_again_and_who_asks_meanwhile_waits() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    for times in 2..5 {
        bench.script.withdrawals([Answer::Fail(ErrorKind::Unavailable)]);
        bench.script.reappears.send_replace(true);
        sleep(Duration::from_millis(1)).await;
        registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
        assert!(!*bench.script.reappears.borrow());
        assert_eq!(withdrawals(&bench), 2 * times - 1, "one that failed, and one more");
    }
    assert_eq!((registration.state(), bench.script.published()), (State::Out, 1));
    bench.script.reappears.send_replace(true);
    registration.restore(Withdrawn, TIMEOUT).await.unwrap();
    assert_eq!(registration.state(), State::Registered);
    assert_eq!(bench.heard(), [out(Withdrawn, &[Withdrawn]), Event::In]);
}

#[tokio::test(start_paused = true)]
async fn several_reasons_add_up_and_the_last_restore_brings_it_back() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    registration.withdraw(Unhealthy, TIMEOUT).await.unwrap();
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    registration.restore(Unhealthy, TIMEOUT).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (bench.script.published(), words(registration).as_str()),
        (1, "withdrawn")
    );
    registration.restore(Withdrawn, TIMEOUT).await.unwrap();
    assert_eq!(bench.script.published(), 2);
    let events = [
        out(Unhealthy, &[Unhealthy]),
        out(Withdrawn, &[Unhealthy, Withdrawn]),
        Event::In,
    ];
    assert_eq!(bench.heard(), events);
}

#[tokio::test(start_paused = true)]
async fn a_stall_and_the_owner_both_hold_it_out_and_either_may_end_first() {
    for stall_ends_first in [true, false] {
        let bench = Bench::registered().await;
        let registration = &bench.registration;
        registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
        bench.silence.send_replace(STALL);
        bench.until(State::Stalled).await;
        assert_eq!(words(registration), "stalled, withdrawn");
        if stall_ends_first {
            bench.silence.send_replace(Duration::ZERO);
            bench.until(State::Out).await;
            sleep(Duration::from_secs(60)).await;
            assert_eq!(bench.script.published(), 1);
            registration.restore(Withdrawn, TIMEOUT).await.unwrap();
        } else {
            let restored = async {
                sleep(Duration::from_secs(5)).await;
                assert_eq!((bench.script.published(), words(registration).as_str()), (1, "stalled"));
                bench.silence.send_replace(Duration::ZERO);
            };
            together(registration.restore(Withdrawn, TIMEOUT), restored)
                .await
                .0
                .unwrap();
        }
        assert_eq!((bench.script.published(), withdrawals(&bench)), (2, 1));
        let stalled = out(Stalled, &[Stalled, Withdrawn]);
        assert_eq!(bench.heard(), [out(Withdrawn, &[Withdrawn]), stalled, Event::In]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_while_out_is_kept_and_published_at_the_return() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    registration.update(version("2"), TIMEOUT).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.script.published(), 1);
    registration.restore(Withdrawn, TIMEOUT).await.unwrap();
    assert_eq!(bench.script.asked().last(), Some(&publish("2")));
    assert_eq!(bench.script.published(), 2, "once, with all of it");
}

#[tokio::test(start_paused = true)]
async fn an_update_that_waits_is_kept_when_the_instance_goes_out() {
    let bench = Bench::registered().await;
    bench.script.answers([Answer::Hang]);
    let out = async {
        sleep(Duration::from_secs(1)).await;
        bench.registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    };
    let before = Instant::now();
    let (updated, ()) = together(bench.registration.update(version("2"), TIMEOUT), out).await;
    updated.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_in_an_outage_rejects_in_time_says_so_and_is_tried_for_as_long_as_it_takes() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    bench
        .script
        .withdrawals(vec![Answer::Fail(ErrorKind::Unavailable); 10_000]);
    let error = registration
        .withdraw(Withdrawn, Duration::from_secs(3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = error.to_string();
    assert!(
        text.contains("for as long as the registration lives") && text.contains("scripted"),
        "{text}"
    );
    assert_eq!(
        (registration.state(), words(registration).as_str()),
        (State::Out, "withdrawn")
    );
    sleep(WITHDRAW_FOR * 3).await;
    let tries = withdrawals(&bench);
    assert!((180..400).contains(&tries), "paced, and not given up: {tries}");
    bench.script.withdraw.lock().unwrap().clear();
    registration.withdraw(Withdrawn, Duration::from_secs(11)).await.unwrap();
    assert_eq!(bench.script.published(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restore_in_an_outage_rejects_in_time_and_may_be_repeated_until_it_is_back() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    bench.script.answers(vec![Answer::Fail(ErrorKind::Unavailable); 1000]);
    for _ in 0..2 {
        let error = registration
            .restore(Withdrawn, Duration::from_secs(3))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!((registration.state(), words(registration).as_str()), (State::Out, ""));
    }
    bench.script.publish.lock().unwrap().clear();
    registration.restore(Withdrawn, Duration::from_secs(11)).await.unwrap();
    assert_eq!(bench.heard(), [out(Withdrawn, &[Withdrawn]), Event::In]);
    let error = registration.restore(Withdrawn, TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "it is back, and out no more");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_at_the_return_rejects_at_once_and_is_tried_on() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    // That of a removal is not taken for one.
    bench.script.withdrawals([Answer::Fail(ErrorKind::PermissionDenied)]);
    bench.script.answers([Answer::Fail(ErrorKind::PermissionDenied)]);
    registration
        .withdraw(Withdrawn, Duration::from_millis(1))
        .await
        .unwrap_err();
    bench.until(State::Out).await;
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    let error = registration.restore(Withdrawn, TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    bench.until(State::Registered).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_called_back_in_time_never_goes_and_both_hear_how_it_ended() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    // Before the machine has looked.
    let (out_, in_) = together(
        registration.withdraw(Withdrawn, TIMEOUT),
        registration.restore(Withdrawn, TIMEOUT),
    )
    .await;
    assert_eq!(out_.unwrap_err().kind(), ErrorKind::Aborted);
    in_.unwrap();
    assert_eq!(bench.script.published(), 1);
    // While its removal hangs.
    bench.script.withdrawals([Answer::Hang]);
    let back = async {
        bench.until(State::Out).await;
        registration.restore(Withdrawn, TIMEOUT).await
    };
    let (out_, in_) = together(registration.withdraw(Withdrawn, TIMEOUT), back).await;
    assert_eq!(out_.unwrap_err().kind(), ErrorKind::Aborted);
    in_.unwrap();
    assert_eq!(registration.state(), State::Registered);
    // And the other way round: out again before it was back.
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    bench.script.answers([Answer::Hang]);
    let again = async {
        sleep(Duration::from_secs(1)).await;
        registration.withdraw(Withdrawn, TIMEOUT).await
    };
    let (in_, out_) = together(registration.restore(Withdrawn, TIMEOUT), again).await;
    assert_eq!(in_.unwrap_err().kind(), ErrorKind::Aborted);
    out_.unwrap();
    assert_eq!(words(registration), "withdrawn");
}

#[tokio::test(start_paused = true)]
async fn going_out_and_in_is_no_way_around_the_back_off() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    bench.script.answers(vec![Answer::Fail(ErrorKind::Unavailable); 10_000]);
    bench
        .script
        .withdrawals(vec![Answer::Fail(ErrorKind::Unavailable); 10_000]);
    let before = Instant::now();
    while before.elapsed() < Duration::from_secs(60) {
        let _ = registration.withdraw(Withdrawn, Duration::from_millis(5)).await;
        let _ = registration.restore(Withdrawn, Duration::from_millis(5)).await;
    }
    let tries = (bench.script.published(), withdrawals(&bench));
    assert!(
        tries.0 <= 125 && tries.1 <= 125,
        "two of each a second at most: {tries:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repaired_while_it_is_out() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    bench.script.answers([Answer::Fail(ErrorKind::Unavailable)]);
    bench.gone();
    bench.until(State::Lost).await;
    registration.withdraw(Unhealthy, TIMEOUT).await.unwrap();
    bench.gone();
    sleep(Duration::from_secs(600)).await;
    assert_eq!((registration.state(), bench.script.published()), (State::Out, 1));
    bench.script.publish.lock().unwrap().clear();
    registration.restore(Unhealthy, TIMEOUT).await.unwrap();
    let events = [lost(), out(Unhealthy, &[Unhealthy]), Event::Restored, Event::In];
    assert_eq!(bench.heard(), events, "the loss of before ends with the return");
}

#[tokio::test(start_paused = true)]
async fn whoever_claims_the_id_meanwhile_ends_it_at_the_return() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    bench.script.answers([Answer::Fail(ErrorKind::Replaced)]);
    let error = registration.restore(Withdrawn, TIMEOUT).await.unwrap_err();
    assert_eq!(
        (error.kind(), registration.state()),
        (ErrorKind::Replaced, State::Replaced)
    );
    assert_eq!(bench.heard(), [out(Withdrawn, &[Withdrawn]), Event::Replaced]);
    for error in [
        registration.withdraw(Withdrawn, TIMEOUT).await.unwrap_err(),
        registration.restore(Withdrawn, TIMEOUT).await.unwrap_err(),
        registration.drain(TIMEOUT, TIMEOUT).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Replaced);
    }
    assert_eq!(words(registration), "");
}

#[tokio::test(start_paused = true)]
async fn what_was_never_withdrawn_can_not_be_restored() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    registration.withdraw(Unhealthy, TIMEOUT).await.unwrap();
    let error = registration.restore(Withdrawn, TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let text = error.to_string();
    assert!(
        text.contains("reason: \"withdrawn\"") && text.contains("unhealthy"),
        "{text}"
    );
    assert_eq!(words(registration), "unhealthy", "nothing changed");
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_neither_withdrawn_nor_restored_and_deregister_ends_what_waits() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    bench.script.withdrawals([Answer::Hang]);
    let ended = async {
        sleep(Duration::from_secs(1)).await;
        registration.deregister(TIMEOUT).await
    };
    let (waited, ended) = together(registration.withdraw(Withdrawn, TIMEOUT), ended).await;
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Closed);
    ended.unwrap();
    for error in [
        registration.withdraw(Withdrawn, TIMEOUT).await.unwrap_err(),
        registration.restore(Withdrawn, TIMEOUT).await.unwrap_err(),
        registration.drain(TIMEOUT, TIMEOUT).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
    assert_eq!(
        (registration.state(), bench.script.published()),
        (State::Deregistered, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_out_waits_and_ends() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    let before = Instant::now();
    let look = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            (registration.state(), words(registration).as_str()),
            (State::Out, "draining")
        );
        assert_eq!(withdrawals(&bench), 1);
    };
    let (drained, ()) = together(registration.drain(Duration::from_secs(5), TIMEOUT), look).await;
    drained.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(5));
    assert_eq!(
        (registration.state(), words(registration).as_str()),
        (State::Deregistered, "")
    );
    assert_eq!(bench.heard(), [out(Draining, &[Draining])]);
}

#[tokio::test(start_paused = true)]
async fn deregister_cuts_a_drain_short_and_an_outage_does_not_hold_it_up() {
    let bench = Bench::registered().await;
    let registration = &bench.registration;
    let before = Instant::now();
    let cut = async {
        sleep(Duration::from_secs(1)).await;
        registration.deregister(TIMEOUT).await
    };
    let (drained, cut) = together(registration.drain(Duration::from_secs(3600), TIMEOUT), cut).await;
    drained.unwrap();
    cut.unwrap();
    assert_eq!(before.elapsed(), Duration::from_secs(1));

    let bench = Bench::registered().await;
    bench
        .script
        .withdrawals(vec![Answer::Fail(ErrorKind::Unavailable); 10_000]);
    let error = bench
        .registration
        .drain(Duration::from_secs(3600), Duration::from_secs(3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    bench.until(State::Deregistering).await; // it ends all the same
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_before_it_was_ever_published_claims_at_its_first_return() {
    let script = Scripted::new();
    script.answers(vec![Answer::Fail(ErrorKind::Unavailable); 3]);
    let bench = start(script);
    let registration = &bench.registration;
    registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.script.published(), 0);
    registration.restore(Withdrawn, Duration::from_secs(60)).await.unwrap();
    assert_eq!(
        bench.script.asked().last(),
        Some(&Asked::Publish("1".into(), Intent::Claim))
    );
    assert_eq!(bench.heard(), [out(Withdrawn, &[Withdrawn]), Event::In]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_rounds_publish_and_withdraw_once_each() {
    let bench = Bench::registered().await;
    for _ in 0..1000 {
        bench.registration.withdraw(Withdrawn, TIMEOUT).await.unwrap();
        bench.registration.restore(Withdrawn, TIMEOUT).await.unwrap();
        bench.heard();
    }
    assert_eq!((bench.script.published(), withdrawals(&bench)), (1001, 1000));
}
