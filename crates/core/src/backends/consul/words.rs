//! Text inside another language of Consul's: a path of its API, a filter expression. What can't be said there is refused
//! before anything is written.

use super::agents::Answer;
use crate::error::{Error, Result};

/// The name under which Consul's servers register themselves: no service of anybody's.
pub(super) const CONSUL: &str = "consul";

/// Refuses what can't stand in the paths of Consul's API, however it is encoded: names and ids stand there. `path` is how
/// the caller calls the argument.
pub(super) fn check_word(path: &str, word: &str) -> Result<()> {
    if matches!(word, "." | "..") {
        return Err(Error::invalid(format!(
            "{path}: Consul can't be asked for {word:?}, because its paths are cleaned of it; take another"
        )));
    }
    if let Some(c) = word.chars().find(|c| !prints(*c)) {
        return Err(Error::invalid(format!(
            "{path}: Consul takes characters that print and the plain blank only, got U+{:04X} in {word:?}; leave it out",
            u32::from(c)
        )));
    }
    Ok(())
}

/// The same refusal by the agent, which says nothing with it: its table of characters is older than ours.
pub(super) fn refused_word(answer: &Answer, path: &str, word: &str) -> Option<Error> {
    let is_silent = answer.status == 400 && answer.body.trim_ascii().is_empty();
    (is_silent && !word.is_ascii()).then(|| {
        Error::invalid(format!(
            "{path}: this Consul does not know a character of {word:?}; leave it out"
        ))
    })
}

/// Go's `unicode.IsPrint`, by which Consul judges its paths: letters, marks, numbers, punctuation, symbols and the plain
/// blank. The standard library tells it by what it escapes; a quote is escaped though it prints, and a mark is not where
/// it follows a letter.
fn prints(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    let mut text = [b'a'; 5];
    let end = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..end]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

/// Text as a string of a filter expression. Its grammar ends a string at the next quote, escaped or not, and reads what
/// lies between as Go does: <https://github.com/hashicorp/go-bexpr/blob/main/grammar/grammar.peg>.
pub(super) fn filter_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\x22"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prints_may_stand_in_a_path() {
        for good in [
            "a b",
            "say \"hi\"",
            "a\\b'c`d",
            "100%",
            "e\u{301}",
            "ä한😀",
            "...",
            "a/b",
        ] {
            assert!(check_word("id", good).is_ok(), "{good}");
        }
        for bad in [
            ".",
            "..",
            "\u{a0}",
            "a\tb",
            "\u{7f}",
            "\u{85}",
            "\u{ad}",
            "\u{200b}",
            "\u{202e}",
            "\u{2028}",
            "\u{feff}",
            "\u{fffe}",
            "\u{e000}",
            "\u{10ffff}",
            "\u{378}",
            "\u{3000}",
        ] {
            let error = check_word("instance.id", bad).unwrap_err();
            assert!(error.message().starts_with("instance.id: "), "{error}");
        }
    }

    #[test]
    fn a_quote_ends_no_string_of_a_filter() {
        assert_eq!(filter_text(r#"a"b\c`"#), r#""a\x22b\\c`""#);
    }
}
