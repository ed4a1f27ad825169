//! Searches and docstrings that were recorded from the reference, and corpora of real git repositories, hostile ones included.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::python_depth::PARSER_STACK;
use super::python_docs::docstrings;
use super::*;
use crate::cancel::CancelToken;
use crate::error::ErrorKind;
use crate::repo::test_repository::TestRepository;
use crate::repo::{Reader, Repository};

#[derive(Deserialize)]
struct Files {
    instance_id: String,
    files: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Recorded {
    instance_id: String,
    problem_statement: String,
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Documentation {
    instance_id: String,
    path: String,
    documentation: String,
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The rows of a `.jsonl` or `.jsonl.gz` file.
fn rows<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let bytes = std::fs::read(data(name)).unwrap();
    let mut text = String::new();
    match name.ends_with(".gz") {
        true => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
        false => (&bytes[..]).read_to_string(&mut text).unwrap(),
    };
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn documents() -> HashMap<String, BTreeMap<String, String>> {
    rows::<Files>("bm25/documents.jsonl.gz").into_iter().map(|row| (row.instance_id, row.files)).collect()
}

fn corpus(encoding: DocumentEncoding) -> Corpus {
    Corpus::new(encoding, FileFilter::new(&[".py".into()]), 2, None)
}

fn index(corpus: &Corpus, reader: &mut Reader, commit: &str) -> Index {
    corpus.index(reader, commit.parse().unwrap(), &CancelToken::new()).unwrap()
}

fn found(index: &Index, query: &str) -> Vec<String> {
    index.search(&Query::new(query), HITS).into_iter().map(|hit| hit.docid).collect()
}

fn commit_files(repository: &TestRepository, files: &BTreeMap<String, String>) -> String {
    let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), content.as_bytes())).collect();
    repository.commit(&files)
}

#[test]
fn hits_are_those_of_lucene() {
    let documents = documents();
    let recorded: Vec<Recorded> = rows("bm25/hits.jsonl");
    assert_eq!(recorded.len(), 3);
    for Recorded { instance_id, problem_statement, hits } in recorded {
        let repository = TestRepository::new();
        let commit = commit_files(&repository, &documents[&instance_id]);
        let mut reader = Repository::open(repository.path()).unwrap().reader().unwrap();
        let index = index(&corpus(DocumentEncoding::FileNameAndContents), &mut reader, &commit);
        assert_eq!(index.len(), documents[&instance_id].len());
        let found = index.search(&Query::new(&problem_statement), HITS);
        assert_eq!(found.len(), hits.len());
        for (place, (found, expected)) in found.iter().zip(&hits).enumerate() {
            assert_eq!(found.docid, expected.docid, "{instance_id}, place {place}");
            let difference = (found.score - expected.score).abs() / expected.score;
            assert!(
                difference <= 1e-3,
                "{instance_id}, place {place}: {} for {}",
                found.score,
                expected.score
            );
        }
    }
}

#[test]
fn documentation_is_that_of_pythons_syntax_tree() {
    let mut documents = documents();
    let nested = std::fs::read_to_string(data("bm25/nested.py")).unwrap();
    documents.insert(String::new(), [("nested.py".to_owned(), nested)].into());
    let compare = move || {
        let rows: Vec<Documentation> = rows("bm25/documentation.jsonl.gz");
        assert!(rows.len() > 190, "{}", rows.len());
        for row in rows {
            let found = docstrings(&documents[&row.instance_id][&row.path]);
            assert_eq!(found.as_deref(), Some(&*row.documentation), "{}", row.path);
        }
        for source in ["def f(:", "\u{feff}x = 1", &"(".repeat(100_000)] {
            assert_eq!(docstrings(source), None);
        }
    };
    std::thread::Builder::new().stack_size(PARSER_STACK).spawn(compare).unwrap().join().unwrap();
}

#[test]
fn commits_share_what_did_not_change() {
    let documents = documents();
    let (old, new) = (&documents["sqlfluff__sqlfluff-1517"], &documents["sqlfluff__sqlfluff-2419"]);
    let repository = TestRepository::new();
    let first = commit_files(&repository, old);
    let second = commit_files(&repository, new);
    let mut reader = Repository::open(repository.path()).unwrap().reader().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let open = || TermCache::open(cache.path(), "o__r", DocumentEncoding::FileNameAndContents).unwrap();
    let with_cache = |cache| {
        Corpus::new(DocumentEncoding::FileNameAndContents, FileFilter::new(&[".py".into()]), 2, Some(cache))
    };
    let query = Query::new("lint jinja templates with a custom dialect");
    let searches = |corpus: &Corpus, reader: &mut Reader| {
        [&first, &second, &first].map(|commit| index(corpus, reader, commit).search(&query, 50))
    };
    let fresh = [&first, &second, &first].map(|commit| {
        index(&corpus(DocumentEncoding::FileNameAndContents), &mut reader, commit).search(&query, 50)
    });
    assert_eq!(searches(&with_cache(open()), &mut reader), fresh);
    // Files that are in both commits are analysed once.
    let distinct: std::collections::HashSet<_> = old.values().chain(new.values()).collect();
    assert_eq!(open().len(), distinct.len());
    assert_eq!(searches(&with_cache(open()), &mut reader), fresh);

    // The disk alone answers: without the objects' files, nothing can be read.
    let from_disk = with_cache(open());
    let kept = from_disk.index(&mut reader, first.parse().unwrap(), &CancelToken::new()).unwrap();
    assert_eq!(kept.search(&query, 50), fresh[0]);
}

