//! What is sent again, to whom, and for how long each is waited for: the loop alone, with members that answer by script,
//! under paused time.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::error::ErrorKind;
use crate::etcd::calls::caller::Caller;
use crate::etcd::calls::tries::Tries;
use crate::etcd::error::{Cause, Fault, judge_status};
use crate::etcd::options::EtcdOptions;
use crate::log::Log;

const SECOND: Duration = Duration::from_secs(1);

/// What a member does with a request.
#[derive(Clone)]
enum Says {
    Answer,
    Fails(Cause),
    /// gRPC's status, in etcd's words.
    Refuses(Code, &'static str),
    Nothing,
}

/// So many members, and what each was asked and when.
struct Bench {
    calls: Caller,
    asked: Arc<Mutex<Vec<(String, Duration)>>>,
    begun: Instant,
}

impl Bench {
    fn new(members: usize) -> Self {
        let options = EtcdOptions {
            hosts: (0..members).map(|i| format!("10.0.0.{i}:2379")).collect(),
            ..EtcdOptions::default()
        };
        Self {
            calls: Caller::new(options, Log::default()).unwrap(),
            asked: Arc::default(),
            begun: Instant::now(),
        }
    }

    /// The same, with a connection to each that is open.
    fn open(members: usize) -> Self {
        let bench = Self::new(members);
        for member in 0..members {
            let connection = bench.calls.endpoints().member(member).connection().unwrap();
            connection.link.pretend_open();
        }
        bench
    }

    /// Makes a call; the member that is asked as the n-th says `script[n]`, and the last of it from there on.
    async fn call(&self, tries: Tries, script: &[Says]) -> Result<String, Fault> {
        lock(&self.asked).clear();
        let answer = self.calls.attempt("ask", tries, |connection| {
            let mut asked = lock(&self.asked);
            let says = script[asked.len().min(script.len() - 1)].clone();
            asked.push((connection.url.to_string(), self.begun.elapsed()));
            async move {
                match says {
                    Says::Answer => Ok(connection.url.to_string()),
                    Says::Fails(cause) => Err(Fault::new(cause, ErrorKind::Unavailable, "as the script has it")),
                    Says::Refuses(code, words) => Err(judge_status(Status::new(code, words), &connection.url)),
                    Says::Nothing => pending().await,
                }
            }
        });
        answer.await.map(|(url, _)| url)
    }

    fn asked(&self) -> Vec<String> {
        lock(&self.asked).iter().map(|(url, _)| url.clone()).collect()
    }

