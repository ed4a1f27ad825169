//! What BM25 retrieval costs over sqlfluff's 146 documents: the first commit, the next one, and one a year later.
//!
//! `cargo bench --bench bm25 [-- --rounds 20]`. The repository is made from `tests/data/bm25`, with the files that are searched
//! alone. Each round starts anew, with a process of git, and includes the query; the figures are medians over rounds.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports to its terminal and may stop"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use swebench_infer::CancelToken;
use swebench_infer::repo::{ObjectId, Reader, Repository};
use swebench_infer::retrieval::{Corpus, DocumentEncoding, FileFilter, HITS, Query, TermCache};

/// The files of an instance's commit.
type Files = BTreeMap<String, String>;

fn data(name: &str) -> Vec<Value> {
    let bytes =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bm25").join(name)).unwrap();
    let mut text = String::new();
    match name.ends_with(".gz") {
        true => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
        false => (&bytes[..]).read_to_string(&mut text).unwrap(),
    };
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn git(dir: &Path, args: &[&str], stdin: &[u8]) -> String {
    let mut child = Command::new("git")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

fn commit(dir: &Path, files: &Files) -> ObjectId {
    let mut stream =
        "commit refs/heads/main\ncommitter T <t@example.org> 0 +0000\ndata 0\ndeleteall\n".to_owned();
    for (path, content) in files {
        stream += &format!("M 100644 inline {path}\ndata {}\n{content}\n", content.len());
    }
    git(dir, &["fast-import", "--quiet", "--force"], stream.as_bytes());
    git(dir, &["rev-parse", "main"], b"").parse().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Bench {
    repository: Repository,
    encoding: DocumentEncoding,
    query: String,
    threads: usize,
}

impl Bench {
    fn corpus(&self, cache: Option<&Path>) -> Corpus {
        let cache = cache.map(|cache| TermCache::open(cache, "sqlfluff", self.encoding).unwrap());
        Corpus::new(self.encoding, FileFilter::new(&[".py".into()]), self.threads, cache)
    }

    /// Milliseconds of an index and its hits.
    fn search(&self, corpus: &Corpus, reader: &mut Reader, commit: ObjectId) -> f64 {
        let start = Instant::now();
        let index = corpus.index(reader, commit, &CancelToken::new()).unwrap();
        assert_eq!(index.search(&Query::new(&self.query), HITS).len(), HITS);
        start.elapsed().as_secs_f64() * 1e3
    }

    /// Milliseconds of the first commit of a run, git's start included.
    fn first(&self, commit: ObjectId, cache: Option<&Path>) -> f64 {
        let start = Instant::now();
        let corpus = self.corpus(cache);
        self.search(&corpus, &mut self.repository.reader().unwrap(), commit);
        start.elapsed().as_secs_f64() * 1e3
    }

    /// Milliseconds of `commit` after `before`.
    fn after(&self, before: ObjectId, commit: ObjectId) -> f64 {
        let corpus = self.corpus(None);
        let mut reader = self.repository.reader().unwrap();
        self.search(&corpus, &mut reader, before);
        self.search(&corpus, &mut reader, commit)
    }
}

fn main() {
    let rounds = std::env::args().skip_while(|argument| argument != "--rounds").nth(1);
    let rounds = rounds.map_or(20, |rounds| rounds.parse().unwrap());
    let files: BTreeMap<String, Files> = data("documents.jsonl.gz")
        .into_iter()
        .map(|row| {
            (
                row["instance_id"].as_str().unwrap().to_owned(),
                serde_json::from_value(row["files"].clone()).unwrap(),
            )
        })
        .collect();
    let (old, new) = (&files["sqlfluff__sqlfluff-1517"], &files["sqlfluff__sqlfluff-2419"]);
    let issue =
        data("hits.jsonl").into_iter().find(|row| row["instance_id"] == "sqlfluff__sqlfluff-1517").unwrap();
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "--quiet", "--bare", "."], b"");
    let mut next = old.clone();
    for content in next.values_mut().step_by(30) {
        content.push_str("\nchanged = True\n");
    }
    let [first, next, later] = [old, &next, new].map(|files| commit(dir.path(), files));
    git(dir.path(), &["gc", "--quiet"], b"");

    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for encoding in [
        DocumentEncoding::FileNameAndContents,
        DocumentEncoding::FileNameAndDocumentation,
        DocumentEncoding::FileNameAndDocsJedi,
    ] {
        let bench = Bench {
            repository: Repository::open(dir.path()).unwrap(),
            encoding,
            query: issue["problem_statement"].as_str().unwrap().to_owned(),
            threads,
        };
        let cache = tempfile::tempdir().unwrap();
        bench.first(first, Some(cache.path()));
        println!("{encoding}, {} documents, {threads} threads", old.len());
        for (what, measure) in [
            ("first commit", &(|| bench.first(first, None)) as &dyn Fn() -> f64),
            ("first commit, terms on the disk", &|| bench.first(first, Some(cache.path()))),
            ("next commit, 5 files changed", &|| bench.after(first, next)),
            ("a year later", &|| bench.after(first, later)),
        ] {
            println!("  {what:<32} {:>7.1} ms", median((0..rounds).map(|_| measure()).collect()));
        }
    }
}
