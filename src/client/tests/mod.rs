//! The client against real sockets on loopback: answers, faults, and what is made of them.

pub(super) mod server;
mod tls;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use self::server::{Act, Server, answer, events};
use super::*;

const KEY: &str = "key-0123456789";

const CHAT: &str = r#"{"model":"m","choices":[{"message":{"content":"grüße"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":5,"completion_tokens":2}}"#;

const MESSAGE: &str = r#"{"model":"m","content":[{"type":"text","text":"grüße"}],"stop_reason":"end_turn",
    "usage":{"input_tokens":5,"output_tokens":2}}"#;

/// A configuration whose waits are short.
fn config(provider: Provider, url: &str) -> ClientConfig {
    ClientConfig {
        provider: Some(provider),
        model: "m".into(),
        base_url: Some(url.into()),
        key: KeySource::Given(Secret::new(KEY)),
        retry: RetryPolicy {
            max_attempts: 3,
            first_wait: 0.001,
            longest_wait: 0.002,
            deadline: 20.0,
            ..RetryPolicy::default()
        },
        breaker: BreakerPolicy { failures: 0, pause: 0.001 },
        ..ClientConfig::default()
    }
}

fn client(config: &ClientConfig) -> Client {
    Client::with_environment(config, &|_| None).unwrap()
}

fn openai(server: &Server) -> Client {
    client(&config(Provider::Openai, &server.url))
}

fn request() -> Request {
    Request { system: "sys".into(), user: "hello".into(), n: 1, ..Request::default() }
}

fn statuses(attempts: &[Attempt]) -> Vec<Option<u16>> {
    attempts.iter().map(|attempt| attempt.status).collect()
}

#[tokio::test]
async fn every_provider_is_asked_in_its_way() {
    async fn check(config: ClientConfig, answer: &'static str, head: &str, header: &str) {
        let server = Server::answering(&[(200, "", answer)]);
        let config =
            ClientConfig { base_url: Some(server.url.clone() + &config.base_url.unwrap()), ..config };
        let response = client(&config).complete(&request(), None).await.unwrap();
        assert_eq!(response.choices[0].text, "grüße");
        let request = &server.requests()[0];
        assert!(request.starts_with(&format!("POST {head} HTTP/1.1\r\n")), "{request}");
        assert!(request.contains(&format!("\r\n{header}\r\n")), "{request}");
    }
    let bearer = format!("authorization: Bearer {KEY}");
    let api_key = format!("api-key: {KEY}");
    let openai = |path: &str| config(Provider::Openai, path);
    check(openai(""), CHAT, "/v1/chat/completions", &bearer).await;
    check(openai("/"), CHAT, "/v1/chat/completions", &bearer).await;
    check(openai("/proxy/v2/?tenant=7"), CHAT, "/proxy/v2/chat/completions?tenant=7", &bearer).await;
    let text = r#"{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"grüße"}]}]}"#;
    let responses = ClientConfig { openai_api: OpenaiApi::Responses, ..openai("/v1") };
    check(responses, text, "/v1/responses", &bearer).await;

    let azure = |path: &str| config(Provider::Azure, path);
    let dated = |path: &str| ClientConfig { api_version: Some("2024-10-21".into()), ..azure(path) };
    check(azure(""), CHAT, "/openai/v1/chat/completions", &api_key).await;
    check(azure("/openai/v1/"), CHAT, "/openai/v1/chat/completions", &api_key).await;
    check(ClientConfig { bearer: true, ..azure("/openai") }, CHAT, "/openai/v1/chat/completions", &bearer)
        .await;
    let classic = "/openai/deployments/m/chat/completions?api-version=2024-10-21";
    check(dated(""), CHAT, classic, &api_key).await;
    check(dated("/openai/deployments/m"), CHAT, classic, &api_key).await;
    check(dated("/openai/v1"), CHAT, "/openai/v1/chat/completions", &api_key).await;
    let escaped = ClientConfig { model: "a/b".into(), ..dated("") };
    check(escaped, CHAT, &classic.replace("/m/", "/a%2Fb/"), &api_key).await;

    let anthropic = |path: &str| config(Provider::Anthropic, path);
    check(anthropic(""), MESSAGE, "/v1/messages", &format!("x-api-key: {KEY}")).await;
    check(anthropic("/v1"), MESSAGE, "/v1/messages", "anthropic-version: 2023-06-01").await;
    check(ClientConfig { bearer: true, ..anthropic("") }, MESSAGE, "/v1/messages", &bearer).await;
    let completion = r#"{"completion":"grüße","stop_reason":"stop_sequence"}"#;
    check(config(Provider::AnthropicText, ""), completion, "/v1/complete", "anthropic-version: 2023-06-01")
        .await;
}

