//! Whose certificates are believed. rustls checks chains; what it refuses and OpenSSL takes is a server's own certificate
//! among those that are trusted, when it calls itself an authority, as `openssl req -x509` makes them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::crypto::provider;
use crate::error::{Error, Result};

/// The system's authorities, and Mozilla's: a slim image has none of its own.
pub(super) fn usual() -> Result<Arc<dyn ServerCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(of(roots)?)
}

/// These alone.
pub(super) fn only(given: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ServerCertVerifier>> {
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for certificate in &given {
        if let Err(error) = roots.add(certificate.clone()) {
            refused = Some(error); // a bundle may hold one that is too old for us; OpenSSL goes on, too
        }
    }
    if roots.is_empty() {
        let why = refused.map_or_else(|| "there is none".to_owned(), |error| error.to_string());
        return Err(Error::invalid(format!(
            "options.tls.ca: no certificate in it can be used: {why}"
        )));
    }
    Ok(Arc::new(OrGiven {
        chains: of(roots)?,
        given,
    }))
}

fn of(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| Error::invalid(format!("options.tls.ca: {error}")))
}

/// Believes chains, and a certificate that is byte for byte one of those given, if its name and its time are right. That
/// the server has its key is checked by the signature of the handshake in both cases.
#[derive(Debug)]
struct OrGiven {
    chains: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for OrGiven {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let chain = self
            .chains
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        let refused = match chain {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        if !self.given.iter().any(|given| given.as_ref() == end_entity.as_ref()) {
            return Err(refused);
        }
        let Some((from, to)) = validity(end_entity) else {
            return Err(refused);
        };
        if now.as_secs() < from {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > to {
            return Err(CertificateError::Expired.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version, which is left out where it is 1.
const VERSION: u8 = 0xa0;

/// From when to when a certificate is valid, in seconds since 1970, which no crate below tells. `None` for what is no DER.
fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (_, whole, _) = element(certificate)?;
    let (_, mut rest, _) = element(whole)?;
    if *rest.first()? == VERSION {
        rest = element(rest)?.2;
    }
    // The serial number, the algorithm, the issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        let (found, _, after) = element(rest)?;
        if found != tag {
            return None;
        }
        rest = after;
    }
    let (SEQUENCE, dates, _) = element(rest)? else {
        return None;
    };
    let (from_tag, from, after) = element(dates)?;
    let (to_tag, to, _) = element(after)?;
    Some((seconds(from_tag, from)?, seconds(to_tag, to)?))
}

/// The first element of DER: its tag, what is in it, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that a certificate may have, in seconds since 1970; 0 before it.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let (digits, b"Z") = text.split_at_checked(text.len().checked_sub(1)?)? else {
        return None;
    };
    let years = match (tag, digits.len()) {
        (UTC_TIME, 12) => 2,
        (GENERALIZED_TIME, 14) => 4,
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (year, rest) = digits.split_at(years);
    let mut year = number(year);
    if tag == UTC_TIME {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let mut parts = rest.chunks(2).map(number);
    let (month, day) = (parts.next()?, parts.next()?);
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years that begin in March, so that the leap day is their last.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    u64::try_from((days * 86_400 + hour * 3600 + minute * 60 + second).max(0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_certificates_are_read() {
        for (tag, text, want) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229123456Z", Some(1_709_210_096)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(0)), // 1950
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "2402291234Z", None),
            (UTC_TIME, "241329123456Z", None),
            (UTC_TIME, "24022912345xZ", None),
            (UTC_TIME, "240229123456+", None),
            (UTC_TIME, "", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_certificate() {
        // version, serial, algorithm, issuer, validity
        let dates = [b"\x17\x0d240101000000Z".as_slice(), b"\x17\x0d250101000000Z"].concat();
        let body = [
            b"\xa0\x03\x02\x01\x02\x02\x01\x01\x30\x00\x30\x00\x30\x1e".as_slice(),
            &dates,
        ]
        .concat();
        let length = u8::try_from(body.len()).unwrap();
        let whole = [&[0x30, length + 2, 0x30, length][..], &body].concat();
        assert_eq!(validity(&whole), Some((1_704_067_200, 1_735_689_600)));
        for end in 0..whole.len() {
            assert_eq!(validity(&whole[..end]), None, "{end}");
        }
    }
}
