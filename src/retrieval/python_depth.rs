//! How deep a Python file is nested, before a parser recurses over it.

use ruff_python_ast::token::TokenKind;
use ruff_python_parser::{Mode, lexer};

/// What the parser may need of its thread's stack for what [`is_too_deep`] lets pass.
pub(super) const PARSER_STACK: usize = 256 << 20;

/// Open brackets, as in Python.
const MAX_BRACKETS: usize = 200;
/// Open blocks, as in Python.
const MAX_INDENTATION: usize = 100;
/// Tokens of one expression that no comma separates, each of which may be a level of its own: `----1`, `a.b.c`, `1 + 1 + 1`.
/// Python gives up between 3,000 and 6,000 of them.
const MAX_CHAIN: usize = 6_000;

/// Whether Python, too, would refuse to parse `source` for its nesting.
pub(super) fn is_too_deep(source: &str) -> bool {
    let mut lexer = lexer::lex(source, Mode::Module);
    // Of each open bracket, the tokens since its last comma.
    let mut chains = vec![0_usize];
    let mut chained = 0;
    let mut indentation = 0_usize;
    loop {
        match lexer.next_token() {
            TokenKind::EndOfFile => return false,
            TokenKind::Comment | TokenKind::NonLogicalNewline => continue,
            TokenKind::Indent => indentation += 1,
            TokenKind::Dedent => indentation = indentation.saturating_sub(1),
            TokenKind::Newline | TokenKind::Semi => {
                chains.truncate(1);
                chains[0] = 0;
                chained = 0;
            }
            TokenKind::Comma => {
                if let Some(chain) = chains.last_mut() {
                    chained -= std::mem::take(chain);
                }
            }
            token => {
                if matches!(token, TokenKind::Rpar | TokenKind::Rsqb | TokenKind::Rbrace) && chains.len() > 1
                {
                    chained -= chains.pop().unwrap_or_default();
                }
                chained += 1;
                if let Some(chain) = chains.last_mut() {
                    *chain += 1;
                }
                if matches!(token, TokenKind::Lpar | TokenKind::Lsqb | TokenKind::Lbrace) {
                    chains.push(0);
                }
            }
        }
        if chains.len() > MAX_BRACKETS + 1 || indentation >= MAX_INDENTATION || chained > MAX_CHAIN {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of nesting, `depth` deep.
    fn nested(depth: usize) -> Vec<String> {
        let blocks: String = (0..depth).map(|level| format!("{}if x:\n", " ".repeat(level))).collect();
        vec![
            format!("x = {}1{}", "(".repeat(depth), ")".repeat(depth)),
            format!("x = {}1{}", "[".repeat(depth), "]".repeat(depth)),
            format!("x = {}1{}", "{1:".repeat(depth), "}".repeat(depth)),
            format!("x = {}1{}", "f(a)(b, ".repeat(depth), ")".repeat(depth)),
            format!("{blocks}{}pass\n", " ".repeat(depth)),
        ]
    }

    /// Each kind of chain, of `length` parts.
    fn chained(length: usize) -> Vec<String> {
        vec![
            format!("x = {}1", "-".repeat(length)),
            format!("x = {}1", "not ".repeat(length)),
            format!("x = {}1", "1 + ".repeat(length)),
            format!("x = {}1", "2 ** ".repeat(length)),
            format!("x = {}1", "lambda: ".repeat(length)),
            format!("x = a{}", ".b".repeat(length)),
            format!("x = a{}", "()".repeat(length)),
            format!("x = a{}", "[0]".repeat(length)),
            format!("x = a{}", "[0, 1]".repeat(length)),
            format!("x = {}c", "a if b else ".repeat(length)),
            format!("x = f'{}'", "{a}".repeat(length)),
            format!("x: {}int", "a | ".repeat(length)),
        ]
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for source in nested(201).iter().chain(&nested(2_000)).chain(&chained(7_000)).chain(&chained(300_000))
        {
            assert!(is_too_deep(source), "{}", &source[..40]);
        }
    }

    #[test]
    fn what_passes_is_parsed_on_the_parsers_stack() {
        let mut sources = nested(60);
        sources.extend(chained(1_400));
        sources.push(format!("x = [{}]", "1, -2, 'a', (3, 4), ".repeat(50_000)));
        sources.push("x = 1\n".repeat(50_000));
        sources.push(format!("x = {}1", "-".repeat(MAX_CHAIN - 10)));
        sources.push(format!("x = {}1", "2 ** ".repeat(MAX_CHAIN / 2 - 10)));
        sources.push(format!("x = {}1", "lambda: ".repeat(MAX_CHAIN / 2 - 10)));
        sources.push(format!("x = {}c", "a if b else ".repeat(MAX_CHAIN / 4 - 10)));
        let parse = move || {
            for source in sources {
                assert!(!is_too_deep(&source), "{}", &source[..40]);
                assert!(ruff_python_parser::parse_module(&source).is_ok(), "{}", &source[..40]);
            }
        };
        std::thread::Builder::new().stack_size(PARSER_STACK).spawn(parse).unwrap().join().unwrap();
    }
}
