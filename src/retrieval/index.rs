//! The documents of one commit, and the ranking of a query among them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bm25;
use super::terms::Terms;

/// A file that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The file's path.
    pub docid: String,
    /// Its BM25 score, above 0.
    pub score: f32,
}

/// A text to search for.
#[derive(Debug, Clone, Default)]
pub struct Query(Terms);

impl Query {
    /// Lucene refuses queries of more terms.
    const MAX_TERMS: usize = 1024;

    /// The terms of `text`; while these are too many, only the first four fifths of it count, as in the reference.
    pub fn new(text: &str) -> Self {
        let mut terms = Terms::of(text);
        let mut characters = text.chars().count();
        while terms.counts.len() > Self::MAX_TERMS {
            characters = (characters as f64 * 0.8).round_ties_even() as usize;
            let end = text.char_indices().nth(characters).map_or(text.len(), |(end, _)| end);
            terms = Terms::of(&text[..end]);
        }
        Self(terms)
    }
}

/// The documents of a commit: paths, and terms that commits share.
#[derive(Debug, Default)]
pub struct Index {
    documents: Vec<Document>,
    total_length: u64,
}

#[derive(Debug)]
struct Document {
    path: String,
    path_terms: Terms,
    content: Arc<Terms>,
}

impl Document {
    fn length(&self) -> u32 {
        self.path_terms.len.saturating_add(self.content.len)
    }
}

impl Index {
    /// An index without documents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a document: its path is the first line of its text, `content` has the terms of the rest.
    pub fn add(&mut self, path: String, content: Arc<Terms>) {
        let document = Document { path_terms: Terms::of(&path), path, content };
        // Lucene does not count documents without terms.
        if document.length() > 0 {
            self.total_length += u64::from(document.length());
            self.documents.push(document);
        }
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The `limit` best documents, best first, and of equal ones the first path first. Documents that share no term with
    /// the query are not found.
    pub fn search(&self, Query(query): &Query, limit: usize) -> Vec<Hit> {
        let average_length = (self.total_length as f64 / self.documents.len() as f64) as f32;
        let mut counts = vec![0_u32; query.counts.len()];
        let mut documents_with_term = vec![0_usize; query.counts.len()];
        // Of each document, the query's terms that it has and how often.
        let mut matches: Vec<(usize, u32)> = Vec::new();
        let mut ends = Vec::with_capacity(self.documents.len());
        for document in &self.documents {
            counts.fill(0);
            for terms in [&document.path_terms, &*document.content] {
                terms.for_each_common(query, |term, count| counts[term] = counts[term].saturating_add(count));
            }
            for (term, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                documents_with_term[term] += 1;
                matches.push((term, count));
            }
            ends.push(matches.len());
        }
        let weights: Vec<f32> = query
            .counts
            .iter()
            .zip(&documents_with_term)
            .map(|(&(_, repeated), &with)| bm25::weight(repeated, self.documents.len(), with))
            .collect();

        let mut start = 0;
        let mut scored: Vec<(f32, &str)> = Vec::new();
        for (document, end) in self.documents.iter().zip(ends) {
            let found = &matches[start..end];
            start = end;
            if !found.is_empty() {
                let factor = bm25::length_factor(document.length(), average_length);
                let score: f64 = found
                    .iter()
                    .map(|&(term, count)| f64::from(bm25::score(weights[term], count, factor)))
                    .sum();
                scored.push((score as f32, &document.path));
            }
        }
        scored.sort_unstable_by(|(a, a_path), (b, b_path)| b.total_cmp(a).then_with(|| a_path.cmp(b_path)));
        scored.truncate(limit);
        scored.into_iter().map(|(score, path)| Hit { docid: path.to_owned(), score }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(documents: &[(&str, &str)]) -> Index {
        let mut index = Index::new();
        for (path, text) in documents {
            index.add((*path).to_owned(), Arc::new(Terms::of(text)));
        }
        index
    }

    fn found(index: &Index, query: &str) -> Vec<String> {
        index.search(&Query::new(query), 20).into_iter().map(|hit| hit.docid).collect()
    }

    #[test]
    fn rare_and_repeated_terms_count_more() {
        let index = index(&[
            ("a.py", "parse lexer lexer"),
            ("b.py", "parse token"),
            ("c.py", "parse parse parse"),
            ("d.py", "other"),
        ]);
        assert_eq!(found(&index, "lexer"), ["a.py"]);
        assert_eq!(found(&index, "parse"), ["c.py", "b.py", "a.py"]);
        assert_eq!(found(&index, "token lexers lexers"), ["a.py", "b.py"]);
        assert_eq!(found(&index, "unknown"), [""; 0]);
        assert_eq!(index.search(&Query::new("parse"), 1).len(), 1);
    }

    #[test]
    fn a_path_is_part_of_its_document() {
        let index = index(&[("src/lexer.py", "x"), ("src/token.py", "x lexer.py")]);
        assert_eq!(found(&index, "lexer.py src/token.py"), ["src/token.py", "src/lexer.py"]);
    }

    #[test]
    fn equal_documents_are_ordered_by_path_and_nothing_is_found_in_nothing() {
        let twins = index(&[("z", "same"), ("b", "same"), ("y", "same")]);
        assert_eq!(found(&twins, "same"), ["b", "y", "z"]);
        assert_eq!(found(&Index::new(), "same"), [""; 0]);
        assert_eq!(found(&twins, ""), [""; 0]);
        let mut empty = Index::new();
        empty.add("__".into(), Arc::default());
        assert!(empty.is_empty());
    }

    #[test]
    fn long_queries_are_cut_from_their_end() {
        let text: String = (0..2000).map(|word| format!("w{word} ")).collect();
        let Query(terms) = Query::new(&text);
        assert!(terms.counts.len() <= Query::MAX_TERMS && terms.counts.len() > 750, "{}", terms.counts.len());
        let index = index(&[("first", "w0 w700"), ("last", "w1999")]);
        assert_eq!(found(&index, &text), ["first"]);
        assert_eq!(Query::new(&"é ".repeat(5000)).0.counts.len(), 1);
    }
}
