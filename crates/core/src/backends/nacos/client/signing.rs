//! Signs requests with an access key, as Alibaba Cloud's Nacos (MSE) wants them; the key of a region is derived day by day:
//! <https://nacos.io/en/docs/latest/manual/user/java-sdk/properties/>.

#[cfg(all(feature = "tls-aws-lc", not(feature = "tls-ring")))]
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
#[cfg(feature = "tls-ring")]
use ring::hmac;

use super::super::options::AccessKey;

/// What the derivation of a key begins and ends with.
const BEGIN: &str = "aliyun_v4";
const PRODUCT: &str = "mse-nacos";
const END: &str = "aliyun_v4_request";

/// The headers of a request about a service of a group, at a moment.
pub(super) fn headers(key: &AccessKey, group: &str, service: &str, millis: u64) -> Vec<(&'static str, String)> {
    let data = format!("{millis}@@{group}@@{service}");
    let mut headers = vec![("ak", key.access_key.clone())];
    let secret = match &key.region {
        None => key.secret_key.clone(),
        Some(region) => {
            headers.push(("signatureVersion", "v4".to_owned()));
            of_region(&key.secret_key, region, &date(millis))
        }
    };
    let signature = sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes(), &data);
    headers.push(("signature", STANDARD.encode(signature)));
    headers.push(("data", data));
    headers
}

fn of_region(secret: &str, region: &str, date: &str) -> String {
    let first = format!("{BEGIN}{secret}").into_bytes();
    let key = [date, region, PRODUCT, END]
        .iter()
        .fold(first, |key, part| sign(hmac::HMAC_SHA256, &key, part));
    STANDARD.encode(key)
}

fn sign(algorithm: hmac::Algorithm, key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

/// `YYYYMMDD` in UTC, of the Gregorian calendar: years are counted from March, so that the leap day is their last.
fn date(millis: u64) -> String {
    let days = millis / 86_400_000 + 719_468; // since the first of March of the year 0
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_the_calendar() {
        let of = |seconds: u64| date(seconds * 1000);
        assert_eq!(of(0), "19700101");
        assert_eq!(of(951_782_400), "20000229");
        assert_eq!(of(951_868_800), "20000301");
        assert_eq!(of(1_735_689_599), "20241231");
        assert_eq!(of(1_735_689_600), "20250101");
    }

    #[test]
    fn a_request_is_signed_and_the_secret_is_not_in_it() {
        let mut key = AccessKey {
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            region: None,
        };
        let signed = headers(&key, "G", "orders", 1_735_689_600_000);
        let data = "1735689600000@@G@@orders".to_owned();
        // `printf 1735689600000@@G@@orders | openssl dgst -sha1 -hmac secret -binary | base64`
        let signature = "NhfQG9nWavPBMWWNSg7rpjOEDpo=".to_owned();
        let ak = ("ak", "key".to_owned());
        assert_eq!(signed, [ak, ("signature", signature), ("data", data)]);
        key.region = Some("cn-hangzhou".to_owned());
        let signed = headers(&key, "G", "orders", 1_735_689_600_000);
        assert!(signed.contains(&("signatureVersion", "v4".to_owned())));
        assert!(signed.contains(&("signature", "gT1q0z0ge0p8ROrGcHYOqRPOqyc=".to_owned())));
        assert!(!format!("{signed:?}").contains("secret"));
    }
}
