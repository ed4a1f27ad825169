//! The docstrings of a Python file, in the order in which Python's `ast.walk` meets them.

use std::collections::VecDeque;
use std::fmt::Write as _;

use ruff_python_ast::{ExceptHandler, Expr, Stmt};
use ruff_python_parser::parse_module;

use super::python_depth::is_too_deep;

/// The module's docstring, then name and docstring of every function and class that has one; `None` for what is no Python.
///
/// Needs a stack of [`PARSER_STACK`](super::python_depth::PARSER_STACK) bytes.
pub(super) fn docstrings(source: &str) -> Option<String> {
    // Python refuses the mark in a text, and parses nothing that is as deep.
    if source.starts_with('\u{feff}') || is_too_deep(source) {
        return None;
    }
    let module = parse_module(source).ok()?.into_syntax();
    let mut text = docstring(&module.body).unwrap_or_default();
    let mut pending: VecDeque<Node<'_>> = module.body.iter().map(Node::Statement).collect();
    while let Some(node) = pending.pop_front() {
        if let Some((name, docstring)) = node.definition() {
            let _ = write!(text, "\n\n{name}\n{docstring}");
        }
        node.add_children(&mut pending);
    }
    Some(text)
}

/// What statements are in: nodes of Python's syntax tree, which differs from the parser's.
#[derive(Clone, Copy)]
enum Node<'a> {
    Statement(&'a Stmt),
    /// An `except` or a `case`, which Python's tree has between a statement and its blocks.
    Block(&'a [Stmt]),
    /// An `elif`, which Python's tree has as an `if` in the `else` of the one before, with what follows it.
    Elif(&'a [ruff_python_ast::ElifElseClause]),
}

impl<'a> Node<'a> {
    /// Name and docstring of a function or class that has one.
    fn definition(self) -> Option<(&'a str, String)> {
        match self {
            Self::Statement(Stmt::FunctionDef(function)) => {
                Some((&function.name, docstring(&function.body)?))
            }
            Self::Statement(Stmt::ClassDef(class)) => Some((&class.name, docstring(&class.body)?)),
            _ => None,
        }
    }

    fn add_children(self, pending: &mut VecDeque<Self>) {
        let mut add = |body: &'a [Stmt]| pending.extend(body.iter().map(Self::Statement));
        match self {
            Self::Block(body) => add(body),
            Self::Elif([clause, rest @ ..]) => {
                add(&clause.body);
                add_else(rest, pending);
            }
            Self::Elif([]) => {}
            Self::Statement(statement) => match statement {
                Stmt::FunctionDef(function) => add(&function.body),
                Stmt::ClassDef(class) => add(&class.body),
                Stmt::With(with) => add(&with.body),
                Stmt::For(each) => {
                    add(&each.body);
                    add(&each.orelse);
                }
                Stmt::While(repeat) => {
                    add(&repeat.body);
                    add(&repeat.orelse);
                }
                Stmt::If(choice) => {
                    add(&choice.body);
                    add_else(&choice.elif_else_clauses, pending);
                }
                Stmt::Match(choice) => {
                    pending.extend(choice.cases.iter().map(|case| Self::Block(&case.body)))
                }
                Stmt::Try(attempt) => {
                    add(&attempt.body);
                    pending.extend(
                        attempt
                            .handlers
                            .iter()
                            .map(|ExceptHandler::ExceptHandler(handler)| Self::Block(&handler.body)),
                    );
                    pending.extend(attempt.orelse.iter().chain(&attempt.finalbody).map(Self::Statement));
                }
                _ => {}
            },
        }
    }
}

/// What the `else` of an `if` holds: the next `elif`, or statements.
fn add_else<'a>(clauses: &'a [ruff_python_ast::ElifElseClause], pending: &mut VecDeque<Node<'a>>) {
    match clauses {
        [] => {}
        [last, ..] if last.test.is_none() => pending.extend(last.body.iter().map(Node::Statement)),
        _ => pending.push_back(Node::Elif(clauses)),
    }
}

/// The string that a body opens with, cleaned; `None` without one or with an empty one.
pub(super) fn docstring(body: &[Stmt]) -> Option<String> {
    match body.first()? {
        Stmt::Expr(statement) => match &*statement.value {
            Expr::StringLiteral(literal) => Some(clean(literal.value.to_str())),
            _ => None,
        },
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

/// What Python's `inspect.cleandoc` makes of a docstring: tabs widened, the common indentation and outer blank lines gone.
pub(super) fn clean(docstring: &str) -> String {
    let lines: Vec<String> = docstring.split('\n').map(expand_tabs).collect();
    let indentation = |line: &String| line.chars().take_while(|c| c.is_whitespace()).count();
    let is_blank = |line: &&String| line.chars().all(char::is_whitespace);
    let common = lines.iter().skip(1).filter(|line| !is_blank(line)).map(indentation).min().unwrap_or(0);
    let mut cleaned: Vec<&str> = lines
        .iter()
        .enumerate()
        .map(|(number, line)| match number {
            0 => line.trim_start(),
            _ => line.char_indices().nth(common).map_or("", |(start, _)| &line[start..]),
        })
        .collect();
    while cleaned.last().is_some_and(|line| line.is_empty()) {
        cleaned.pop();
    }
    let blank = cleaned.iter().take_while(|line| line.is_empty()).count();
    cleaned[blank..].join("\n")
}

/// Python's `str.expandtabs`: to the next multiple of eight columns.
fn expand_tabs(line: &str) -> String {
    let mut expanded = String::with_capacity(line.len());
    let mut column = 0;
    for character in line.chars() {
        if character == '\t' {
            let width = 8 - column % 8;
            expanded.extend(std::iter::repeat_n(' ', width));
            column += width;
        } else {
            expanded.push(character);
            column = if character == '\r' { 0 } else { column + 1 };
        }
    }
    expanded
}
