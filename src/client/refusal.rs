//! What a server's words for an error mean, whichever of the many forms they have.

use serde_json::Value;

use super::FailureKind;

/// Longest message that is repeated to the user, in characters.
const MAX_MESSAGE: usize = 600;

/// The status with which a proxy refuses who names no user.
pub(super) const PROXY_WANTS_A_PASSWORD: u16 = 407;

/// An error as a server states it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What it says, in one line.
    pub message: String,
    /// OpenAI's `code`, or the status that a gateway repeats here.
    pub code: Option<String>,
    /// The `type`.
    pub kind: Option<String>,
    /// Whether this came as the JSON of an API; other text is a proxy's or another server's.
    pub structured: bool,
}

impl Refusal {
    /// The error in the body of an answer.
    pub(super) fn read(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        if let Ok(value) = serde_json::from_slice::<Value>(body) {
            return Self::from_value(&value).unwrap_or_else(|| Self {
                message: one_line(&text),
                structured: value.is_object(),
                ..Self::default()
            });
        }
        let message = if text.trim_start().starts_with('<') {
            match element(&text, "title") {
                Some(title) => format!("an HTML page titled `{}`", one_line(title)),
                None => "an HTML page".to_owned(),
            }
        } else {
            one_line(&text)
        };
        Self { message, ..Self::default() }
    }

    /// The error in JSON: `{"error": {…}}` (OpenAI, Azure, Anthropic), `{"error": "…"}` (Ollama), the object itself (vLLM),
    /// `{"message": …}` (gateways), `{"detail": …}` (FastAPI). `None` for JSON that holds none.
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let object = match value.get("error") {
            Some(Value::Object(object)) => object,
            Some(Value::String(message)) => {
                let kind = value.get("error_type").and_then(Value::as_str).map(str::to_owned);
                return Some(Self { message: one_line(message), kind, structured: true, code: None });
            }
            _ => value.as_object()?,
        };
        let message = match object.get("message").or_else(|| object.get("detail"))? {
            Value::String(message) => message.clone(),
            other => other.to_string(),
        };
        let scalar = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        Some(Self {
            message: one_line(&message),
            code: scalar("code"),
            kind: scalar("type"),
            structured: true,
        })
    }

    /// Whether the JSON of an answer with a successful status is an error all the same.
    pub(super) fn within(value: &Value) -> Option<Self> {
        match value.get("error") {
            None | Some(Value::Null) => (value.get("object").and_then(Value::as_str) == Some("error"))
                .then(|| Self::from_value(value))?,
            Some(_) => Some(Self::from_value(value).unwrap_or_else(|| Self {
                message: one_line(&value.to_string()),
                structured: true,
                ..Self::default()
            })),
        }
    }

    /// The status that says what kind of error it is: that of the answer, or the one that these words would have come with
    /// when the answer began with success.
    pub(super) fn meant_status(&self, status: u16) -> u16 {
        if !(200..300).contains(&status) {
            return status;
        }
        if let Some(status) = self.code.as_deref().and_then(|code| code.parse().ok())
            && (400..600).contains(&status)
        {
            return status;
        }
        [&self.kind, &self.code]
            .into_iter()
            .flatten()
            .find_map(|word| match word.as_str() {
                "invalid_request_error" | "invalid_prompt" | "BadRequestError" => Some(400),
                "authentication_error" | "invalid_api_key" => Some(401),
                "billing_error" => Some(402),
                "permission_error" => Some(403),
                "not_found_error" | "model_not_found" => Some(404),
                "request_too_large" => Some(413),
                "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => Some(429),
                "timeout_error" => Some(504),
                "overloaded_error" => Some(529),
                _ => None,
            })
            .unwrap_or(500)
    }

    /// What to do about it, with the status of the answer.
    pub(super) fn classify(&self, status: u16) -> FailureKind {
        let status = self.meant_status(status);
        let message = self.message.to_lowercase();
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
        let is = |words: &[&str]| {
            [&self.code, &self.kind].into_iter().flatten().any(|word| words.contains(&word.as_str()))
        };
        // Some servers fail with 500 on a prompt that is too long.
        if is(&["context_length_exceeded", "exceed_context_size_error"])
            || status != 429 && says(OVERFLOW)
            || status == 413
        {
            return FailureKind::ContextOverflow;
        }
        if status == 402
            || is(&[
                "insufficient_quota",
                "billing_error",
                "billing_hard_limit_reached",
                "billing_not_active",
            ])
            || status < 500 && says(EXHAUSTED)
        {
            return FailureKind::Quota;
        }
        if is(&["model_not_found", "DeploymentNotFound"]) {
            return FailureKind::UnknownModel;
        }
        match status {
            401 => FailureKind::Authentication,
            // Firewalls answer 403 with a page of their own to single prompts that look like attacks.
            403 if self.structured => FailureKind::Authentication,
            404 if self.structured && says(&["model", "deployment"]) => FailureKind::UnknownModel,
            300..=399 | 404 | 405 | PROXY_WANTS_A_PASSWORD => FailureKind::WrongAddress,
            // More tokens in one request than a minute allows.
            429 if says(&["request too large"]) => FailureKind::Rejected,
            429 => FailureKind::RateLimited,
            408 | 409 | 500.. => FailureKind::Server,
            _ => FailureKind::Rejected,
        }
    }
}

