//! SASL with DIGEST-MD5 ([RFC 2831](https://www.rfc-editor.org/rfc/rfc2831), section 2.1), as far as ZooKeeper speaks it:
//! `qop=auth`, `charset=utf-8`, the service `zookeeper` at the host `zk-sasl-md5`.
//!
//! The algorithm is broken for what it was made for: whoever listens can try passwords. It is here because ZooKeeper knows
//! its users by nothing else that needs no Kerberos. TLS keeps listeners away.

use std::collections::HashMap;

const URI: &str = "zookeeper/zk-sasl-md5";

/// The answer to a challenge; `None` for one that can't be answered.
pub(super) fn answer(challenge: &[u8], user: &str, password: &str, cnonce: &str) -> Option<Vec<u8>> {
    let challenge = parse(std::str::from_utf8(challenge).ok()?)?;
    let nonce = challenge.get("nonce")?;
    let realm = challenge.get("realm").map_or("", String::as_str);
    if challenge.get("algorithm").is_some_and(|name| name != "md5-sess") {
        return None;
    }
    if let Some(qop) = challenge.get("qop") {
        qop.split(',').find(|qop| qop.trim() == "auth")?;
    }
    let response = response(user, password, realm, nonce, cnonce, URI);
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    Some(
        format!(
            "charset=utf-8,username=\"{}\",realm=\"{}\",nonce=\"{}\",nc=00000001,cnonce=\"{}\",digest-uri=\"{URI}\",maxbuf=65536,response={response},qop=auth",
            quoted(user),
            quoted(realm),
            quoted(nonce),
            quoted(cnonce),
        )
        .into_bytes(),
    )
}

fn response(user: &str, password: &str, realm: &str, nonce: &str, cnonce: &str, uri: &str) -> String {
    let secret = md5::compute(format!("{user}:{realm}:{password}"));
    let mut a1 = secret.to_vec();
    a1.extend_from_slice(format!(":{nonce}:{cnonce}").as_bytes());
    let (a1, a2) = (md5::compute(a1), md5::compute(format!("AUTHENTICATE:{uri}")));
    format!(
        "{:x}",
        md5::compute(format!("{a1:x}:{nonce}:00000001:{cnonce}:auth:{a2:x}"))
    )
}

/// `key=value` pairs, quoted or not, between commas.
fn parse(text: &str) -> Option<HashMap<String, String>> {
    let mut pairs = HashMap::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| *c == ',' || c.is_whitespace()).is_some() {}
        if rest.peek().is_none() {
            return Some(pairs);
        }
        let mut key = String::new();
        loop {
            match rest.next()? {
                '=' => break,
                c => key.push(c),
            }
        }
        let mut value = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next()? {
                    '"' => break,
                    '\\' => value.push(rest.next()?),
                    c => value.push(c),
                }
            }
        } else {
            while let Some(c) = rest.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        pairs.insert(key.trim().to_ascii_lowercase(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read() {
        let pairs =
            parse(r#"realm="zk-sasl-md5",nonce="a\"b",charset=utf-8,qop="auth,auth-int", algorithm=md5-sess"#).unwrap();
        assert_eq!(pairs["realm"], "zk-sasl-md5");
        assert_eq!(pairs["nonce"], "a\"b");
        assert_eq!(pairs["qop"], "auth,auth-int");
        assert_eq!(pairs["algorithm"], "md5-sess");
        assert_eq!(parse("realm=\"never ends"), None);
        assert_eq!(parse("no pair"), None);
    }

    #[test]
    fn the_response_is_that_of_the_example_of_the_rfc() {
        let uri = "imap/elwood.innosoft.com";
        let response = response(
            "chris",
            "secret",
            "elwood.innosoft.com",
            "OA6MG9tEQGm2hh",
            "OA6MHXh6VqTrRk",
            uri,
        );
        assert_eq!(response, "d388dad90d4bbd760a152321f2143af7");
    }

    #[test]
    fn what_can_not_be_answered_is_not() {
        for challenge in [
            "",
            "nonce=\"a\",qop=\"auth-conf\"",
            "nonce=\"a\",algorithm=md5",
            "realm=\"a\"",
        ] {
            assert_eq!(answer(challenge.as_bytes(), "u", "p", "c"), None, "{challenge}");
        }
        assert_eq!(answer(&[0xff], "u", "p", "c"), None);
        assert!(answer(b"nonce=\"a\",realm=\"r\"", "u\"", "p", "c").is_some());
    }
}
