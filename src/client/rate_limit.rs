//! What a server's headers say about its rate limits: `x-ratelimit-*` and `anthropic-ratelimit-*`.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;

/// A reset further away than this is a timestamp or a slip, not a rate limit's window.
const LONGEST_RESET: Duration = Duration::from_secs(31 * 24 * 3600);

/// What is left of one limit; a member that the server does not state is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// The most in one window.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// The time until all of it is back; it comes back evenly, not at once.
    pub reset: Option<Duration>,
}

/// One answer's word on the limits, as of the moment it was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests.
    pub requests: Quota,
    /// Tokens; where input and output are limited apart, the one that is closer to its limit.
    pub tokens: Quota,
}

impl RateLimit {
    /// Reads the headers of either family; `now` turns points in time into durations.
    ///
    /// Values that cannot be read are ignored: a proxy's header must not fail a request that has succeeded.
    pub fn from_headers(headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name: String| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let read = |limit: Option<&str>, remaining: Option<&str>, reset: Option<&str>| Quota {
            limit: limit.and_then(|text| text.parse().ok()),
            remaining: remaining.and_then(|text| text.parse().ok()),
            reset: reset.and_then(|text| parse_reset(text, now)),
        };
        let openai = |what: &str| {
            let text = |member: &str| text(format!("x-ratelimit-{member}-{what}"));
            read(text("limit"), text("remaining"), text("reset"))
        };
        let anthropic = |what: &str| {
            let text = |member: &str| text(format!("anthropic-ratelimit-{what}-{member}"));
            read(text("limit"), text("remaining"), text("reset"))
        };
        let first_stated = |quotas: &[Quota]| {
            quotas.iter().copied().find(|quota| *quota != Quota::default()).unwrap_or_default()
        };
        let closest = |quotas: [Quota; 2]| {
            let [a, b] = quotas;
            if b.left().unwrap_or(1.0) < a.left().unwrap_or(1.0) { [b, a] } else { [a, b] }
        };
        let [closer, further] = closest([anthropic("input-tokens"), anthropic("output-tokens")]);
        Self {
            requests: first_stated(&[openai("requests"), anthropic("requests")]),
            tokens: first_stated(&[openai("tokens"), anthropic("tokens"), closer, further]),
        }
    }
}

impl Quota {
    /// The share that is left, from 0 to 1, where limit and remainder are stated.
    pub fn left(&self) -> Option<f64> {
        let limit = self.limit.filter(|limit| *limit > 0)?;
        Some((self.remaining? as f64 / limit as f64).min(1.0))
    }
}

/// The time until a reset that is given as a duration or as a point in time.
fn parse_reset(text: &str, now: SystemTime) -> Option<Duration> {
    let reset = match parse_duration(text) {
        Some(duration) => duration,
        None => parse_timestamp(text)?.duration_since(now).unwrap_or_default(),
    };
    (reset <= LONGEST_RESET).then_some(reset)
}

/// Go's notation for durations, `1h2m3.5s` and `17ms`, or a bare number of seconds.
fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("h", 3600.0), ("ms", 1e-3), ("m", 60.0), ("s", 1.0), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9)];
    let number = |text: &str| -> Option<(f64, usize)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        Some((text[..end].parse().ok()?, end))
    };
    let (seconds, end) = number(text)?;
    if end == text.len() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let (value, end) = number(rest)?;
        let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| rest[end..].starts_with(unit))?;
        total += value * seconds;
        rest = &rest[end + unit.len()..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// An RFC 3339 timestamp, `2026-11-21T09:30:00Z` or with a fraction or an offset, not before 1970.
fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let bytes = date_time.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !matches!(bytes[10], b'T' | b't' | b' ') || separators.iter().any(|&(at, byte)| bytes[at] != byte) {
        return None;
    }
    let number = |start: usize, end: usize| -> Option<i64> {
        let digits = date_time.get(start..end)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let offset_start = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, offset) = rest.split_at(offset_start);
    let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0{fraction}").parse().ok()? };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = u64::try_from(seconds - offset_seconds(offset)?).ok()?;
    let fraction = Duration::try_from_secs_f64(fraction).ok().filter(|fraction| fraction.as_secs() == 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds) + fraction)
}

