//! The yardstick of `bench/etcd`: the same calls by `etcd_client` alone, in loops on one current-thread runtime.
//!
//! `etcd_loop URL` takes a command a line on standard input, as JSON, and answers each with a line of JSON:
//!
//! | `do` | with | |
//! |---|---|---|
//! | `get`, `put`, `txn`, `list` | `atOnce`, `ms`, `prefix`, `keys` | so many callers, for so long; times in microseconds |
//! | `write` | `prefix`, `keys`, `count`, `atOnce` | writes as fast as it can, and says the revisions of the first and the last |

use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, GetOptions, KvClient, Txn, TxnOp};
use serde::Deserialize;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Every answer that the benchmark asks for is smaller.
const ANSWER_MOST: usize = 1 << 30;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    #[serde(rename = "do")]
    what: String,
    prefix: String,
    keys: usize,
    at_once: usize,
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    count: usize,
    #[serde(default)]
    value_bytes: usize,
}

/// What the callers of one command share.
struct Load {
    what: String,
    prefix: String,
    keys: Vec<String>,
    value: String,
}

fn main() -> Outcome<()> {
    let url = std::env::args().nth(1).ok_or("usage: etcd_loop URL")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(Client::connect([url], None))?;
    for line in std::io::stdin().lock().lines() {
        let command: Command = serde_json::from_str(&line?)?;
        let local = tokio::task::LocalSet::new();
        let answer = runtime.block_on(local.run_until(run(&client, command)))?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

async fn run(client: &Client, command: Command) -> Outcome<Value> {
    let kv = client.kv_client().max_decoding_message_size(ANSWER_MOST);
    let load = Rc::new(Load {
        keys: (0..command.keys).map(|i| key(&command.prefix, i)).collect(),
        value: "v".repeat(command.value_bytes),
        what: command.what,
        prefix: command.prefix,
    });
    if load.what == "write" {
        return write(kv, load, command.count, command.at_once).await;
    }
    let cpu = cpu_us();
    let start = Instant::now();
    let end = start + Duration::from_millis(command.ms);
    let callers: Vec<_> = (0..command.at_once)
        .map(|first| tokio::task::spawn_local(caller(kv.clone(), load.clone(), first, command.at_once, end)))
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await?.map_err(|e| e.to_string())?);
    }
    let wall = start.elapsed();
    let cpu = cpu_us() - cpu;
    times.sort_unstable();
    let count = u32::try_from(times.len())?.max(1);
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    let calls = f64::from(count);
    Ok(json!({
        "calls": times.len(),
        "perSecond": calls / wall.as_secs_f64(),
        "p50": at(50),
        "p99": at(99),
        "process": cpu / calls,
    }))
}

/// One call after the other until the time is over, and how long each took.
async fn caller(
    mut kv: KvClient,
    load: Rc<Load>,
    first: usize,
    step: usize,
    end: Instant,
) -> Result<Vec<Duration>, etcd_client::Error> {
    let mut times = Vec::new();
    let mut place = first;
    let mut begun = Instant::now();
    loop {
        let key = &load.keys[place % load.keys.len()];
        place += step;
        match load.what.as_str() {
            "get" => drop(kv.get(key.as_str(), None).await?),
            "put" => drop(kv.put(key.as_str(), load.value.as_str(), None).await?),
            "txn" => drop(kv.txn(txn(key, &load.value)).await?),
            _ => drop(
                kv.get(load.prefix.as_str(), Some(GetOptions::new().with_prefix()))
                    .await?,
            ),
        }
        let now = Instant::now();
        times.push(now - begun);
        begun = now;
        if now >= end {
            return Ok(times);
        }
    }
}

fn txn(key: &str, value: &str) -> Txn {
    Txn::new()
        .when([Compare::version(key, CompareOp::Greater, 0)])
        .and_then([TxnOp::put(key, value, None)])
        .or_else([TxnOp::get(key, None)])
}

async fn write(kv: KvClient, load: Rc<Load>, count: usize, at_once: usize) -> Outcome<Value> {
    let writers: Vec<_> = (0..at_once)
        .map(|first| {
            let (mut kv, load) = (kv.clone(), load.clone());
            tokio::task::spawn_local(async move {
                let (mut low, mut high) = (i64::MAX, 0);
                for place in (first..count).step_by(at_once) {
                    let key = load.keys[place % load.keys.len()].as_str();
                    let answer = kv
                        .put(key, load.value.as_str(), None)
                        .await
                        .map_err(|e| e.to_string())?;
                    let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                    (low, high) = (low.min(revision), high.max(revision));
                }
                Ok::<_, String>((low, high))
            })
        })
        .collect();
    let (mut low, mut high) = (i64::MAX, 0);
    for writer in writers {
        let (from, to) = writer.await??;
        (low, high) = (low.min(from), high.max(to));
    }
    Ok(json!({ "first": low.to_string(), "last": high.to_string() }))
}

fn key(prefix: &str, place: usize) -> String {
    format!("{prefix}{place:06}")
}

/// Time on the processor of this thread, on which everything happens. 0 where the system does not tell.
fn cpu_us() -> f64 {
    let line = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    line.split(' ')
        .next()
        .and_then(|ns| ns.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1e3
}