/// How servers say that the prompt does not fit.
const OVERFLOW: &[&str] = &[
    "maximum context length",
    "context length exceeded",
    "exceeds the context",
    "exceed context limit",
    "exceed context window",
    "exceeds the available context size",
    "exceeds the model's context",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "`max_new_tokens` must be <=",
];

/// How servers say that money, and not time, is short.
const EXHAUSTED: &[&str] = &[
    "credit balance is too low",
    "exceeded your current quota",
    "insufficient credits",
    "insufficient quota",
    "api usage limits",
    "spend limit",
    "spending limit",
    "billing hard limit",
];

/// The text on one line, cut where it is too long for a message.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1);
    let mut characters = words.flat_map(str::chars);
    let mut line: String = characters.by_ref().take(MAX_MESSAGE).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

/// What the first HTML element of this name holds.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let end = start + text[start..].find('<')?;
    Some(&text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_providers_errors_are_told_apart() {
        use FailureKind::*;
        for (status, body, expected) in [
            (
                401,
                r#"{"error":{"message":"Incorrect API key","type":"invalid_request_error","code":"invalid_api_key"}}"#,
                Authentication,
            ),
            (
                401,
                r#"{"statusCode":401,"message":"Access denied due to invalid subscription key"}"#,
                Authentication,
            ),
            (401, "Unauthorized", Authentication),
            (
                403,
                r#"{"type":"error","error":{"type":"permission_error","message":"no access"}}"#,
                Authentication,
            ),
            (403, "<html><title>Attention Required!</title></html>", Rejected),
            (402, r#"{"error":{"message":"Insufficient credits","code":402}}"#, Quota),
            (
                429,
                r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
                Quota,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"}}"#,
                Quota,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits."}}"#,
                Quota,
            ),
            (429, r#"{"error":{"message":"Project spend limit reached"}}"#, Quota),
            (
                404,
                r#"{"error":{"message":"The model `gpt-9` does not exist","code":"model_not_found"}}"#,
                UnknownModel,
            ),
            (
                403,
                r#"{"error":{"message":"Project does not have access","code":"model_not_found"}}"#,
                UnknownModel,
            ),
            (
                404,
                r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment does not exist."}}"#,
                UnknownModel,
            ),
            (
                404,
                r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-9"}}"#,
                UnknownModel,
            ),
            (404, r#"{"error":"model 'llama9' not found, try pulling it first"}"#, UnknownModel),
            (404, r#"{"detail":"Not Found"}"#, WrongAddress),
            (404, "<html><body>nginx</body></html>", WrongAddress),
            (308, "", WrongAddress),
            (407, "", WrongAddress),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","code":"context_length_exceeded"}}"#,
                ContextOverflow,
            ),
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 9000","type":"BadRequestError","code":400}"#,
                ContextOverflow,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
                ContextOverflow,
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000"}}"#,
                ContextOverflow,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#,
                ContextOverflow,
            ),
            (
                422,
                r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096","error_type":"validation"}"#,
                ContextOverflow,
            ),
            (
                500,
                r#"{"error":{"message":"Requested tokens (5000) exceed context window of 2048"}}"#,
                ContextOverflow,
            ),
            (
                413,
                r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
                ContextOverflow,
            ),
            (
                429,
                r#"{"error":{"message":"Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 45000","code":"rate_limit_exceeded"}}"#,
                Rejected,
            ),
            (
                400,
                r#"{"error":{"message":"Unsupported parameter: 'max_tokens'","code":"unsupported_parameter"}}"#,
                Rejected,
            ),
            (400, r#"{"error":{"code":"content_filter","message":"The response was filtered"}}"#, Rejected),
            (422, r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, Rejected),
            (429, r#"{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}"#, RateLimited),
            (429, "slow down", RateLimited),
            (408, "", Server),
            (409, r#"{"error":{"message":"conflict"}}"#, Server),
            (500, "[1, 2]", Server),
            (529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Server),
            (503, "<html><title>503 Service\nUnavailable</title>", Server),
        ] {
            assert_eq!(Refusal::read(body.as_bytes()).classify(status), expected, "{status} {body}");
        }
    }

    #[test]
    fn an_error_within_a_success_has_the_status_it_should_have_had() {
        for (json, expected) in [
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Some(529)),
            (r#"{"error":{"message":"Provider returned error","code":502}}"#, Some(502)),
            (r#"{"error":{"message":"x","code":"rate_limit_exceeded"}}"#, Some(429)),
            (r#"{"object":"error","message":"x","type":"BadRequestError","code":400}"#, Some(400)),
            (r#"{"error":{"unheard":"of"}}"#, Some(500)),
            (r#"{"error":null,"choices":[]}"#, None),
            (r#"{"choices":[]}"#, None),
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(Refusal::within(&value).map(|refusal| refusal.meant_status(200)), expected, "{json}");
        }
    }

    #[test]
    fn messages_are_short_lines() {
        assert_eq!(
            Refusal::read(b"<html><title>502 Bad\n Gateway</title>").message,
            "an HTML page titled `502 Bad Gateway`"
        );
        let long = Refusal::read("x ".repeat(5000).as_bytes()).message;
        assert!(long.chars().count() <= MAX_MESSAGE + 1 && long.ends_with('…'));
        let wide = Refusal::read("é".repeat(5000).as_bytes()).message;
        assert_eq!(wide.chars().count(), MAX_MESSAGE + 1);
        assert_eq!(Refusal::read(b"\xff\xfe").message, "\u{fffd}\u{fffd}");
    }
}