#[tokio::test]
async fn failed_tries_are_repeated_where_that_may_help() {
    #[track_caller]
    fn check(
        answers: &[(u16, &'static str, &'static str)],
        expected: &[u16],
        kind: Option<FailureKind>,
    ) -> impl Future<Output = ()> {
        let server = Server::answering(answers);
        let expected: Vec<_> = expected.iter().map(|status| Some(*status)).collect();
        async move {
            match (openai(&server).complete(&request(), None).await, kind) {
                (Ok(response), None) => assert_eq!(statuses(&response.attempts), expected),
                (Err(failure), Some(kind)) => {
                    assert_eq!(
                        (failure.kind, statuses(&failure.attempts)),
                        (kind, expected),
                        "{}",
                        failure.error
                    );
                }
                (result, kind) => panic!("{result:?} instead of {kind:?}"),
            }
        }
    }
    let ok = (200, "", CHAT);
    for status in [408, 409, 429, 500, 502, 503, 529] {
        check(&[(status, "", "{}"), ok], &[status, 200], None).await;
    }
    for (status, kind) in [
        (400, FailureKind::Rejected),
        (401, FailureKind::Authentication),
        (402, FailureKind::Quota),
        (404, FailureKind::WrongAddress),
        (413, FailureKind::ContextOverflow),
        (422, FailureKind::Rejected),
        (307, FailureKind::WrongAddress),
    ] {
        check(&[(status, "", "{}"), ok], &[status], Some(kind)).await;
    }
    check(&[(503, "", "")], &[503, 503, 503], Some(FailureKind::Server)).await;
    check(&[(429, "", "")], &[429, 429, 429], Some(FailureKind::RateLimited)).await;
    check(&[(400, "x-should-retry: true\r\n", "{}"), ok], &[400, 200], None).await;
    check(&[(500, "x-should-retry: false\r\n", "{}"), ok], &[500], Some(FailureKind::Server)).await;
    let quota = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
    check(&[(429, "x-should-retry: true\r\n", quota), ok], &[429], Some(FailureKind::Quota)).await;
    let overflow = r#"{"error":{"message":"This model's maximum context length is 8192 tokens"}}"#;
    check(&[(400, "", overflow), ok], &[400], Some(FailureKind::ContextOverflow)).await;
    // An error that comes with success.
    check(&[(200, "", r#"{"error":{"message":"upstream failed","code":502}}"#), ok], &[200, 200], None).await;
    check(&[(200, "", r#"{"error":{"message":"bad","code":400}}"#), ok], &[200], Some(FailureKind::Rejected))
        .await;
    for junk in ["<html><title>Log in</title></html>", r#"{"choices": [{"mess"#, "[1]", ""] {
        check(&[(200, "", junk), ok], &[200], Some(FailureKind::Protocol)).await;
    }
}

#[tokio::test]
async fn each_form_of_a_wait_is_honoured() {
    for (headers, least, most) in [
        ("retry-after-ms: 30\r\n", 30, 40),
        ("retry-after: 0.03\r\n", 30, 40),
        ("retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 0, 1),
        ("x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 30ms\r\n", 30, 40),
        (
            "anthropic-ratelimit-requests-remaining: 0\r\nanthropic-ratelimit-requests-reset: 2026-01-01T00:00:00Z\r\n",
            0,
            1,
        ),
        ("retry-after: nonsense\r\n", 0, 2),
    ] {
        let server = Server::answering(&[(429, headers, "{}"), (200, "", CHAT)]);
        let response = openai(&server).complete(&request(), None).await.unwrap();
        let wait = response.attempts[0].wait;
        assert!(
            wait >= Duration::from_millis(least) && wait <= Duration::from_millis(most),
            "{headers}{wait:?}"
        );
    }
    // Longer than the deadline: no use in waiting.
    let server = Server::answering(&[(429, "retry-after: 3600\r\n", "{}")]);
    let failure = openai(&server).complete(&request(), None).await.unwrap_err();
    assert_eq!((failure.kind, failure.attempts.len()), (FailureKind::RateLimited, 1));
    assert!(failure.error.to_string().contains("wait for 3600 s"), "{}", failure.error);
}

#[tokio::test]
async fn streams_are_read_wherever_they_are_cut() {
    let text = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"grüße, 世界\"},\"finish_reason\":null}]}\n\n\
        data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
    for size in [1, 7, 1000] {
        let server = Server::start(vec![events(text, size, false)]);
        let mut heard = String::new();
        let mut on_text = |piece: &str| heard.push_str(piece);
        let response = openai(&server).complete(&request(), Some(&mut on_text)).await.unwrap();
        assert_eq!((heard.as_str(), response.choices[0].text.as_str()), ("grüße, 世界", "grüße, 世界"));
        assert_eq!((response.usage.input_tokens, response.unmetered), (5, 0));
        assert!(server.requests()[0].contains("\"stream\":true"));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_asked_for_again_unless_its_text_is_out() {
    let start = "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":40,\"output_tokens\":1}}}\n\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"hal\"}}\n\n";
    let rest = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n\
        data: {\"type\":\"message_stop\"}\n\n";
    let overloaded = format!(
        "{start}data: {{\"type\":\"error\",\"error\":{{\"type\":\"overloaded_error\",\"message\":\"x\"}}}}\n\n"
    );
    let whole = format!("{start}{rest}");
    let given_up = format!("{start}data: [DONE]\n\n");
    for (broken, cut_off) in [
        (events(start, 50, true), true),
        (events(start, 50, false), true),
        (events(&given_up, 50, false), true),
        (events(&overloaded, 50, false), false),
    ] {
        let server = Server::start(vec![broken, events(&whole, 50, false)]);
        let config = ClientConfig { stream: true, ..config(Provider::Anthropic, &server.url) };
        let (sender, paces) = std::sync::mpsc::channel();
        let observer = Mutex::new(sender);
        let observed = client(&config)
            .with_pace_observer(Arc::new(move |pace: &Pace| observer.lock().unwrap().send(*pace).unwrap()));
        let response = observed.complete(&request(), None).await.unwrap();
        assert_eq!(statuses(&response.attempts), [Some(200), Some(200)]);
        drop(observed);
        let paces: Vec<Pace> = paces.iter().collect();
        // Answers have heads; one that was left unfinished is told of once more. A refusal in the stream says so itself.
        assert_eq!(paces.iter().filter(|pace| pace.cut_off).count(), usize::from(cut_off));
        assert_eq!(response.choices[0].text, "hal");
        // The first try was billed for its prompt at least.
        assert_eq!(
            (response.usage.input_tokens, response.usage.output_tokens, response.unmetered),
            (80, 4, 1)
        );

        let server = Server::start(vec![events(start, 50, true), events(&whole, 50, false)]);
        let config = ClientConfig { base_url: Some(server.url.clone()), ..config };
        let mut heard = String::new();
        let mut on_text = |piece: &str| heard.push_str(piece);
        let failure = client(&config).complete(&request(), Some(&mut on_text)).await.unwrap_err();
        assert_eq!((failure.kind, failure.attempts.len()), (FailureKind::Network, 1));
        assert_eq!((heard.as_str(), failure.usage.input_tokens, failure.unmetered), ("hal", 40, 1));
    }
}

#[tokio::test]
async fn connections_that_fail_are_made_again() {
    let whole = vec![Act::Send(answer(200, "", CHAT.as_bytes()))];
    let half = answer(200, "", CHAT.as_bytes())[..150].to_vec();
    for (broken, unmetered) in [
        (vec![], 1),
        (vec![Act::Send(half.clone())], 1),
        (vec![Act::Hang], 1),
        (vec![Act::Send(half), Act::Hang], 1),
        (vec![Act::Send(b"SSH-2.0-server\r\n".to_vec())], 1),
    ] {
        let server = Server::start(vec![broken, whole.clone()]);
        let timeouts = Timeouts { connect: 5.0, idle: 0.05, total: 5.0 };
        let client = client(&ClientConfig { timeouts, ..config(Provider::Openai, &server.url) });
        let response = client.complete(&request(), None).await.unwrap();
        assert_eq!((response.attempts.len(), response.unmetered), (2, unmetered));
        assert!(response.attempts[0].error.is_some());
    }
}

#[tokio::test]
async fn an_unreachable_host_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let failure = client(&config(Provider::Openai, &url)).complete(&request(), None).await.unwrap_err();
    assert_eq!((failure.kind, failure.attempts.len(), failure.unmetered), (FailureKind::Network, 3, 0));
    let line = failure.error.to_line();
    assert!(line.contains(&format!("no connection to {url}")), "{line}");
    assert!(failure.error.hint().unwrap().contains("HTTPS_PROXY"));
}

#[tokio::test]
async fn compressed_and_oversized_bodies() {
    let compress = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = |body: &[u8]| vec![Act::Send(answer(200, "content-encoding: gzip\r\n", &compress(body)))];
    let server = Server::start(vec![gzip(CHAT.as_bytes())]);
    assert_eq!(openai(&server).complete(&request(), None).await.unwrap().choices[0].text, "grüße");
    let server = Server::start(vec![gzip(&vec![b' '; 65 << 20])]);
    let failure = openai(&server).complete(&request(), None).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Protocol);
    assert!(failure.error.to_string().contains("longer than"), "{}", failure.error);
}

#[tokio::test]
async fn keys_do_not_appear_in_messages() {
    let echo = json!({"error": {"message": format!("Incorrect API key provided: {KEY}, tenant-secret"), "code": KEY}});
    let server = Server::answering(&[(401, "", &echo.to_string())]);
    let headers = Headers([("x-tenant".to_owned(), "tenant-secret".to_owned())].into());
    let client = client(&ClientConfig { headers, ..config(Provider::Openai, &server.url) });
    let failure = client.complete(&request(), None).await.unwrap_err();
    let all = format!("{failure:?} {} {:?}", failure.error.to_line(), failure.error.hint());
    assert!(all.contains("[redacted]") && !all.contains(KEY) && !all.contains("tenant-secret"), "{all}");
    assert!(server.requests()[0].contains("x-tenant: tenant-secret"));
}

#[tokio::test]
async fn after_a_final_failure_nothing_is_sent() {
    let server = Server::answering(&[(401, "", "{}"), (200, "", CHAT)]);
    let broken = openai(&server);
    for tries in [1, 0] {
        let failure = broken.complete(&request(), None).await.unwrap_err();
        assert_eq!((failure.kind, failure.attempts.len()), (FailureKind::Authentication, tries));
        assert!(failure.error.hint().unwrap().contains("valid key"));
    }
    assert_eq!(server.requests().len(), 1);

    // An unknown model stops its own requests only.
    let unknown = r#"{"error":{"message":"The model `m` does not exist"}}"#;
    let server = Server::answering(&[(404, "", unknown), (200, "", CHAT)]);
    let client = openai(&server);
    assert_eq!(client.complete(&request(), None).await.unwrap_err().kind, FailureKind::UnknownModel);
    assert!(client.complete(&request(), None).await.unwrap_err().attempts.is_empty());
    client.complete(&Request { model: "other".into(), ..request() }, None).await.unwrap();
}

#[tokio::test]
async fn failures_in_a_row_make_everybody_wait_for_one_probe() {
    let server = Server::answering(&[(500, "", ""), (500, "", ""), (200, "", CHAT)]);
    let breaker = BreakerPolicy { failures: 2, pause: 0.05 };
    let client = client(&ClientConfig { breaker, ..config(Provider::Openai, &server.url) });
    let begun = std::time::Instant::now();
    let response = client.complete(&request(), None).await.unwrap();
    assert_eq!(statuses(&response.attempts), [Some(500), Some(500), Some(200)]);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    client.complete(&request(), None).await.unwrap();

    // A server that stays down: the deadline ends the wait.
    let server = Server::answering(&[(500, "", "")]);
    let breaker = BreakerPolicy { failures: 1, pause: 10.0 };
    let retry = RetryPolicy { deadline: 0.1, ..config(Provider::Openai, "").retry };
    let client = self::client(&ClientConfig { breaker, retry, ..config(Provider::Openai, &server.url) });
    let failure = client.complete(&request(), None).await.unwrap_err();
    assert_eq!((failure.kind, server.requests().len()), (FailureKind::Server, 1));
    assert!(failure.error.to_string().contains("status 500 1 times in a row"), "{}", failure.error);
}

#[tokio::test]
async fn several_answers_are_asked_for_until_they_are_there() {
    let server = Server::answering(&[(200, "", MESSAGE)]);
    let client = client(&config(Provider::Anthropic, &server.url));
    let response = client.complete(&Request { n: 3, ..request() }, None).await.unwrap();
    assert_eq!((response.choices.len(), response.usage.input_tokens, response.attempts.len()), (3, 15, 3));

    // A server that does what `n` says, and one that ignores it.
    let two = r#"{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}"#;
    let server = Server::answering(&[(200, "", two), (200, "", CHAT)]);
    let response = openai(&server).complete(&Request { n: 3, ..request() }, None).await.unwrap();
    assert_eq!((response.choices.len(), response.unmetered), (3, 1));
    assert!(server.requests()[0].contains("\"n\":3") && !server.requests()[1].contains("\"n\":"));
}

#[tokio::test]
async fn tokens_are_counted_where_there_is_a_service() {
    let server =
        Server::answering(&[(529, "", ""), (200, "", r#"{"input_tokens": 17}"#), (404, "", "no such page")]);
    let client = client(&config(Provider::Anthropic, &server.url));
    assert_eq!(client.count_tokens(&request()).await.unwrap(), Some(17));
    assert_eq!(client.count_tokens(&request()).await.unwrap(), None);
    let asked = &server.requests()[0];
    assert!(asked.starts_with("POST /v1/messages/count_tokens ") && !asked.contains("max_tokens"), "{asked}");
    assert_eq!(openai(&server).count_tokens(&request()).await.unwrap(), None);
}

#[tokio::test]
async fn limits_are_told_of_failures_too() {
    let headers = "x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 1\r\n";
    let server = Server::answering(&[(429, headers, "{}"), (200, headers, CHAT)]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let client =
        openai(&server).with_pace_observer(Arc::new(move |pace: &Pace| sink.lock().unwrap().push(*pace)));
    client.complete(&request(), None).await.unwrap();
    let seen: Vec<_> = seen.lock().unwrap().iter().map(|pace| (pace.status, pace.requests.limit)).collect();
    assert_eq!(seen, [(429, Some(60)), (200, Some(60))]);
}

#[tokio::test]
async fn a_dropped_request_is_cancelled_and_tasks_share_a_client() {
    let server = Server::start(vec![vec![Act::Hang], vec![Act::Send(answer(200, "", CHAT.as_bytes()))]]);
    let client = Arc::new(openai(&server));
    let first = tokio::time::timeout(Duration::from_millis(20), client.complete(&request(), None)).await;
    assert!(first.is_err());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.complete(&request(), None).await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}
