//! Streams by script, under paused time: what is sent when, and when a lease is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::etcd::calls::caller::Caller;
use crate::etcd::lease::leases::Leases;
use crate::etcd::lease::slot::{Keep, LeaseEvent, LeaseOptions, LeaseState, Slot};
use crate::etcd::options::EtcdOptions;
use crate::log::Log;

/// Hands every stream that is opened to the test.
#[derive(Clone)]
struct Script {
    lines: mpsc::UnboundedSender<Line>,
    refuses: Arc<AtomicBool>,
    silences: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
}

/// The server's end of a stream.
struct Line {
    requests: mpsc::Receiver<i64>,
    answers: mpsc::UnboundedSender<Result<LeaseKeepAliveResponse, Fault>>,
}

impl Line {
    /// The next request; `None` when the client has ended the stream.
    async fn request(&mut self) -> Option<i64> {
        self.requests.recv().await
    }

    fn answer(&self, id: i64, ttl: i64) {
        let _ = self.answers.send(Ok(LeaseKeepAliveResponse { header: None, id, ttl }));
    }
}

fn broken(cause: Cause) -> Fault {
    Fault::new(cause, ErrorKind::Unavailable, "broken on purpose")
}

#[async_trait]
impl Dial for Script {
    type Route = ();

    async fn open(&self, first: i64, patience: Duration) -> Result<Open<()>, Fault> {
        if self.refuses.load(Ordering::SeqCst) {
            tokio::time::sleep(patience / 10).await;
            return Err(broken(Cause::NotSent));
        }
        let (requests, queue) = mpsc::channel(IN_FLIGHT);
        let (answers, said) = mpsc::unbounded_channel();
        let sent = Instant::now();
        requests.try_send(first).unwrap();
        let _ = self.lines.send(Line {
            requests: queue,
            answers,
        });
        let answers = futures::stream::unfold(said, |mut said| async move { Some((said.recv().await?, said)) });
        Ok(Open {
            requests,
            answers: answers.boxed(),
            route: (),
            first: (first, sent),
        })
    }

    fn heard(&self, (): &()) {}

    fn broke(&self, (): &()) {
        self.broken.fetch_add(1, Ordering::SeqCst);
    }

    fn silent(&self, (): &(), _since: Instant) {
        self.silences.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    commands: mpsc::UnboundedSender<KeeperCommand>,
    lines: mpsc::UnboundedReceiver<Line>,
    script: Script,
    closed: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    fn new() -> Self {
        let (lines_in, lines) = mpsc::unbounded_channel();
        let script = Script {
            lines: lines_in,
            refuses: Arc::default(),
            silences: Arc::default(),
            broken: Arc::default(),
        };
        let (commands, receiver) = mpsc::unbounded_channel();
        let closed = CancellationToken::new();
        let keeper = Keeper::new(script.clone(), receiver, Arc::default());
        Self {
            commands,
            lines,
            task: tokio::spawn(keeper.run(closed.clone())),
            script,
            closed,
        }
    }

    fn keep_with(&self, id: i64, ttl: u64, options: &LeaseOptions) -> Arc<Slot> {
        let (confirmed, ttl) = (Instant::now(), Duration::from_secs(ttl));
        let slot = Slot::new(id, confirmed, ttl, options);
        let keep = Keep {
            slot: Arc::clone(&slot),
            confirmed,
            ttl,
        };
        let _ = self.commands.send(KeeperCommand::Keep(keep));
        slot
    }

    fn keep(&self, id: i64, ttl: u64) -> Arc<Slot> {
        self.keep_with(id, ttl, &LeaseOptions::default())
    }

    async fn line(&mut self) -> Line {
        self.lines.recv().await.unwrap()
    }

    /// Answers everything on every stream from here on, with the time to live `ttl`, and counts.
    fn answer_all(&mut self, ttl: i64) -> Arc<AtomicUsize> {
        let (_, none) = mpsc::unbounded_channel();
        let mut lines = std::mem::replace(&mut self.lines, none);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Some(mut line) = lines.recv().await {
                let count = Arc::clone(&counted);
                tokio::spawn(async move {
                    while let Some(id) = line.request().await {
                        count.fetch_add(1, Ordering::SeqCst);
                        line.answer(id, ttl);
                    }
                });
            }
        });
        count
    }
}

