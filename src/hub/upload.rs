//! Uploading a dataset's files as one commit, which needs no cache.
//!
//! Contents go where the hub's large-file storage says (<https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>),
//! then one commit names them (<https://huggingface.co/docs/hub/api>).

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use ureq::http::{Response, header};
use ureq::{AsSendBody, Body};

use super::client::Failure;
use super::download::hex;
use super::repo::{RepoId, RepoKind};
use super::{Hub, MAIN};
use crate::error::{Error, ErrorKind, Result};

const LFS_JSON: &str = "application/vnd.git-lfs+json";
/// What the hub answers; descriptions of a few files.
const MAX_ANSWER: u64 = 16 << 20;

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its path in the repository, with `/`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A file's content as large-file storage names it.
struct Object {
    sha256: String,
    size: u64,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<BatchObject>,
}

#[derive(Deserialize)]
struct BatchObject {
    oid: String,
    /// Absent when the storage has the content already.
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Action,
    #[serde(default)]
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: HashMap<String, Value>,
}

impl Hub {
    /// Adds these files to a dataset's `main` as one commit; the dataset is created when it is missing. Its address.
    ///
    /// # Errors
    /// `InvalidArgument` without a token, `NotFound` for one that may not write there, `Network` when the hub does not take
    /// the files, `Cancelled`.
    pub fn push_dataset(&self, name: &str, files: &[Upload]) -> Result<String> {
        let repo = RepoId::parse(RepoKind::Dataset, name)?;
        if self.config.offline {
            return Err(
                Error::invalid_argument("an offline hub takes no datasets").with_hint("unset HF_HUB_OFFLINE")
            );
        }
        if self.config.token.is_none() {
            return Err(Error::invalid_argument("uploading needs a token")
                .with_hint("put one that may write into HF_TOKEN, or log in with `hf auth login`"));
        }
        self.create(&repo)?;
        let objects = files
            .iter()
            .map(|file| {
                self.client.cancel.check()?;
                describe(&file.path)
            })
            .collect::<Result<Vec<_>>>()?;
        self.upload(&repo, files, &objects)?;
        self.commit(&repo, files, &objects)?;
        Ok(format!("{}/datasets/{}", self.config.endpoint, repo.name()))
    }

    fn create(&self, repo: &RepoId) -> Result<()> {
        let (owner, name) = match repo.name().split_once('/') {
            Some((owner, name)) => (Some(owner), name),
            None => (None, repo.name()),
        };
        let body = json!({"type": "dataset", "name": name, "organization": owner}).to_string();
        let response =
            self.post("api/repos/create", "application/json", &body, repo, |status| status == 409)?;
        drop(response);
        Ok(())
    }

    fn upload(&self, repo: &RepoId, files: &[Upload], objects: &[Object]) -> Result<()> {
        let wanted: Vec<Value> =
            objects.iter().map(|object| json!({"oid": object.sha256, "size": object.size})).collect();
        let body =
            json!({"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256", "objects": wanted})
                .to_string();
        let path = format!("datasets/{}.git/info/lfs/objects/batch", repo.name());
        let batch: Batch = self.answer(self.post(&path, LFS_JSON, &body, repo, |_| false)?)?;
        for object in batch.objects {
            let position = objects.iter().position(|known| known.sha256 == object.oid);
            let Some((file, known)) =
                position.and_then(|index| Some((files.get(index)?, objects.get(index)?)))
            else {
                continue;
            };
            let refused = || Error::new(ErrorKind::Network, format!("the hub does not take `{}`", file.name));
            if let Some(error) = object.error {
                let reason =
                    error["message"].as_str().unwrap_or("no reason given").escape_debug().to_string();
                return Err(refused().with_expected("success", reason));
            }
            let Some(actions) = object.actions else { continue };
            log::info!("uploading {} ({} bytes)", file.name, known.size);
            self.put(&actions.upload, &file.path).map_err(|error| refused().with_source(error))?;
            if let Some(verify) = actions.verify {
                let body = json!({"oid": known.sha256, "size": known.size}).to_string();
                self.act(&verify, LFS_JSON, &body).map_err(|error| refused().with_source(error))?;
            }
        }
        Ok(())
    }