    /// When each try began, in whole seconds.
    fn moments(&self) -> Vec<u64> {
        lock(&self.asked).iter().map(|(_, at)| at.as_secs()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn read_within(time: Duration) -> Tries {
    Tries::until(Instant::now() + time)
}

fn write_within(time: Duration) -> Tries {
    Tries {
        repeatable: false,
        ..read_within(time)
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_to_the_next_member_for_whatever_another_may_mend() {
    for cause in [Cause::NotSent, Cause::Broken, Cause::Member] {
        let bench = Bench::open(3);
        let script = [Says::Fails(cause), Says::Fails(cause), Says::Answer];
        let answered = bench.call(read_within(10 * SECOND), &script).await.unwrap();
        let asked = bench.asked();
        assert_eq!((asked.len(), &answered), (3, &asked[2]), "{cause:?}");
        let mut each = asked.clone();
        each.sort();
        each.dedup();
        assert_eq!(each.len(), 3, "each once: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_member_can_mend_ends_a_call_at_once() {
    let refusals = [
        Says::Refuses(Code::PermissionDenied, "etcdserver: permission denied"),
        Says::Refuses(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        Says::Refuses(Code::InvalidArgument, "etcdserver: key is not provided"),
    ];
    for refusal in refusals {
        let bench = Bench::open(3);
        bench.call(read_within(10 * SECOND), &[refusal]).await.unwrap_err();
        assert_eq!(bench.asked().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_sent_again_only_where_it_surely_was_not_applied() {
    let again = [
        Says::Fails(Cause::NotSent),
        Says::Refuses(Code::Unavailable, "etcdserver: no leader"),
        Says::Refuses(Code::ResourceExhausted, "etcdserver: too many requests"),
    ];
    for says in again {
        let bench = Bench::open(2);
        bench
            .call(write_within(10 * SECOND), &[says, Says::Answer])
            .await
            .unwrap();
        assert_eq!(bench.asked().len(), 2);
    }
    let once = [
        Says::Fails(Cause::Broken),
        Says::Refuses(Code::Unavailable, "etcdserver: leader changed"),
        Says::Refuses(Code::Unavailable, "etcdserver: request timed out"),
    ];
    for says in once {
        let bench = Bench::open(2);
        let fault = bench
            .call(write_within(10 * SECOND), &[says, Says::Answer])
            .await
            .unwrap_err();
        assert!(fault.outcome_unknown, "{fault:?}");
        assert_eq!(bench.asked().len(), 1);
    }
    let bench = Bench::open(2);
    let refused = Says::Refuses(Code::PermissionDenied, "etcdserver: permission denied");
    let fault = bench.call(write_within(10 * SECOND), &[refused]).await.unwrap_err();
    assert!(!fault.outcome_unknown, "{fault:?}");
}

#[tokio::test(start_paused = true)]
async fn all_members_are_gone_through_twice_and_the_failure_names_them() {
    let bench = Bench::open(3);
    let fault = bench
        .call(read_within(60 * SECOND), &[Says::Fails(Cause::Member)])
        .await
        .unwrap_err();
    let asked = bench.asked();
    assert_eq!(asked.len(), 6);
    let tried: Vec<String> = fault.tried.iter().map(|(url, _)| url.clone()).collect();
    assert_eq!(tried, asked);
}

#[tokio::test(start_paused = true)]
async fn the_only_member_is_asked_four_times_while_that_is_quick() {
    let bench = Bench::open(1);
    let broken = [Says::Fails(Cause::Member)];
    bench.call(read_within(60 * SECOND), &broken).await.unwrap_err();
    assert_eq!(bench.asked().len(), 4);

    let slow = Bench::open(1);
    let asked = Arc::new(Mutex::new(0));
    let answer = slow.calls.attempt("ask", read_within(60 * SECOND), |_| {
        *lock(&asked) += 1;
        async {
            sleep(5 * SECOND / 2).await;
            Err::<(), _>(Fault::new(Cause::Member, ErrorKind::Unavailable, "slowly"))
        }
    });
    assert!(answer.await.is_err());
    assert_eq!(*lock(&asked), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_member_takes_a_third_of_the_time_and_no_more() {
    let bench = Bench::open(2);
    let answered = bench
        .call(read_within(9 * SECOND), &[Says::Nothing, Says::Answer])
        .await;
    assert!(answered.is_ok(), "{answered:?}");
    assert_eq!(bench.moments(), [0, 3]);
    // All silent: the time is over, and nobody has said anything.
    let bench = Bench::open(2);
    let fault = bench.call(read_within(9 * SECOND), &[Says::Nothing]).await.unwrap_err();
    assert_eq!(fault.error.kind(), ErrorKind::Timeout);
    assert_eq!(bench.begun.elapsed().as_secs(), 9);
    // Who said something is worth more than that time is over too.
    let bench = Bench::open(2);
    let script = [Says::Refuses(Code::Unavailable, "etcdserver: no leader"), Says::Nothing];
    let fault = bench.call(read_within(9 * SECOND), &script).await.unwrap_err();
    assert!(fault.error.message().contains("no leader"), "{fault:?}");
}

#[tokio::test(start_paused = true)]
async fn the_most_that_a_try_may_take_is_less_than_its_share() {
    let bench = Bench::open(3);
    let tries = Tries {
        most: Some(SECOND),
        ..read_within(60 * SECOND)
    };
    bench
        .call(tries, &[Says::Nothing, Says::Nothing, Says::Answer])
        .await
        .unwrap();
    assert_eq!(bench.moments(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_write_has_the_whole_time_with_a_member_that_has_it_and_leaves_one_that_never_opened() {
    let bench = Bench::open(2);
    let fault = bench
        .call(write_within(9 * SECOND), &[Says::Nothing])
        .await
        .unwrap_err();
    assert!(fault.outcome_unknown);
    assert_eq!((bench.asked().len(), bench.begun.elapsed().as_secs()), (1, 9));

    let bench = Bench::new(2);
    bench
        .call(write_within(9 * SECOND), &[Says::Nothing, Says::Answer])
        .await
        .unwrap();
    assert_eq!(bench.moments(), [0, 3]);
}

#[tokio::test(start_paused = true)]
async fn who_failed_is_asked_last_for_a_while() {
    let bench = Bench::open(2);
    bench
        .call(read_within(10 * SECOND), &[Says::Fails(Cause::Broken), Says::Answer])
        .await
        .unwrap();
    let first = bench.asked();
    bench.call(read_within(10 * SECOND), &[Says::Answer]).await.unwrap();
    assert_eq!(bench.asked(), first[1..]);
}

#[tokio::test(start_paused = true)]
async fn one_host_alone_is_tried_once() {
    let bench = Bench::open(3);
    let only = |place| Tries {
        only: Some(place),
        ..read_within(10 * SECOND)
    };
    for place in 0..3 {
        bench
            .call(only(place), &[Says::Fails(Cause::Member)])
            .await
            .unwrap_err();
        assert_eq!(bench.asked(), [format!("http://10.0.0.{place}:2379")]);
    }
    let fault = bench.call(only(3), &[Says::Answer]).await.unwrap_err();
    assert_eq!((fault.error.kind(), bench.asked().len()), (ErrorKind::Internal, 0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_asks_nobody() {
    let bench = Bench::open(1);
    bench.calls.close();
    let fault = bench.call(read_within(SECOND), &[Says::Answer]).await.unwrap_err();
    assert_eq!((fault.error.kind(), bench.asked().len()), (ErrorKind::Closed, 0));
}
