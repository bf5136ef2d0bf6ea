//! Ids that differ only in the case of their letters. An agent keeps them apart, the catalog, which all others read, does
//! not: the one that was written last is shown, and the removal of either hides both. So at one agent they are one id,
//! which the newest registration takes: it removes the others, and is written once they are gone.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value};

use super::agents::{Agents, Queue};
use super::words::filter_text;
use crate::error::Result;
use crate::http::segment;

/// The ids of an agent's services that others can't tell from this one; never this one itself.
pub(super) async fn twins(
    agents: &Agents,
    agent: usize,
    queue: Queue,
    id: &str,
    limit: Duration,
) -> Result<Vec<String>> {
    if !id.chars().any(|c| c.is_lowercase() || c.is_uppercase()) {
        return Ok(Vec::new());
    }
    let filter = format!("ID matches {}", filter_text(&any_case(id)));
    let path = format!("/v1/agent/services?filter={}", segment(&filter));
    let answer = agents.call(agent, queue, Method::GET, &path, None, limit).await?;
    if answer.status == 403 {
        return Ok(Vec::new()); // who may write and not read has to believe it
    }
    let found: Map<String, Value> = answer.checked()?.json()?;
    let found = found.into_iter().map(|(other, _)| other);
    Ok(found.filter(|other| other != id && same(other, id)).collect())
}

/// Whether Consul's catalog takes two ids for one: it compares them character by character in lower case.
fn same(a: &str, b: &str) -> bool {
    let lower = |text: &str| -> String { text.chars().filter_map(|c| c.to_lowercase().next()).collect() };
    lower(a) == lower(b)
}

/// A regular expression of Go's that matches this text in any case, and little else.
fn any_case(text: &str) -> String {
    let mut out = String::from("(?i)^");
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_in_any_case() {
        for (a, b) in [
            ("Node-1", "node-1"),
            ("É.x", "é.X"),
            ("\u{212a}", "k"),
            ("ΟΔΟΣ", "οδοσ"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [("node-1", "node-2"), ("node-1", "node.1"), ("ſ", "s"), ("ß", "SS")] {
            assert!(!same(a, b), "{a} {b}");
        }
        assert_eq!(any_case(r"a.B\é"), r"(?i)^a\.B\\é$");
    }
}
