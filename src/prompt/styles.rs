//! The words of each style.

use super::code_text::{code_text, edits_text};
use super::{Fidelity, PromptInput, PromptStyle};

const PREMISE: &str =
    "You will be provided with a partial code base and an issue statement explaining a problem to resolve.";
const ASK_FOR_A_PATCH: &str = "I need you to solve this issue by generating a single patch file that I can apply directly to \
     this repository using git apply. Please respond with a single patch file in the following format.";
const EXPLANATION: &str = "Here is an example of a patch file. It consists of changes to the code base. It specifies the file \
     names, the line numbers of each change, and the removed and added lines. A single patch file can contain changes to \
     multiple files.";
const ASK_AS_SHOWN: &str = "I need you to solve the provided issue by generating a single patch file that I can apply directly \
     to this repository using git apply. Please respond with a single patch file in the format shown above.";
const ASK_FOR_FILES: &str = "I need you to solve this issue by regenerating the full files in the code base that you would \
     like to change. You can change as many files as you like. Please respond with a list of files and their revised contents \
     in the following format.";
const EXAMPLE_PATCH: &str = include_str!("example.patch");
const EXAMPLE_FILES: &str = include_str!("example_files.txt");

impl PromptStyle {
    /// The prompt of this style.
    pub fn render(self, input: &PromptInput<'_>, fidelity: Fidelity) -> String {
        let numbered = self != Self::FullFileGen;
        let readmes = code_text(input.readmes, numbered);
        let code = match self {
            Self::Style2EditsOnly => edits_text(input.files, input.patch, fidelity),
            _ => code_text(input.files, numbered),
        };
        let issue = input.problem_statement;
        let lines: &[&str] = match self {
            Self::Style2 | Self::Style2EditsOnly => &[
                PREMISE,
                "<issue>",
                issue,
                "</issue>",
                "<code>",
                &readmes,
                &code,
                "</code>",
                ASK_FOR_A_PATCH,
                "<patch>",
                EXAMPLE_PATCH,
                "</patch>",
            ],
            Self::Style3 => &[
                PREMISE,
                "<issue>",
                issue,
                "</issue>",
                "",
                "<code>",
                &readmes,
                &code,
                "</code>",
                "",
                EXPLANATION,
                "<patch>",
                EXAMPLE_PATCH,
                "</patch>",
                "",
                ASK_AS_SHOWN,
                "Respond below:",
            ],
            Self::FullFileGen => &[
                PREMISE,
                "<issue>",
                issue,
                "</issue>",
                "<code>",
                &readmes,
                &code,
                "</code>",
                ASK_FOR_FILES,
                "<example>",
                EXAMPLE_FILES,
                "</example>",
            ],
        };
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::path::Path;

    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::super::Files;
    use super::*;

    const STYLES: [PromptStyle; 4] =
        [PromptStyle::Style2, PromptStyle::Style3, PromptStyle::FullFileGen, PromptStyle::Style2EditsOnly];

    fn data(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    /// The rows of a JSON Lines file by their ids.
    fn rows(name: &str) -> BTreeMap<String, Value> {
        let bytes = std::fs::read(data(name)).unwrap();
        let mut text = String::new();
        match name.ends_with(".gz") {
            true => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap(),
            false => (&bytes[..]).read_to_string(&mut text).unwrap(),
        };
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|row| (row["instance_id"].as_str().unwrap().to_owned(), row))
            .collect()
    }

    fn files(value: &Value) -> Files {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn prompts_are_the_references_byte_for_byte() {
        let dataset = crate::dataset::load(&crate::dataset::DatasetSpec {
            name_or_path: data("swe-bench-lite-mit").to_str().unwrap().into(),
            split: "test".into(),
            columns: vec!["text".into(), "problem_statement".into()],
            cache_dir: None,
        })
        .unwrap();
        let (prompts, trees, patches) =
            (rows("prompts.jsonl.gz"), rows("trees.jsonl.gz"), rows("gold-patches.jsonl"));
        assert_eq!((dataset.instances.len(), prompts.len()), (11, 11));
        let mut mended = 0;
        for instance in &dataset.instances {
            let id = &instance.instance_id;
            let (readmes, shown) = (files(&prompts[id]["readmes"]), files(&trees[id]["files"]));
            let input = PromptInput {
                problem_statement: instance.fields["problem_statement"].as_str().unwrap(),
                readmes: &readmes,
                files: &shown,
                patch: patches[id]["patch"].as_str().unwrap(),
            };
            for style in STYLES {
                let text = style.render(&input, Fidelity::Reference);
                let hash: String =
                    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(prompts[id]["sha256"][style.name()], hash, "{id} {}", style.name());
                if style == PromptStyle::Style2EditsOnly {
                    assert_eq!(format!("{}\n\n", text.trim()), *instance.text.as_ref().unwrap());
                    mended += usize::from(text != style.render(&input, Fidelity::Mended));
                } else {
                    assert_eq!(text, style.render(&input, Fidelity::Mended));
                }
            }
        }
        assert_eq!(mended, 11, "the reference's windows end after one line of context");
    }

    #[test]
    fn a_prompt_without_files_is_whole() {
        let none = Files::new();
        let input = PromptInput { problem_statement: "Broken", readmes: &none, files: &none, patch: "" };
        let text = PromptStyle::Style2.render(&input, Fidelity::Mended);
        assert!(text.contains("<issue>\nBroken\n</issue>\n<code>\n\n\n</code>\n"), "{text}");
    }
}