/// The seconds that `Z`, `+hh:mm` or `-hh:mm` is ahead of UTC.
fn offset_seconds(offset: &str) -> Option<i64> {
    if matches!(offset, "Z" | "z") {
        return Some(0);
    }
    let (sign, time) = offset.split_at_checked(1)?;
    let (hours, minutes) = time.split_once(':')?;
    let two_digits = |text: &str| -> Option<i64> {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let seconds = two_digits(hours)? * 3600 + two_digits(minutes)? * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

/// Days from 1970-01-01 in the Gregorian calendar, counted from March so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days_before_month = (153 * month + 2) / 5;
    const DAYS_TO_1970_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    year * 365 + leap_days + days_before_month + day - 1 - DAYS_TO_1970_FROM_MARCH_OF_YEAR_0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn quota(limit: u64, remaining: u64, reset_millis: u64) -> Quota {
        Quota {
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(Duration::from_millis(reset_millis)),
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("6m0s", 360_000),
            ("17ms", 17),
            ("1h2m3.5s", 3_723_500),
            ("8.64s", 8640),
            ("12", 12_000),
            ("0.25", 250),
            ("0s", 0),
            ("1500us", 1),
            ("1500µs", 1),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), Some(millis), "{text}");
        }
        for text in ["", "s", "-1s", "1x", "1m-2s", ".", "1..2s", "soon", "1m 2s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-21T09:30:00Z", 1_795_253_400),
            ("2026-11-21t11:30:00+02:00", 1_795_253_400),
            ("2026-11-21T04:00:00-05:30", 1_795_253_400),
        ] {
            assert_eq!(parse_timestamp(text), Some(at(seconds)), "{text}");
        }
        let fraction = parse_timestamp("1970-01-01T00:00:01.25Z").unwrap();
        assert_eq!(fraction, SystemTime::UNIX_EPOCH + Duration::from_millis(1250));
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T09:30:00",
            "2026-13-21T09:30:00Z",
            "2026-11-21T24:30:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-21T09:30:00.xZ",
            "2026-11-21T09:30:00+2",
            "2026-11-21T09:30:00.5e9Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn both_families_of_headers_are_read() {
        let openai = headers(&[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        let expected = RateLimit { requests: quota(60, 59, 1000), tokens: quota(150_000, 149_984, 360_000) };
        assert_eq!(RateLimit::from_headers(&openai, at(0)), expected);

        let anthropic = headers(&[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "1970-01-01T00:01:00Z"),
            ("anthropic-ratelimit-input-tokens-limit", "40000"),
            ("anthropic-ratelimit-input-tokens-remaining", "39000"),
            ("anthropic-ratelimit-input-tokens-reset", "1970-01-01T00:00:00Z"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-remaining", "100"),
            ("anthropic-ratelimit-output-tokens-reset", "1970-01-01T00:00:31Z"),
        ]);
        let expected = RateLimit { requests: quota(50, 0, 30_000), tokens: quota(8000, 100, 1000) };
        assert_eq!(RateLimit::from_headers(&anthropic, at(30)), expected);
    }

    #[test]
    fn headers_that_cannot_be_read_are_ignored() {
        let odd = headers(&[
            ("x-ratelimit-remaining-requests", "many"),
            ("x-ratelimit-reset-requests", "1795253400"),
            ("x-ratelimit-remaining-tokens", "-5"),
        ]);
        assert_eq!(RateLimit::from_headers(&odd, at(0)), RateLimit::default());
        assert_eq!(RateLimit::from_headers(&HeaderMap::new(), at(0)), RateLimit::default());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", digits in "[0-9T:Zz+.hmsn-]{0,40}") {
            let _ = parse_reset(&text, at(0));
            let _ = parse_reset(&digits, at(0));
        }

        #[test]
        fn every_day_is_one_after_the_day_before(days in 0_i64..40_000) {
            let (mut year, mut rest) = (1970, days);
            let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let length = |year: i64| if leap(year) { 366 } else { 365 };
            while rest >= length(year) {
                rest -= length(year);
                year += 1;
            }
            let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while rest >= months[month] {
                rest -= months[month];
                month += 1;
            }
            prop_assert_eq!(days_since_1970(year, month as i64 + 1, rest + 1), days);
        }
    }
}
