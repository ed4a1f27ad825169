//! A prompt and its patch to token ids and labels.

use crate::error::{Error, Result};
use crate::run::text_tokenizer::TextTokenizer;

/// What a loss does not look at.
const IGNORED: i64 = -100;

/// The ids and labels of an instance, and the texts that they are of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) text: String,
    pub(super) patch: String,
    pub(super) input_ids: Vec<i32>,
    pub(super) labels: Vec<i64>,
    pub(super) prompt_len: usize,
}

/// Tokenizes the prompt, ended by one line end, and the patch, ended by the tokenizer's end of text.
///
/// For training the ids are those of both without the last, and the label of a position is the id that follows it, where that is
/// one of the patch's. For tests they are apart.
pub(super) fn tokens(tokenizer: &TextTokenizer, text: &str, patch: &str, is_test: bool) -> Result<Tokens> {
    let text = format!("{}\n", text.trim());
    let mut patch = patch.trim().to_owned();
    if let Some(end) = tokenizer.end_of_text() {
        patch.push('\n');
        patch.push_str(&end);
    }
    let prompt = tokenizer.encode(&text)?;
    let answer = match is_test {
        true => tokenizer.encode(&patch)?,
        false => tokenizer.encode_after_line_end(&patch)?,
    };
    let answer_labels = answer.iter().map(|&id| i64::from(id));
    let (input_ids, labels) = if is_test {
        (prompt.clone(), answer_labels.collect())
    } else {
        let inputs = [&prompt[..], &answer[..answer.len().saturating_sub(1)]].concat();
        let ignored = std::iter::repeat_n(IGNORED, prompt.len().saturating_sub(1));
        (inputs, ignored.chain(answer_labels).collect())
    };
    let input_ids = input_ids
        .into_iter()
        .map(|id| i32::try_from(id).map_err(|_| Error::invalid_data(format!("token id {id} is too large"))))
        .collect::<Result<_>>()?;
    Ok(Tokens { prompt_len: prompt.len(), text, patch, input_ids, labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::CancelToken;

    #[test]
    fn a_models_answers_end_with_its_token() {
        let demo = format!("{}/tests/data/demo", env!("CARGO_MANIFEST_DIR"));
        let tokenizer = TextTokenizer::open(&demo, None, &CancelToken::new()).unwrap();
        let end = i64::from(*tokenizer.encode("</s>").unwrap().last().unwrap());
        let train = tokens(&tokenizer, "\na = 1\n\n", "<patch>\nx\n</patch>\n", false).unwrap();
        assert_eq!((train.text.as_str(), train.patch.as_str()), ("a = 1\n", "<patch>\nx\n</patch>\n</s>"));
        assert_eq!(train.labels.last(), Some(&end));
        assert_eq!(train.input_ids.len(), train.labels.len());
        assert!(train.labels[..train.prompt_len - 1].iter().all(|label| *label == IGNORED));
        for (input, label) in
            train.input_ids[train.prompt_len..].iter().zip(&train.labels[train.prompt_len - 1..])
        {
            assert_eq!(i64::from(*input), *label);
        }
        let test = tokens(&tokenizer, "a = 1", "<patch>\nx\n</patch>", true).unwrap();
        assert_eq!(test.input_ids, train.input_ids[..train.prompt_len]);
        assert_eq!(test.labels.last(), Some(&end));
    }
}
