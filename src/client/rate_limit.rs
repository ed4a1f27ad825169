//! What servers say about their limits in the headers of an answer.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;

/// What an answer says about how fast to go on; of successes and failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// The answer's HTTP status.
    pub status: u16,
    /// Whether the server left the answer unfinished; nothing else is known then.
    pub cut_off: bool,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the server says that trying again may help.
    pub should_retry: Option<bool>,
    /// Requests.
    pub requests: Quota,
    /// Tokens of prompts and answers together.
    pub tokens: Quota,
    /// Tokens of prompts, where they are counted apart.
    pub input_tokens: Quota,
    /// Tokens of answers, where they are counted apart.
    pub output_tokens: Quota,
}

/// One limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// How much a period allows.
    pub limit: Option<u64>,
    /// How much of it is left.
    pub remaining: Option<u64>,
    /// Until all of it is back; it comes back evenly, not at once.
    pub reset: Option<Duration>,
}

impl Quota {
    /// The share that is left, from 0 to 1, where limit and remainder are stated.
    pub fn left(&self) -> Option<f64> {
        let limit = self.limit.filter(|limit| *limit > 0)?;
        Some((self.remaining? as f64 / limit as f64).min(1.0))
    }
}

impl Pace {
    /// What these headers say: `retry-after-ms`, `retry-after` in seconds or as a date, `x-should-retry`,
    /// `x-ratelimit-*` with durations (`6m0s`) and `anthropic-ratelimit-*` with dates.
    pub(super) fn read(status: u16, headers: &HeaderMap, now: DateTime<Utc>) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
        let quota = |what: &str| {
            let openai = |word: &str| format!("x-ratelimit-{word}-{what}");
            let anthropic = |word: &str| format!("anthropic-ratelimit-{what}-{word}");
            Quota {
                limit: number(&openai("limit")).or_else(|| number(&anthropic("limit"))),
                remaining: number(&openai("remaining")).or_else(|| number(&anthropic("remaining"))),
                reset: text(&openai("reset"))
                    .or_else(|| text(&anthropic("reset")))
                    .and_then(|value| duration(value, now)),
            }
        };
        Self {
            status,
            cut_off: false,
            retry_after: text("retry-after-ms")
                .and_then(|value| value.parse::<f64>().ok())
                .and_then(|milliseconds| Duration::try_from_secs_f64(milliseconds / 1000.0).ok())
                .or_else(|| text("retry-after").and_then(|value| duration(value, now))),
            should_retry: text("x-should-retry").and_then(|value| value.parse().ok()),
            requests: quota("requests"),
            tokens: quota("tokens"),
            input_tokens: quota("input-tokens"),
            output_tokens: quota("output-tokens"),
        }
    }

    /// The limit on tokens that is closest to being used up.
    pub(super) fn tightest_tokens(&self) -> Quota {
        let stated = [self.tokens, self.input_tokens, self.output_tokens]
            .into_iter()
            .filter(|quota| quota.remaining.is_some());
        stated.min_by(|a, b| a.left().unwrap_or(1.0).total_cmp(&b.left().unwrap_or(1.0))).unwrap_or_default()
    }

    /// How long to wait before trying again: what the server asks for, else until the limits that are used up come back.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after.or_else(|| {
            [self.requests, self.tokens, self.input_tokens, self.output_tokens]
                .into_iter()
                .filter(|quota| quota.remaining == Some(0))
                .filter_map(|quota| quota.reset)
                .max()
        })
    }
}

/// Time until then: seconds, a sum such as `1h6m0.5s` or `20ms`, an HTTP date or one of RFC 3339. What is past is zero.
fn duration(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    if let Some(sum) = unit_sum(text) {
        return Some(sum);
    }
    let date = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc2822(text)).ok()?;
    Some(date.signed_duration_since(now).to_std().unwrap_or_default())
}

fn unit_sum(mut text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = text[..end].parse().ok()?;
        text = &text[end..];
        // `ms` before `m`.
        let (unit, factor) = [
            ("ms", 1e-3),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ns", 1e-9),
            ("d", 86_400.0),
            ("h", 3600.0),
            ("m", 60.0),
            ("s", 1.0),
        ]
        .into_iter()
        .find(|(unit, _)| text.starts_with(unit))?;
        text = &text[unit.len()..];
        seconds += number * factor;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    fn now() -> DateTime<Utc> {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn read(headers: &[(&'static str, &'static str)]) -> Pace {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Pace::read(429, &headers, now())
    }

    #[test]
    fn every_form_of_a_wait_is_read() {
        #[track_caller]
        fn check(headers: &[(&'static str, &'static str)], milliseconds: Option<u64>) {
            assert_eq!(read(headers).wait(), milliseconds.map(Duration::from_millis), "{headers:?}");
        }
        check(&[], None);
        check(&[("retry-after", "7")], Some(7000));
        check(&[("retry-after", "0.25")], Some(250));
        check(&[("retry-after", "7"), ("retry-after-ms", "1500")], Some(1500));
        check(&[("retry-after", "Sat, 21 Nov 2026 12:00:30 GMT")], Some(30_000));
        check(&[("retry-after", "Sat, 21 Nov 2026 11:00:00 GMT")], Some(0));
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after", "-3")], None);
        check(&[("retry-after", "1e300")], None);
        check(
            &[("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s")],
            Some(360_000),
        );
        check(&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "20ms")], Some(20));
        check(&[("x-ratelimit-remaining-tokens", "5"), ("x-ratelimit-reset-tokens", "1h")], None);
        check(
            &[
                ("anthropic-ratelimit-input-tokens-remaining", "0"),
                ("anthropic-ratelimit-input-tokens-reset", "2026-11-21T13:00:09+01:00"),
            ],
            Some(9000),
        );
    }

    #[test]
    fn the_tightest_limit_on_tokens_is_found() {
        #[track_caller]
        fn check(headers: &[(&'static str, &'static str)], left: Option<f64>) {
            assert_eq!(read(headers).tightest_tokens().left(), left, "{headers:?}");
        }
        let input = [
            ("anthropic-ratelimit-input-tokens-limit", "1000"),
            ("anthropic-ratelimit-input-tokens-remaining", "900"),
        ];
        let output = [
            ("anthropic-ratelimit-output-tokens-limit", "100"),
            ("anthropic-ratelimit-output-tokens-remaining", "10"),
        ];
        check(&[], None);
        check(&input, Some(0.9));
        check(&[input, output].concat(), Some(0.1));
        check(&[("x-ratelimit-limit-tokens", "0"), ("x-ratelimit-remaining-tokens", "0")], None);
    }

    #[test]
    fn both_families_of_limits_are_read() {
        let openai = read(&[
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "1h6m0.5s"),
            ("x-should-retry", "false"),
        ]);
        let quota = Quota {
            limit: Some(150_000),
            remaining: Some(149_984),
            reset: Some(Duration::from_millis(3_960_500)),
        };
        assert_eq!((openai.tokens, openai.should_retry), (quota, Some(false)));
        let anthropic = read(&[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "many"),
        ]);
        assert_eq!(anthropic.requests, Quota { limit: Some(50), remaining: None, reset: None });
    }
}
