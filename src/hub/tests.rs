//! The hub against a server on the loopback interface.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::test_server::{COMMIT, Reply, Request, TestServer, listing};
use super::*;

const CONFIG: &[u8] = b"{\"model_type\": \"llama\"}";

fn model(name: &str) -> RepoId {
    RepoId::parse(RepoKind::Model, name).unwrap()
}

fn weights() -> Vec<u8> {
    (0..500_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A hub with the model `o/n`; `file` may answer for the weights.
fn model_hub(mut file: impl FnMut(&Request) -> Option<Reply> + Send + 'static) -> TestServer {
    let weights = weights();
    let files = listing(&[("config.json", CONFIG), ("model.safetensors", &weights), ("README.md", b"")]);
    TestServer::start(move |request| match request.path.as_str() {
        "/api/models/o/n/revision/main?blobs=true" => Reply::ok(files.to_string()),
        path if path == format!("/o/n/resolve/{COMMIT}/config.json") => Reply::file(request, CONFIG),
        path if path == format!("/o/n/resolve/{COMMIT}/model.safetensors") => {
            file(request).unwrap_or_else(|| Reply::file(request, &weights))
        }
        _ => Reply::refuse(404, "RepoNotFound"),
    })
}

fn check_model(directory: &Path) {
    assert_eq!(std::fs::read(directory.join("config.json")).unwrap(), CONFIG);
    assert_eq!(std::fs::read(directory.join("model.safetensors")).unwrap(), weights());
    assert!(!directory.join("README.md").exists());
}

fn offline(mut hub: Hub) -> Hub {
    hub.config.offline = true;
    hub
}

#[test]
fn a_model_is_fetched_once_and_found_offline() {
    let cache = tempfile::tempdir().unwrap();
    let server = model_hub(|_| None);
    let directory = server.hub(cache.path()).model_dir("o/n", None).unwrap();
    assert_eq!(directory, cache.path().join("models--o--n/snapshots").join(COMMIT));
    check_model(&directory);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_secret")));

    check_model(&server.hub(cache.path()).model_dir("o/n", None).unwrap());
    assert_eq!(server.requests().len(), 4, "the listing alone is asked for again");
    check_model(&offline(server.hub(cache.path())).model_dir("o/n", None).unwrap());
    check_model(&offline(server.hub(cache.path())).model_dir("o/n", Some(COMMIT)).unwrap());
    assert_eq!(server.requests().len(), 4, "offline asks for nothing");

    let hub = server.hub(cache.path());
    drop(server);
    check_model(&hub.model_dir("o/n", None).unwrap());
}

#[test]
fn a_file_that_another_commit_had_is_not_fetched_again() {
    let cache = tempfile::tempdir().unwrap();
    let server = model_hub(|_| None);
    server.hub(cache.path()).model_dir("o/n", None).unwrap();
    std::fs::rename(
        cache.path().join("models--o--n/snapshots").join(COMMIT),
        cache.path().join("models--o--n/snapshots").join(COMMIT.replace('0', "f")),
    )
    .unwrap();
    check_model(&server.hub(cache.path()).model_dir("o/n", None).unwrap());
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let cache = tempfile::tempdir().unwrap();
    let calls = AtomicUsize::new(0);
    let server = model_hub(move |request| {
        let cut = (calls.fetch_add(1, Ordering::Relaxed) < 6).then_some(200_000);
        Some(Reply { cut, ..Reply::file(request, &weights()) })
    });
    check_model(&server.hub(cache.path()).model_dir("o/n", None).unwrap());
    let ranges: Vec<_> = server.requests().iter().filter_map(|request| request.range.clone()).collect();
    assert_eq!(ranges.len(), 6, "more cuts than attempts, but each brought something: {ranges:?}");
    assert_eq!(ranges.last().unwrap(), "bytes=1200000-");
}

#[test]
fn a_later_run_takes_up_what_an_earlier_one_left() {
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--o--n/blobs");
    let check = |left: &[u8], range: Option<&str>| {
        let server = model_hub(|_| None);
        std::fs::create_dir_all(&blobs).unwrap();
        let hash = listing(&[("x", &weights())])["siblings"][0]["lfs"]["sha256"].as_str().unwrap().to_owned();
        std::fs::write(blobs.join(format!("{hash}.incomplete")), left).unwrap();
        check_model(&server.hub(cache.path()).model_dir("o/n", None).unwrap());
        assert_eq!(server.requests().iter().find_map(|request| request.range.clone()).as_deref(), range);
        std::fs::remove_dir_all(cache.path().join("models--o--n")).unwrap();
    };
    let weights = weights();
    check(&weights[..1000], Some("bytes=1000-"));
    check(&weights, None);
    check(&[&weights[..], b"more"].concat(), None);
}

#[test]
fn a_server_that_cannot_resume_sends_everything_again() {
    let cache = tempfile::tempdir().unwrap();
    let calls = AtomicUsize::new(0);
    let server = model_hub(move |_| {
        let cut = (calls.fetch_add(1, Ordering::Relaxed) == 0).then_some(200_000);
        Some(Reply { cut, ..Reply::ok(weights()) })
    });
    check_model(&server.hub(cache.path()).model_dir("o/n", None).unwrap());
}

#[test]
fn a_damaged_download_is_deleted() {
    let cache = tempfile::tempdir().unwrap();
    let server = model_hub(|_| {
        let mut damaged = weights();
        damaged[7] ^= 1;
        Some(Reply::ok(damaged))
    });
    let error = server.hub(cache.path()).model_dir("o/n", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.message().contains("`model.safetensors` is damaged"), "{error}");
    let left: Vec<_> = std::fs::read_dir(cache.path().join("models--o--n/blobs")).unwrap().collect();
    assert_eq!(left.len(), 1, "only config.json stays: {left:?}");

    // A server that lists no hashes may still send one as the entity tag.
    let etag = "0".repeat(64);
    let server = TestServer::start(move |request| match request.path.starts_with("/api/") {
        true => Reply::ok(json!({"sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}).to_string()),
        false => Reply { headers: vec![("ETag", format!("\"{etag}\""))], ..Reply::ok(CONFIG) },
    });
    let error = server.hub(cache.path()).model_dir("p/q", None).unwrap_err();
    assert!(error.message().contains("`config.json` is damaged"), "{error}");
}

#[test]
fn a_server_that_lists_no_sizes_is_enough() {
    let cache = tempfile::tempdir().unwrap();
    let server = TestServer::start(move |request| match request.path.starts_with("/api/") {
        true => Reply::ok(json!({"sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}).to_string()),
        false => Reply::ok(CONFIG),
    });
    let directory = server.hub(cache.path()).model_dir("o/n", None).unwrap();
    assert_eq!(std::fs::read(directory.join("config.json")).unwrap(), CONFIG);
    server.hub(cache.path()).model_dir("o/n", None).unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn refusals_say_what_to_do() {
    let check =
        |status: u16, code: &'static str, kind: ErrorKind, message: &str, hint: &str, requests: usize| {
            let cache = tempfile::tempdir().unwrap();
            let server = TestServer::start(move |_| Reply::refuse(status, code));
            let error = server.hub(cache.path()).model_dir("o/n", None).unwrap_err();
            let line = error.to_line();
            assert_eq!(error.kind(), kind, "{line}");
            assert!(line.contains(message), "{line}");
            assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
            assert_eq!(server.requests().len(), requests, "{line}");
            assert!(!format!("{error:?}").contains("hf_secret"));
        };
    check(401, "RepoNotFound", ErrorKind::NotFound, "model o/n is not on http://127", "the token in use", 1);
    check(404, "RepoNotFound", ErrorKind::NotFound, "or it is private", "check the name", 1);
    check(
        403,
        "GatedRepo",
        ErrorKind::NotFound,
        "access to model o/n has to be granted",
        "accept its terms",
        1,
    );
    check(404, "RevisionNotFound", ErrorKind::NotFound, "model o/n has no revision `main`", "", 1);
    check(418, "", ErrorKind::Network, "expected success, got HTTP status 418", "", 1);
    check(503, "", ErrorKind::Network, "expected success, got HTTP status 503", "", 4);
}

#[test]
fn what_the_hub_sends_cannot_lead_out_of_the_cache() {
    let check = |listing: serde_json::Value, expected: &str| {
        let cache = tempfile::tempdir().unwrap();
        let server = TestServer::start(move |request| match request.path.starts_with("/api/") {
            true => Reply::ok(listing.to_string()),
            false => Reply::ok(CONFIG),
        });
        let hub = server.hub(&cache.path().join("inner"));
        match hub.model_dir("o/n", None) {
            Ok(directory) => assert!(directory.starts_with(cache.path().join("inner/models--o--n"))),
            Err(error) => assert!(error.to_line().contains(expected), "{}", error.to_line()),
        }
        let outside: Vec<_> =
            std::fs::read_dir(cache.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(outside.iter().all(|name| name == "inner"), "{outside:?}");
    };
    let file = |name: &str| json!({"sha": COMMIT, "siblings": [{"rfilename": name}]});
    check(file("../config.json"), "outside of its repository");
    check(file("/config.json"), "outside of its repository");
    check(json!({"sha": "../../..", "siblings": [{"rfilename": "config.json"}]}), "names no commit");
    let id = json!({"rfilename": "config.json", "blobId": "../../../x", "size": CONFIG.len()});
    check(json!({"sha": COMMIT, "siblings": [id]}), "");
    check(json!([]), "is not readable");
    check(json!({"sha": COMMIT, "siblings": [{"rfilename": "README.md"}]}), "holds no model");
}

#[test]
fn what_is_not_cached_is_not_there_offline() {
    let cache = tempfile::tempdir().unwrap();
    let server = TestServer::start(|_| Reply::refuse(500, ""));
    let error = offline(server.hub(cache.path())).model_dir("o/n", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.path(), Some(cache.path().join("models--o--n").as_path()));
    assert!(error.hint().unwrap().contains("HF_HUB_OFFLINE"));
    assert!(server.requests().is_empty());
}

#[test]
fn a_cancelled_download_stops_and_keeps_what_it_has() {
    let cache = tempfile::tempdir().unwrap();
    let cancel = CancelToken::new();
    let server = model_hub({
        let cancel = cancel.clone();
        move |request| {
            if request.range.is_none() {
                cancel.cancel();
            }
            None
        }
    });
    let error = server.hub(cache.path()).with_cancel(cancel).model_dir("o/n", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(
        RepoCache::new(cache.path(), &model("o/n")).commit(MAIN),
        None,
        "what is not whole has no name yet"
    );
    check_model(&server.hub(cache.path()).model_dir("o/n", None).unwrap());
}

#[test]
fn the_token_stays_on_its_host() {
    let cache = tempfile::tempdir().unwrap();
    let other = TestServer::start(|request| Reply::file(request, CONFIG));
    let address = other.endpoint.replace("127.0.0.1", "localhost");
    let server = TestServer::start(move |request| match request.path.starts_with("/api/") {
        true => Reply::ok(listing(&[("config.json", CONFIG)]).to_string()),
        false => {
            Reply { status: 302, headers: vec![("Location", format!("{address}/blob"))], ..Reply::default() }
        }
    });
    server.hub(cache.path()).model_dir("o/n", None).unwrap();
    let [request] = &other.requests()[..] else { panic!("{:?}", other.requests()) };
    assert_eq!((request.path.as_str(), &request.authorization), ("/blob", &None));
    assert!(!format!("{:?}", server.hub(cache.path())).contains("hf_secret"));
}