    fn commit(&self, repo: &RepoId, files: &[Upload], objects: &[Object]) -> Result<()> {
        let header = json!({"key": "header", "value": {"summary": "Upload dataset", "description": ""}});
        let mut body = format!("{header}\n");
        for (file, object) in files.iter().zip(objects) {
            let value =
                json!({"path": file.name, "algo": "sha256", "oid": object.sha256, "size": object.size});
            body.push_str(&format!("{}\n", json!({"key": "lfsFile", "value": value})));
        }
        let path = format!("api/datasets/{}/commit/{MAIN}", repo.name());
        self.post(&path, "application/x-ndjson", &body, repo, |_| false).map(drop)
    }

    /// Sends a request to the hub itself, with the token.
    fn post(
        &self,
        path: &str,
        content_type: &str,
        body: &str,
        repo: &RepoId,
        also_fine: impl Fn(u16) -> bool,
    ) -> Result<Response<Body>> {
        let action = Action { href: format!("{}/{path}", self.config.endpoint), header: HashMap::new() };
        self.client.retrying(|| {
            let response = self.send("POST", &action, content_type, body)?;
            let status = response.status();
            if status.is_success() || also_fine(status.as_u16()) {
                return Ok(response);
            }
            Err(match status.as_u16() {
                401 | 403 | 404 => {
                    Failure::Final(Error::not_found(format!("the token may not write to {repo}")).with_hint(
                        "use a token with write access, and a user or organization that it belongs to",
                    ))
                }
                408 | 429 | 500.. => Failure::Transient { error: unexpected(status), progressed: false },
                _ => Failure::Final(unexpected(status)),
            })
        })
    }

    /// Does what the storage asked for with a small text.
    fn act(&self, action: &Action, content_type: &str, body: &str) -> Result<()> {
        self.client.retrying(|| check(&self.send("POST", action, content_type, body)?))
    }

    fn put(&self, action: &Action, path: &Path) -> Result<()> {
        self.client.retrying(|| {
            let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
            check(&self.send("PUT", action, "application/octet-stream", &file)?)
        })
    }

    fn send(
        &self,
        method: &str,
        action: &Action,
        content_type: &str,
        body: impl AsSendBody,
    ) -> Result<Response<Body>, Failure> {
        let agent = self.client.agent();
        let mut request = if method == "PUT" { agent.put(&action.href) } else { agent.post(&action.href) };
        request = request.header(header::CONTENT_TYPE, content_type);
        if content_type == LFS_JSON {
            request = request.header(header::ACCEPT, LFS_JSON);
        }
        let names_token = action.header.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
        // Storage is on other hosts, which must not see the token.
        let is_hub =
            action.href.strip_prefix(&self.config.endpoint).is_some_and(|rest| rest.starts_with('/'));
        if let Some(token) = self.config.token.as_ref().filter(|_| is_hub && !names_token) {
            request = request.header(header::AUTHORIZATION, token.authorization());
        }
        for (name, value) in &action.header {
            if let Some(value) = value.as_str() {
                request = request.header(name, value);
            }
        }
        request.send(body).map_err(|error| self.client.broken(error, false))
    }

    fn answer<T: DeserializeOwned>(&self, mut response: Response<Body>) -> Result<T> {
        let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Network, "the hub's answer is not readable")
                .with_hint(format!("is {} a Hugging Face hub?", self.config.endpoint))
                .with_source(source)
        };
        let bytes = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let bytes = bytes.map_err(|error| unreadable(error.into()))?;
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into()))
    }
}

fn check(response: &Response<Body>) -> Result<(), Failure> {
    let status = response.status();
    match status.as_u16() {
        _ if status.is_success() => Ok(()),
        408 | 429 | 500.. => Err(Failure::Transient { error: unexpected(status), progressed: false }),
        _ => Err(Failure::Final(unexpected(status))),
    }
}

fn unexpected(status: ureq::http::StatusCode) -> Error {
    Error::new(ErrorKind::Network, "the hub refused an upload")
        .with_expected("success", format_args!("HTTP status {status}"))
}