#[test]
fn threads_share_a_corpus() {
    let documents = documents();
    let repository = TestRepository::new();
    let commit = commit_files(&repository, &documents["marshmallow-code__marshmallow-1343"]);
    let opened = Repository::open(repository.path()).unwrap();
    let corpus = corpus(DocumentEncoding::FileNameAndDocumentation);
    let hits: Vec<Vec<String>> = std::thread::scope(|scope| {
        let search =
            || found(&index(&corpus, &mut opened.reader().unwrap(), &commit), "nested schema fields");
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(search)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(hits[0].len() > 5 && hits.iter().all(|other| *other == hits[0]), "{hits:?}");
}

#[test]
fn hostile_files_are_found_by_their_paths_at_most() {
    let deep = format!("needle = {}1{}", "(".repeat(300_000), ")".repeat(300_000));
    let blocks: String = (0..500).map(|level| format!("{}if needle:\n", " ".repeat(level))).collect();
    let minus = format!("needle = {}1", "-".repeat(1_000_000));
    let huge = vec![b'#'; usize::try_from(crate::repo::MAX_FILE_LEN).unwrap() + 1];
    let word = "needle".repeat(100_000);
    let submodule = "1".repeat(40);
    let repository = TestRepository::new();
    let commit = repository.commit_entries(&[
        ("100644", b"deep.py", deep.as_bytes()),
        ("100644", b"blocks.py", blocks.as_bytes()),
        ("100644", b"minus.py", minus.as_bytes()),
        ("100644", b"huge.py", &huge),
        ("100644", b"word.py", word.as_bytes()),
        ("100644", b"binary.py", b"needle\0\x01\xff"),
        ("100755", b"latin.py", b"'caf\xe9 needle'\n"),
        ("100644", b"empty.py", b""),
        ("100644", b"caf\xe9.py", b"needle"),
        ("100644", b"new\nline.py", b"'needle'"),
        ("120000", b"link.py", b"latin.py"),
        ("120000", b"out.py", b"/etc/passwd"),
        ("120000", b"up.py", b"../../etc/passwd"),
        ("120000", b"loop.py", b"loop.py"),
        ("160000", b"module.py", submodule.as_bytes()),
        ("100644", b"tests/a.py", b"needle"),
    ]);
    let mut reader = Repository::open(repository.path()).unwrap().reader().unwrap();
    for encoding in [
        DocumentEncoding::FileNameAndContents,
        DocumentEncoding::FileNameAndDocumentation,
        DocumentEncoding::FileNameAndDocsJedi,
    ] {
        let index = index(&corpus(encoding), &mut reader, &commit);
        let mut hits = found(&index, "needle");
        hits.sort();
        assert_eq!(
            hits,
            ["blocks.py", "deep.py", "latin.py", "link.py", "minus.py", "new\nline.py"],
            "{encoding}"
        );
        assert_eq!(found(&index, "huge.py"), ["huge.py"]);
        assert_eq!(found(&index, "binary.py empty.py").len(), 2);
        assert_eq!(found(&index, "").len() + found(&index, "passwd root").len(), 0);
    }
}

#[test]
fn hostile_trees_are_errors_or_left_out() {
    let repository = TestRepository::new();
    let blob = repository.blob(b"needle");
    let names = ["..", "a/b.py", "ok.py"].map(|name| ("100644", name.as_bytes(), &*blob));
    let names = repository.commit_tree(&repository.raw_tree(&names));
    // Ten names of one tree on each level: ten billion files.
    let mut tree = repository.raw_tree(&[("100644", b"bomb.py", &blob)]);
    for _ in 0..10 {
        let copies: Vec<String> = (0..10).map(|copy| format!("d{copy}")).collect();
        let entries: Vec<_> = copies.iter().map(|name| ("40000", name.as_bytes(), &*tree)).collect();
        tree = repository.raw_tree(&entries);
    }
    let bomb = repository.commit_tree(&tree);
    let mut nested = repository.raw_tree(&[("100644", b"deep.py", &blob)]);
    for _ in 0..300 {
        nested = repository.raw_tree(&[("40000", b"d", &nested)]);
    }
    let nested = repository.commit_tree(&nested);
    let mut reader = Repository::open(repository.path()).unwrap().reader().unwrap();
    let corpus = corpus(DocumentEncoding::FileNameAndContents);
    assert_eq!(found(&index(&corpus, &mut reader, &names), "needle"), ["ok.py"]);
    let missing = "4".repeat(40);
    for (commit, kind) in
        [(bomb, ErrorKind::InvalidData), (nested, ErrorKind::InvalidData), (missing, ErrorKind::NotFound)]
    {
        let error = corpus.index(&mut reader, commit.parse().unwrap(), &CancelToken::new()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
    }
    let cancel = CancelToken::new();
    cancel.cancel();
    let error = corpus.index(&mut reader, names.parse().unwrap(), &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
