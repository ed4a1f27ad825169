//! Errors: why a call failed, with what was expected and found, and what to do about it.

use serde_json::{Map, Value, json};

use super::boundary::{enter_infallible, free};
use super::status;
use super::text::Str;
use crate::error::Error;

/// Why a call failed. Immutable; may be read by several threads and outlives the object that the call was about.
pub struct ErrorObject {
    code: i32,
    message: String,
    json: String,
}

impl ErrorObject {
    /// The object for an error of the library.
    pub(super) fn new(error: Error) -> Self {
        Self::with_code(status::of(error.kind()), error.kind().name(), &error)
    }

    /// The object for an error with a status that is no [`crate::ErrorKind`] of its own.
    pub(super) fn with_code(code: i32, kind: &str, error: &Error) -> Self {
        Self { code, message: error.to_line(), json: describe(code, kind, error).to_string() }
    }

    /// The status code.
    pub(super) fn code(&self) -> i32 {
        self.code
    }
}

fn describe(code: i32, kind: &str, error: &Error) -> Value {
    let mut map = Map::new();
    map.insert("code".into(), json!(code));
    map.insert("kind".into(), json!(kind));
    map.insert("message".into(), json!(error.message()));
    map.insert("line".into(), json!(error.to_string()));
    let optional = [
        ("path", error.path().map(|path| path.display().to_string())),
        ("expected", error.expected().map(str::to_owned)),
        ("got", error.got().map(str::to_owned)),
        ("hint", error.hint().map(str::to_owned)),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            map.insert(key.into(), json!(value));
        }
    }
    map.insert("causes".into(), json!(error.causes()));
    if let Some(reply) = error.reply() {
        map.insert("http_status".into(), json!(reply.status));
        map.insert("provider_code".into(), json!(reply.code));
        map.insert("retry_after".into(), json!(reply.retry_after.map(|wait| wait.as_secs_f64())));
    }
    Value::Object(map)
}

/// The status code that the call returned; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_error_code(error: *const ErrorObject) -> i32 {
    enter_infallible(status::SWEBENCH_ERROR_INTERNAL, || {
        // SAFETY: NULL or a live error, by contract.
        unsafe { error.as_ref() }.map_or(status::SWEBENCH_OK, |error| error.code)
    })
}

/// The message with its causes on one line, for people; borrowed from the error, empty for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_error_message(error: *const ErrorObject) -> Str {
    enter_infallible(Str::EMPTY, || {
        // SAFETY: NULL or a live error, by contract.
        unsafe { error.as_ref() }.map_or(Str::EMPTY, |error| Str::new(&error.message))
    })
}

/// The details as a JSON object, for programs; borrowed from the error, empty for NULL.
///
/// Keys: `code`, `kind` (such as "not_found"), `message`, `line` (the message with path, expected and got), `causes`
/// (strings, outermost first) and, when known, `path`, `expected`, `got`, `hint`; of a service's refusal also
/// `http_status`, `provider_code` and `retry_after` (seconds), the last two possibly null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_error_json(error: *const ErrorObject) -> Str {
    enter_infallible(Str::EMPTY, || {
        // SAFETY: NULL or a live error, by contract.
        unsafe { error.as_ref() }.map_or(Str::EMPTY, |error| Str::new(&error.json))
    })
}

/// Frees an error; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn swebench_error_free(error: *mut ErrorObject) {
    // SAFETY: NULL or an error that the caller owns, by contract.
    unsafe { free(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_holds_every_detail() {
        let error = Error::invalid_data("wrong shape")
            .with_path("/m/w.safetensors")
            .with_expected("[2, 3]", "[3, 2]")
            .with_hint("convert it again")
            .with_source(std::io::Error::other("disk on fire"));
        let object = ErrorObject::new(error);
        let value: Value = serde_json::from_str(&object.json).unwrap();
        let expected = json!({
            "code": -4, "kind": "invalid_data", "message": "wrong shape",
            "line": "/m/w.safetensors: wrong shape: expected [2, 3], got [3, 2]",
            "path": "/m/w.safetensors", "expected": "[2, 3]", "got": "[3, 2]", "hint": "convert it again",
            "causes": ["disk on fire"],
        });
        assert_eq!(value, expected);
        assert!(object.message.ends_with(": disk on fire"));
    }
}
