//! One file from the hub into the cache: resumed where an earlier attempt broke off, and verified.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode, header};

use super::RemoteFile;
use super::cache::{RepoCache, create_parent};
use super::client::{Client, Failure};
use super::repo::RepoId;
use crate::error::{Error, ErrorKind, Result};

const CHUNK: usize = 128 << 10;

/// Downloads a file of one commit.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a RepoCache,
    pub(super) repo: &'a RepoId,
    pub(super) commit: &'a str,
}

impl Download<'_> {
    /// Makes sure that the snapshot holds `file`, whole.
    pub(super) fn fetch(&self, file: &RemoteFile) -> Result<()> {
        let pointer = self.cache.snapshot(self.commit).join(&file.name);
        if is_whole(&pointer, file.size) {
            return Ok(());
        }
        // A file of unknown hash cannot be shared between commits: it lies in the snapshot itself.
        let (id, place) = match &file.hash {
            Some(hash) => (hash.clone(), self.cache.blob(hash)),
            None => (hex(&Sha256::digest(format!("{}/{}", self.commit, file.name))), pointer),
        };
        let _lock = self.cache.lock(&id, &self.client.cancel)?;
        if !is_whole(&place, file.size) {
            let partial = self.cache.partial(&id);
            create_parent(&partial)?;
            create_parent(&place)?;
            log::info!("downloading {} of {}{}", file.name, self.repo, in_megabytes(file.size));
            let mut etag = None;
            self.client.retrying(|| self.attempt(file, &partial, &mut etag))?;
            verify(&partial, file.hash.as_deref().or(etag.as_deref()), &file.name)?;
            std::fs::rename(&partial, &place)
                .map_err(|error| Error::io("write to the hub's cache", &place, error))?;
        }
        match &file.hash {
            Some(hash) => self.cache.link(hash, self.commit, &file.name),
            None => Ok(()),
        }
    }

    /// One request for what `partial` still lacks.
    fn attempt(&self, file: &RemoteFile, partial: &Path, etag: &mut Option<String>) -> Result<(), Failure> {
        let cannot_write = |error| Error::io("write to the hub's cache", partial, error);
        let mut output = OpenOptions::new().create(true).append(true).open(partial).map_err(cannot_write)?;
        let mut have = output.metadata().map_err(cannot_write)?.len();
        if file.size.is_some_and(|size| have > size) {
            output.set_len(0).map_err(cannot_write)?;
            have = 0;
        }
        if file.size == Some(have) {
            return Ok(());
        }
        let response = self.client.get(&self.repo.file_path(self.commit, &file.name), have)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if content_range_start(response.headers()) == Some(have) => {}
            StatusCode::OK => {
                // The server does not resume.
                output.set_len(0).map_err(cannot_write)?;
                have = 0;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                output.set_len(0).map_err(cannot_write)?;
                let error = Error::new(ErrorKind::Network, format!("the hub cannot resume `{}`", file.name));
                return Err(Failure::Transient { error, progressed: false });
            }
            _ => return Err(self.client.refusal(&response, self.repo, self.commit, Some(&file.name))),
        }
        *etag = sha256_etag(response.headers());
        let total = file.size.or_else(|| body_length(&response).map(|length| have + length));
        self.copy(response, &mut output, partial, have, total)
    }

    fn copy(
        &self,
        response: Response<Body>,
        output: &mut File,
        partial: &Path,
        start: u64,
        total: Option<u64>,
    ) -> Result<(), Failure> {
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        let mut have = start;
        loop {
            self.client.cancel.check()?;
            let read = body.read(&mut chunk).map_err(|error| self.client.broken(error, have > start))?;
            if read == 0 {
                break;
            }
            output
                .write_all(&chunk[..read])
                .map_err(|error| Error::io("write to the hub's cache", partial, error))?;
            have += read as u64;
            if total.is_some_and(|total| have > total) {
                remove(partial);
                return Err(length_error(partial, total, have).into());
            }
        }
        if total.is_some_and(|total| have < total) {
            let error = length_error(partial, total, have);
            return Err(Failure::Transient { error, progressed: have > start });
        }
        output.sync_all().map_err(|error| Error::io("write to the hub's cache", partial, error))?;
        Ok(())
    }
}

fn length_error(partial: &Path, total: Option<u64>, have: u64) -> Error {
    Error::new(ErrorKind::Network, "a download from the hub has the wrong length")
        .with_path(partial)
        .with_expected(format_args!("{} bytes", total.unwrap_or_default()), have)
}

/// Compares with the hash when it is a SHA-256: the hashes of files in git are not.
fn verify(partial: &Path, hash: Option<&str>, name: &str) -> Result<()> {
    let Some(expected) = hash.filter(|hash| is_sha256(hash)) else {
        return Ok(());
    };
    let unreadable = |error| Error::io("read the hub's cache", partial, error);
    let mut file = File::open(partial).map_err(unreadable)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(unreadable)?;
    let got = hex(&hasher.finalize());
    if got.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    remove(partial);
    Err(Error::invalid_data(format!("the download of `{name}` is damaged and was deleted"))
        .with_expected(format_args!("SHA-256 {expected}"), got)
        .with_hint("run the command again; if it fails again, something on the way alters downloads"))
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        log::warn!("cannot delete the damaged {}: {error}", path.display());
    }
}

fn is_whole(path: &Path, size: Option<u64>) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && size.is_none_or(|size| size == metadata.len()))
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first byte of `Content-Range: bytes 100-199/200`.
fn content_range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn body_length(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The hub's entity tag of a large file is its SHA-256.
fn sha256_etag(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get("x-linked-etag").or_else(|| headers.get(header::ETAG))?.to_str().ok()?;
    Some(tag.trim_start_matches("W/").trim_matches('"').to_owned()).filter(|tag| is_sha256(tag))
}

fn in_megabytes(size: Option<u64>) -> String {
    size.map(|size| format!(" ({:.1} MB)", size as f64 / 1e6)).unwrap_or_default()
}
