//! What a caller can do wrong comes back as a status with a reason, and outputs stay untouched.

use std::ptr;

use super::repository;
use super::swebench::sys::*;
use super::swebench::{
    Model, Tokenizer, config_validate, diff, extract_diff, init, minimal_patch, repair_patch,
};

fn text(text: &str) -> swebench_str {
    swebench_str { ptr: text.as_ptr().cast(), len: text.len() }
}

/// Makes a call that must fail, and returns its status and message.
fn failure(call: impl FnOnce(*mut *mut swebench_error) -> i32) -> (i32, String) {
    let mut error = ptr::null_mut();
    let status = call(&raw mut error);
    assert!(status < 0, "{status}");
    // SAFETY: a failed call gives an error object, freed once.
    unsafe {
        assert_eq!(swebench_error_code(error), status);
        let message = swebench_error_message(error);
        let bytes = std::slice::from_raw_parts(message.ptr.cast::<u8>(), message.len);
        let message = String::from_utf8(bytes.to_vec()).unwrap();
        swebench_error_free(error);
        (status, message)
    }
}

#[test]
fn null_is_refused_everywhere_and_named() {
    let mut buf = swebench_buf { ptr: ptr::null_mut(), len: 0, reserved: 0 };
    let mut tokens = ptr::null_mut();
    let mut job = ptr::null_mut();
    let mut event = ptr::null_mut();
    let mut client = ptr::null_mut();
    let mut answer = ptr::null_mut();
    let mut count = 7usize;
    let empty = swebench_str { ptr: ptr::null(), len: 0 };
    let long_null = swebench_str { ptr: ptr::null(), len: 8 };
    type Call<'a> = Box<dyn FnOnce(*mut *mut swebench_error) -> i32 + 'a>;
    // SAFETY: NULL, or pointers that live during the call.
    let calls: Vec<(&str, Call<'_>)> = unsafe {
        let out = &raw mut buf;
        vec![
            ("out", Box::new(|e| swebench_capabilities(ptr::null_mut(), e))),
            ("out", Box::new(|e| swebench_config_schema(text("model"), ptr::null_mut(), e))),
            ("kind", Box::new(move |e| swebench_config_schema(long_null, out, e))),
            ("out", Box::new(|e| swebench_model_load(text("{}"), ptr::null_mut(), e))),
            ("model", Box::new(move |e| swebench_model_info(ptr::null(), out, e))),
            ("tokenizer", Box::new(move |e| swebench_tokenizer_info(ptr::null(), out, e))),
            (
                "tokenizer",
                Box::new(|e| swebench_tokenizer_encode(ptr::null(), text("a"), 0, &raw mut tokens, e)),
            ),
            (
                "tokenizer",
                Box::new(|e| swebench_tokenizer_count(ptr::null(), text("a"), 0, &raw mut count, e)),
            ),
            (
                "tokenizer",
                Box::new(move |e| swebench_tokenizer_decode(ptr::null(), ptr::null(), 0, 0, out, e)),
            ),
            (
                "model",
                Box::new(|e| {
                    swebench_generate_start(ptr::null(), text("{}"), ptr::null(), 0, &raw mut job, e)
                }),
            ),
            (
                "model",
                Box::new(move |e| {
                    swebench_generate(ptr::null(), text("{}"), ptr::null(), 0, None, ptr::null_mut(), out, e)
                }),
            ),
            ("out", Box::new(|e| swebench_client_open(text("{}"), empty, ptr::null_mut(), e))),
            ("key", Box::new(|e| swebench_client_open(text("{}"), long_null, &raw mut client, e))),
            (
                "client",
                Box::new(|e| swebench_client_complete_start(ptr::null(), text("{}"), &raw mut answer, e)),
            ),
            (
                "client",
                Box::new(move |e| {
                    swebench_client_complete(ptr::null(), text("{}"), None, ptr::null_mut(), out, e)
                }),
            ),
            ("job", Box::new(|e| swebench_job_next(ptr::null_mut(), 0, &raw mut event, e))),
            ("out", Box::new(|e| swebench_run_llama_start(text("{}"), ptr::null_mut(), e))),
            ("out", Box::new(|e| swebench_run_api_start(text("{}"), ptr::null_mut(), e))),
            ("out", Box::new(|e| swebench_bench_start(text("{}"), ptr::null_mut(), e))),
            ("out", Box::new(|e| swebench_predictions_start(text("{}"), ptr::null_mut(), e))),
            ("out", Box::new(|e| swebench_extract_diff(text("a"), text("legacy"), ptr::null_mut(), e))),
            ("patch", Box::new(move |e| swebench_repair_patch(long_null, text("robust"), out, e))),
            ("mode", Box::new(move |e| swebench_minimal_patch(text("a"), long_null, out, e))),
            ("answer", Box::new(move |e| swebench_diff(long_null, text("{}"), out, e))),
        ]
    };
    for (parameter, call) in calls {
        let (status, message) = failure(call);
        assert_eq!(status, SWEBENCH_ERROR_INVALID_ARGUMENT, "{message}");
        assert!(message.contains(&format!("`{parameter}` is NULL")), "{parameter}: {message}");
    }
    assert!(buf.ptr.is_null() && tokens.is_null() && job.is_null() && event.is_null());
    assert!(client.is_null() && answer.is_null() && count == 7);
    // SAFETY: NULL is allowed here.
    unsafe {
        swebench_buf_free(ptr::null_mut());
        swebench_error_free(ptr::null_mut());
        swebench_model_free(ptr::null_mut());
        swebench_tokenizer_free(ptr::null_mut());
        swebench_tokens_free(ptr::null_mut());
        swebench_client_free(ptr::null_mut());
        swebench_job_free(ptr::null_mut());
        swebench_job_cancel(ptr::null());
        swebench_event_free(ptr::null_mut());
        assert_eq!(swebench_error_code(ptr::null()), SWEBENCH_OK);
        assert_eq!(swebench_event_kind(ptr::null()), 0);
        assert_eq!(swebench_event_text(ptr::null()).len, 0);
        assert_eq!(swebench_error_json(ptr::null()).len, 0);
        // An error that nobody wants is not written.
        assert!(swebench_model_load(empty, ptr::null_mut(), ptr::null_mut()) < 0);
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let bad = swebench_str { ptr: [0xffu8, 0xfe].as_ptr().cast(), len: 2 };
    let mut buf = swebench_buf { ptr: ptr::null_mut(), len: 0, reserved: 0 };
    // SAFETY: the text and the buffer live during the call.
    let (status, message) =
        failure(|e| unsafe { swebench_extract_diff(bad, text("legacy"), &raw mut buf, e) });
    assert_eq!(status, SWEBENCH_ERROR_INVALID_ARGUMENT);
    assert!(message.contains("`response` is not valid UTF-8"), "{message}");
    assert!(buf.ptr.is_null());
}

#[test]
fn a_header_from_the_future_is_refused() {
    // SAFETY: the output lives during the call.
    let (status, message) = failure(|e| unsafe { swebench_init(SWEBENCH_ABI_VERSION + 1, e) });
    assert_eq!(status, SWEBENCH_ERROR_ABI_MISMATCH);
    assert!(message.contains("expected ABI version 1 to 1, got 2"), "{message}");
}

#[test]
fn configurations_are_strict() {
    init().unwrap();
    let demo = repository("tests/data/demo");
    for (kind, json, message) in [
        ("model", r#"{"path": "m", "dvice": "cpu"}"#, "unknown key `dvice`"),
        ("model", r#"{"path": 1}"#, "the value of `path`"),
        ("model", r#"{"device": "cpu"}"#, "missing field `path`"),
        ("generate", r#"{"n": 1e300}"#, "the value of `n`"),
        ("generate", r#"{"seed": -1}"#, "the value of `seed`"),
        ("client", r#"{"modle": "m"}"#, "unknown key `modle`"),
        ("client", r#"{"key": {"given": "sk-1"}}"#, "the value of `key"),
        ("completion", r#"{"user": "a", "tempreture": 1}"#, "unknown key `tempreture`"),
        ("completion", r#"{"user": "a", "n": 0}"#, "`n` is out of range"),
        ("run-llama", r#"{"model_name_or_path": "m"}"#, "`dataset_path` is out of range"),
        ("run-llama", "null", "expected a JSON object, got null"),
        ("nothing", "{}", "unknown kind of configuration"),
    ] {
        let error = config_validate(kind, json).unwrap_err();
        assert_eq!(error.code(), SWEBENCH_ERROR_INVALID_ARGUMENT, "{json}");
        assert!(error.to_string().contains(message), "{json}: {error}");
    }
    let effective = config_validate("generate", r#"{"prompt": "a"}"#).unwrap();
    assert_eq!(config_validate("generate", &effective).unwrap(), effective);
    let error = Model::load(&format!(r#"{{"path": {demo:?}, "device": "cuda:4096"}}"#)).err().unwrap();
    assert!([SWEBENCH_ERROR_DEVICE, SWEBENCH_ERROR_UNSUPPORTED].contains(&error.code()), "{error}");
}

#[test]
fn tokenizers_refuse_what_they_cannot_read() {
    let error = Tokenizer::open("/nowhere").err().unwrap();
    assert_eq!(error.code(), SWEBENCH_ERROR_NOT_FOUND, "{error}");
    let demo = repository("tests/data/demo");
    let tokenizer = Tokenizer::open(demo.to_str().unwrap()).unwrap();
    let ids = tokenizer.encode("def f():\n    pass\n", false).unwrap();
    assert_eq!(tokenizer.count("def f():\n    pass\n", false).unwrap(), ids.len());
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "def f():\n    pass\n");
    assert_eq!(tokenizer.decode(&[], false).unwrap(), "");
    assert!(tokenizer.info().unwrap().contains("\"vocab_size\": 2048"));
}

#[test]
fn diffs_are_extracted_in_known_modes() {
    assert_eq!(extract_diff("text <patch>\ndiff\n</patch>", "legacy").unwrap(), "\ndiff\n");
    let error = extract_diff("", "modern").unwrap_err();
    assert!(error.to_string().contains("expected robust or legacy, got modern"), "{error}");
    let patch = "--- a/x\n+++ b/x\n@@ -3,9 +3,9 @@\n a\n-b\n+c\n d\n e\n";
    let repaired = patch.replace("3,9", "3,4");
    assert_eq!(extract_diff(&format!("So:\n```diff\n{patch}```\n"), "robust").unwrap(), patch);
    for mode in ["robust", "legacy"] {
        assert_eq!(repair_patch(patch, mode).unwrap(), repaired);
        let minimal = "--- a/x\n+++ b/x\n@@ -4,2 +4,2 @@\n-b\n+c\n d\n";
        assert_eq!(minimal_patch(patch, mode).unwrap(), minimal);
    }
    let report: serde_json::Value =
        serde_json::from_str(&diff(patch, r#"{"repair": true}"#).unwrap()).unwrap();
    assert_eq!((&report["patch"], &report["files"][0]["source"]), (&repaired.into(), &"text".into()));
    let report = diff("prose", "{}").unwrap();
    assert!(report.contains(r#""empty":"no_diff""#), "{report}");
    for (config, says) in [
        (r#"{"check": "git"}"#, "`check` needs a `repository`"),
        (r#"{"mode": "modern"}"#, "`mode`"),
        (r#"{"repository": "/nowhere"}"#, "no git repository"),
    ] {
        let error = diff(patch, config).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