fn describe(path: &Path) -> Result<Object> {
    let mut hasher = Sha256::new();
    let copied = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    let size = copied.map_err(|error| Error::io("read", path, error))?;
    Ok(Object { sha256: hex(&hasher.finalize()), size })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::HubConfig;
    use super::super::test_server::{Reply, Request, TestServer};
    use super::*;

    /// A hub with storage; what was put there. The storage refuses the first content once.
    fn storage() -> (TestServer, Arc<Mutex<Vec<Vec<u8>>>>) {
        let stored = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut failures) = (Arc::clone(&stored), 1);
        let endpoint = Arc::new(Mutex::new(String::new()));
        let own = Arc::clone(&endpoint);
        let server = TestServer::start(move |request: &Request| match request.path.as_str() {
            "/api/repos/create" => Reply::refuse(409, ""),
            "/datasets/o/n.git/info/lfs/objects/batch" => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                let objects = body["objects"].as_array().unwrap().iter().enumerate();
                let endpoint = own.lock().unwrap().clone();
                let objects: Vec<Value> = objects
                    .map(|(index, object)| match index {
                        0 => json!({"oid": object["oid"], "size": object["size"], "actions": {
                            "upload": {"href": endpoint.replace("127.0.0.1", "localhost") + "/put", "header": {"X-Key": "1"}},
                            "verify": {"href": format!("{endpoint}/verify")},
                        }}),
                        _ => json!({"oid": object["oid"], "size": object["size"]}),
                    })
                    .collect();
                Reply::ok(json!({"transfer": "basic", "objects": objects}).to_string())
            }
            "/put" if failures > 0 => {
                failures -= 1;
                Reply::refuse(503, "")
            }
            "/put" => {
                kept.lock().unwrap().push(request.body.clone());
                Reply::ok("")
            }
            "/verify" => Reply::ok(""),
            "/api/datasets/o/n/commit/main" => Reply::ok("{\"commitOid\": \"x\"}"),
            _ => Reply::refuse(404, ""),
        });
        *endpoint.lock().unwrap() = server.endpoint.clone();
        (server, stored)
    }

    fn files(dir: &Path) -> Vec<Upload> {
        ["a", "b"]
            .map(|name| {
                let path = dir.join(name);
                std::fs::write(&path, format!("content of {name}")).unwrap();
                Upload { name: format!("data/{name}.parquet"), path }
            })
            .to_vec()
    }

    #[test]
    fn files_are_stored_and_then_committed_together() {
        let dir = tempfile::tempdir().unwrap();
        let (server, stored) = storage();
        let url = server.hub(dir.path()).push_dataset("o/n", &files(dir.path())).unwrap();
        assert_eq!(url, format!("{}/datasets/o/n", server.endpoint));
        // The storage has the second content already.
        assert_eq!(*stored.lock().unwrap(), [b"content of a"]);
        let requests = server.requests();
        let paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/api/repos/create",
                "/datasets/o/n.git/info/lfs/objects/batch",
                "/put",
                "/put",
                "/verify",
                "/api/datasets/o/n/commit/main"
            ]
        );
        for request in &requests {
            // Another host's storage does not see the token.
            assert_eq!(request.authorization.is_some(), request.path != "/put", "{}", request.path);
        }
        let commit = String::from_utf8(requests[5].body.clone()).unwrap();
        let lines: Vec<Value> = commit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["value"]["path"], "data/a.parquet");
        assert_eq!(lines[1]["value"]["oid"], hex(&Sha256::digest("content of a")));
        assert_eq!(lines[2]["value"]["size"], 12);
    }

    #[test]
    fn what_may_not_be_written_is_said_without_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let server = TestServer::start(|_| Reply::refuse(403, ""));
        let hub = server.hub(dir.path());
        let error = hub.push_dataset("o/n", &files(dir.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint().unwrap().contains("write access"), "{error:?}");
        assert!(!format!("{error:?} {hub:?}").contains("hf_secret"));
        assert_eq!(server.requests().len(), 1);

        let config = |offline| HubConfig {
            endpoint: server.endpoint.clone(),
            cache: dir.path().to_path_buf(),
            token: None,
            offline,
        };
        for (offline, says) in [(false, "HF_TOKEN"), (true, "HF_HUB_OFFLINE")] {
            let error = Hub::new(config(offline)).push_dataset("o/n", &[]).unwrap_err();
            assert!(error.hint().unwrap().contains(says), "{error:?}");
        }
        assert_eq!(server.requests().len(), 1);
    }
}