fn alive(slot: &Slot) -> bool {
    *slot.state().borrow() == LeaseState::Alive
}

fn why(slot: &Slot) -> String {
    match slot.state().borrow().clone() {
        LeaseState::Lost(why) => why,
        LeaseState::Alive => panic!("it is alive"),
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_every_third_and_lives() {
    let mut bench = Bench::new();
    let slot = bench.keep(1, 3);
    let count = bench.answer_all(3);
    tokio::time::sleep(seconds(60)).await;
    assert!(alive(&slot));
    let count = count.load(Ordering::SeqCst);
    assert!((60..=68).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_leases_share_a_stream_and_part() {
    let mut bench = Bench::new();
    let slots: Vec<_> = (1..=10_000).map(|id| bench.keep(id, 15)).collect();
    let count = bench.answer_all(15);
    tokio::time::sleep(seconds(30)).await;
    let mut most = 0;
    for _ in 0..60 {
        let before = count.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(500)).await;
        most = most.max(count.load(Ordering::SeqCst) - before);
    }
    assert!(slots.iter().all(|slot| alive(slot)));
    // Ten times half a second in each third: a tenth would be a thousand.
    assert!(most < 2_500, "{most} in half a second");
    assert_eq!(bench.script.broken.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_lost_at_its_deadline_and_not_later() {
    let bench = Bench::new();
    bench.script.refuses.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let slot = bench.keep(1, 3);
    slot.lost().await;
    assert_eq!(begun.elapsed().as_millis() / 10, 300);
    assert!(why(&slot).contains("not renewed"), "{}", why(&slot));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_sending_and_by_the_time_to_live_of_the_answer() {
    let mut bench = Bench::new();
    let slot = bench.keep(1, 3);
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    let sent = Instant::now();
    tokio::time::sleep(Duration::from_millis(300)).await;
    line.answer(1, 20);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(slot.deadline(), sent + seconds(20));
    // The next one is a third of twenty seconds away, not of three.
    let again = tokio::time::timeout(seconds(5), line.request()).await;
    assert!(again.is_err(), "{again:?}");
    assert_eq!(line.request().await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_time_to_live_is_a_loss_at_once() {
    let mut bench = Bench::new();
    let (one, two) = (bench.keep(1, 30), bench.keep(2, 60));
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    line.answer(1, 0);
    one.lost().await;
    assert!(why(&one).contains("expired or was revoked"));
    assert!(alive(&two));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_while_the_process_was_stopped_past_the_deadline_is_not_used() {
    let mut bench = Bench::new();
    let slot = bench.keep(1, 3);
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    // The answer is there, and then nothing of this process runs until after the deadline.
    line.answer(1, 30);
    let begun = Instant::now();
    tokio::time::advance(seconds(10)).await;
    slot.lost().await;
    assert!(begun.elapsed() < seconds(11), "{:?}", begun.elapsed());
    assert!(why(&slot).contains("not renewed"), "{}", why(&slot));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_or_breaks_is_opened_again_at_once() {
    let mut bench = Bench::new();
    let slot = bench.keep(1, 30);
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    line.answer(1, 30);
    tokio::time::sleep(seconds(1)).await;
    let ended = Instant::now();
    drop(line);
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    assert!(ended.elapsed() < Duration::from_millis(10), "{:?}", ended.elapsed());
    line.answer(1, 30);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _ = line.answers.send(Err(broken(Cause::Broken)));
    let ended = Instant::now();
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    assert!(ended.elapsed() < Duration::from_millis(10), "{:?}", ended.elapsed());
    assert_eq!(bench.script.broken.load(Ordering::SeqCst), 2);
    assert!(alive(&slot));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_left_within_a_sixth_of_the_shortest_time_to_live() {
    let mut bench = Bench::new();
    let slot = bench.keep(1, 6);
    let mut silent = bench.line().await;
    assert_eq!(silent.request().await, Some(1));
    let since = Instant::now();
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    assert_eq!(since.elapsed().as_millis() / 10, 100);
    assert_eq!(bench.script.silences.load(Ordering::SeqCst), 1);
    line.answer(1, 6);
    tokio::time::sleep(seconds(1)).await;
    assert!(alive(&slot) && slot.deadline() > since + seconds(6));
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_without_an_answer_are_not_opened_without_a_pause() {
    let mut bench = Bench::new();
    let slot = bench.keep(1, 3);
    let mut opened = 0;
    while alive(&slot) {
        tokio::select! {
            _ = bench.line() => opened += 1,
            () = slot.lost() => {}
        }
    }
    assert!((3..20).contains(&opened), "{opened}");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_leases_take_turns_and_the_one_that_dies_first_comes_first() {
    let mut bench = Bench::new();
    let slots: Vec<_> = (1..=1000).map(|id| bench.keep(id, 30)).collect();
    let urgent = bench.keep(5000, 20);
    bench.script.refuses.store(true, Ordering::SeqCst);
    tokio::time::sleep(seconds(12)).await;
    bench.script.refuses.store(false, Ordering::SeqCst);
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(5000));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut waiting = 0;
    while line.requests.try_recv().is_ok() {
        waiting += 1;
    }
    assert_eq!(waiting, IN_FLIGHT - 1);
    assert!(alive(&urgent) && slots.iter().all(|slot| alive(slot)));
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_for_a_renewal_gets_an_answer_whatever_comes_of_it() {
    let mut bench = Bench::new();
    let renew = |id| {
        let (told, answer) = oneshot::channel();
        let _ = bench.commands.send(KeeperCommand::Renew(id, told));
        answer
    };
    let slot = bench.keep(1, 9);
    let answer = renew(1);
    let nobody = renew(2);
    assert!(nobody.await.unwrap().is_err());
    // The stream ends under it, and the next one answers.
    let lines = &mut bench.lines;
    drop(lines.recv().await);
    let mut line = lines.recv().await.unwrap();
    assert_eq!(line.request().await, Some(1));
    line.answer(1, 9);
    assert_eq!(answer.await.unwrap().unwrap().ttl, 9);
    // Nobody answers any more: it ends with the lease.
    let (told, answer) = oneshot::channel();
    let _ = bench.commands.send(KeeperCommand::Renew(1, told));
    bench.script.refuses.store(true, Ordering::SeqCst);
    drop(line);
    assert!(answer.await.unwrap().is_err());
    assert!(!alive(&slot));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_does_not_renew_itself_is_lost_unless_somebody_renews_it() {
    let mut bench = Bench::new();
    let options = LeaseOptions {
        renews_itself: false,
        ..LeaseOptions::default()
    };
    let (one, two) = (bench.keep_with(1, 3, &options), bench.keep_with(2, 3, &options));
    let count = bench.answer_all(3);
    tokio::time::sleep(seconds(2)).await;
    let (told, answer) = oneshot::channel();
    let _ = bench.commands.send(KeeperCommand::Renew(1, told));
    assert!(answer.await.unwrap().is_ok());
    tokio::time::sleep(seconds(2)).await;
    assert!(alive(&one) && !alive(&two));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_observer_hears_of_all_only_when_it_asks() {
    let mut bench = Bench::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&heard);
    let options = LeaseOptions {
        observer: Some(Arc::new(move |event: &LeaseEvent| {
            let name = match event {
                LeaseEvent::Established => "established",
                LeaseEvent::Fired => "fired",
                LeaseEvent::Succeeded(_) => "succeeded",
                LeaseEvent::Failed(_) => "failed",
                LeaseEvent::Lost(_) => "lost",
            };
            inner.lock().unwrap().push(name);
        })),
        ..LeaseOptions::default()
    };
    let slot = bench.keep_with(1, 3, &options);
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    line.answer(1, 3);
    assert_eq!(line.request().await, Some(1));
    assert!(heard.lock().unwrap().is_empty());
    slot.tell_all(true);
    line.answer(1, 3);
    assert_eq!(line.request().await, Some(1));
    drop(line);
    let mut line = bench.line().await;
    assert_eq!(line.request().await, Some(1));
    line.answer(1, 0);
    slot.lost().await;
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(
        *heard.lock().unwrap(),
        [
            "succeeded",
            "established", // the stream that was there before
            "fired",
            "failed",
            "established",
            "fired",
            "lost"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_loses_its_leases_at_once() {
    let bench = Bench::new();
    let slot = bench.keep(1, 30);
    tokio::time::sleep(seconds(1)).await;
    bench.closed.cancel();
    slot.lost().await;
    assert!(why(&slot).contains("closed"));
    bench.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_up_is_renewed_no_more() {
    let mut bench = Bench::new();
    let (one, _two) = (bench.keep(1, 3), bench.keep(2, 3));
    let mut line = bench.line().await;
    let _ = bench.commands.send(KeeperCommand::Forget(one));
    let mut last = 0;
    let end = Instant::now() + seconds(12);
    while let Ok(Some(id)) = tokio::time::timeout_at(end, line.request()).await {
        line.answer(id, 3);
        last = id;
        assert!(id == 2 || Instant::now() < end - seconds(9), "{id}");
    }
    assert_eq!(last, 2);
}

/// Within a minute.
async fn assert_lost(slot: &Slot, reason: &str) {
    tokio::time::timeout(seconds(60), slot.lost()).await.unwrap();
    assert!(why(slot).contains(reason), "{}", why(slot));
}

/// Who hears of everything and can't bear it.
fn bomb() -> LeaseOptions {
    LeaseOptions {
        observer: Some(Arc::new(|event| panic!("planted: {event:?}"))),
        ..LeaseOptions::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_task_loses_its_leases_and_says_why() {
    let mut bench = Bench::new();
    let (first, last) = (bench.keep(1, 30), bench.keep(3, 30));
    let planted = bench.keep_with(2, 3, &bomb());
    planted.tell_all(true);
    let _line = bench.line().await;
    for slot in [&first, &planted, &last] {
        assert_lost(slot, "a fault of its own").await;
    }
    bench.task.await.unwrap();
}

#[tokio::test]
async fn who_comes_after_the_end_of_the_task_is_told_or_kept_by_another() {
    let options = EtcdOptions {
        hosts: vec!["127.0.0.1:1".to_owned()], // nobody listens there
        ..EtcdOptions::default()
    };
    let calls = Caller::new(options, Log::default()).unwrap();
    let leases = Leases::new(calls.clone());
    let keep = |id, options: &LeaseOptions| {
        let (confirmed, ttl) = (Instant::now(), seconds(1));
        let slot = Slot::new(id, confirmed, ttl, options);
        slot.tell_all(true);
        leases.keep(Keep {
            slot: Arc::clone(&slot),
            confirmed,
            ttl,
        });
        slot
    };
    let planted = keep(1, &bomb());
    assert_lost(&planted, "a fault of its own").await;
    let kept = keep(2, &LeaseOptions::default());
    assert_lost(&kept, "not renewed").await;
    let open = keep(3, &LeaseOptions::default());
    calls.close();
    assert_lost(&open, "closed").await;
    for id in [4, 5] {
        let late = keep(id, &LeaseOptions::default());
        assert_lost(&late, "closed").await;
    }
}
