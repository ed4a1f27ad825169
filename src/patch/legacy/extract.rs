//! The reference's `extract_diff`, byte for byte, faults included.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::constant;

// Python's `\w` is letters, numbers and the underscore, without the marks that the regex crate's `\w` adds.
static OPENING_TAG: LazyLock<Regex> = LazyLock::new(|| constant(r"<([\p{L}\p{N}_-]+)>"));
static CLOSING_TAG: LazyLock<Regex> = LazyLock::new(|| constant(r"</([\p{L}\p{N}_-]+)>"));
static OPENING_FENCE: LazyLock<Regex> = LazyLock::new(|| constant(r"```([\p{L}\p{N}_]*)\n"));
const FENCE: &str = "```";

/// The diff in a model's answer as the reference finds it: the first `<diff>`/`<patch>` tag or fenced block so named, else
/// the first other tag or fence, else the text up to `</s>`.
///
/// The result is a part of `response`; it is the whole of it when nothing is found, and empty when that part is. No
/// answer at all has no diff (`None` in the reference): map over the `Option`.
/// Time is linear in the length of `response`, whatever it holds.
pub fn extract_diff(response: &str) -> &str {
    let mut first_other = None;
    for block in tagged_blocks(response).chain(fenced_blocks(response)) {
        if matches!(block.name, "diff" | "patch") {
            return block.content;
        }
        first_other.get_or_insert(block.content);
    }
    first_other.unwrap_or_else(|| response.split("</s>").next().unwrap_or_default())
}

/// A tag or fence and what it encloses.
struct Block<'a> {
    name: &'a str,
    content: &'a str,
}

/// Every match of the reference's `<([\w-]+)>(.*?)</\1>`, left to right, none inside another.
///
/// The backreference is resolved with an index of the closing tags, so that thousands of tags that are never closed
/// cost one pass and not one each.
fn tagged_blocks(response: &str) -> impl Iterator<Item = Block<'_>> {
    let mut closings: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
    for captures in CLOSING_TAG.captures_iter(response) {
        let (tag, [name]) = (captures.get_match(), captures.extract().1);
        closings.entry(name).or_default().push((tag.start(), tag.end()));
    }
    let mut position = 0;
    OPENING_TAG.captures_iter(response).filter_map(move |captures| {
        let (tag, [name]) = (captures.get_match(), captures.extract().1);
        if tag.start() < position {
            return None;
        }
        let candidates = closings.get(name)?;
        let next = candidates.partition_point(|&(start, _)| start < tag.end());
        let &(start, end) = candidates.get(next)?;
        position = end;
        Some(Block { name, content: &response[tag.end()..start] })
    })
}

/// Every match of the reference's ```` ```(\w+)?\n(.*?)``` ````, left to right.
fn fenced_blocks(response: &str) -> impl Iterator<Item = Block<'_>> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let captures = OPENING_FENCE.captures_at(response, position)?;
        let (fence, [name]) = (captures.get_match(), captures.extract().1);
        let end = fence.end() + response[fence.end()..].find(FENCE)?;
        position = end + FENCE.len();
        Some(Block { name, content: &response[fence.end()..end] })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn follows_the_patterns_in_the_corners() {
        #[track_caller]
        fn check(response: &str, expected: &str) {
            assert_eq!(extract_diff(response), expected, "of {response:?}");
        }
        check("", "");
        check("prose</s>more", "prose");
        check("</s>", "");
        check("<a>x</a><diff>y</diff>", "y");
        check("<a><diff>y</diff></a>", "<diff>y</diff>");
        check("<a><diff>y</diff>", "y");
        check("<diff>never closed <b>x</b>", "x");
        check("<b>x</b>```patch\ny```", "y");
        check("<diff>x</diff>```patch\ny```", "x");
        check("</a><a>x</a>", "x");
        check("<<a>>x</a>", ">x");
        check("<a b>x</a b>", "<a b>x</a b>");
        check("<a-b_1>x</a-b_1>", "x");
        check("<é5>x</é5>", "x");
        // A combining mark is no `\w` in Python, though it is in the regex crate.
        check("<e\u{301}>x</e\u{301}>", "<e\u{301}>x</e\u{301}>");
        check("<Ⅷ½>x</Ⅷ½>", "x");
        check("````\nx```", "x");
        check("```diff \nx```", "```diff \nx```");
        check("```diff\r\nx```", "```diff\r\nx```");
        check("```py\na\n```\n```diff\nx\n```", "x\n");
        check("```a``` ```diff\nx```", "x");
        check("```\n```", "");
        check("```diff\nx", "```diff\nx");
    }

    #[test]
    fn unclosed_tags_and_fences_cost_linear_time() {
        let response: String = (0..200_000).map(|index| format!("<t{index}>```{index}\n")).collect();
        assert_eq!(extract_diff(&response), "<t1>");
        let response: String = (0..200_000).map(|index| format!("<t{index}>``")).collect();
        assert_eq!(extract_diff(&response), response);
    }

    proptest! {
        #[test]
        fn returns_a_part_of_the_response(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec![
                        "<", ">", "</", "<diff>", "</diff>", "<b>", "</b>", "```", "```diff\n", "\n", "</s>", "é",
                    ])
                    .prop_map(str::to_owned),
                    any::<String>(),
                ],
                0..24,
            ),
        ) {
            let response = pieces.concat();
            prop_assert!(response.contains(extract_diff(&response)));
        }
    }
}
