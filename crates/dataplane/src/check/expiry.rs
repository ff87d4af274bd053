//! How long certificates are still valid, in words.

use std::time::Duration;

use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: u64 = 24 * 60 * 60;

/// What is wrong with the dates of a certificate (DER) that must be valid for `min_days` more at `now`, the time since
/// 1970; `None` when nothing is wrong.
pub(super) fn complaint(certificate: &[u8], min_days: u32, now: Duration) -> Option<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Some("certificate cannot be read".to_owned());
    };
    // A date before 1970 counts as 1970: it is long past.
    let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let now = now.as_secs();
    if end < now {
        return Some(expired(now - end));
    }
    let left = end - now;
    (left < u64::from(min_days) * DAY)
        .then(|| format!("certificate expires in {}, wanted {min_days}", days(left)))
}

/// A certificate that expired `seconds` ago.
pub(super) fn expired(seconds: u64) -> String {
    format!("certificate expired {} ago", days(seconds))
}

/// A certificate that is not valid before `seconds` from now.
pub(super) fn not_yet(seconds: u64) -> String {
    format!("certificate becomes valid only in {}", days(seconds))
}

/// Whole days, so that the words change once a day.
fn days(seconds: u64) -> String {
    match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_left_are_counted_down_to_the_end_and_up_from_it() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 6, 15);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let end = params.not_after.unix_timestamp() as u64;
        let words = |now: u64, min| complaint(certificate.der(), min, Duration::from_secs(now));
        assert_eq!(words(end - 14 * DAY, 14), None);
        assert_eq!(words(end - 14 * DAY + 1, 14).unwrap(), "certificate expires in 13 days, wanted 14");
        assert_eq!(words(end - DAY, 14).unwrap(), "certificate expires in 1 day, wanted 14");
        assert_eq!(words(end - 1, 1).unwrap(), "certificate expires in less than a day, wanted 1");
        assert_eq!(words(end + 1, 1).unwrap(), "certificate expired less than a day ago");
        assert_eq!(words(end + 3 * DAY, 1).unwrap(), "certificate expired 3 days ago");
        assert_eq!(complaint(b"no", 1, Duration::ZERO).unwrap(), "certificate cannot be read");
    }
}
