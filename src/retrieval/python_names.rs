//! The names that a Python module defines, with signatures and docstrings, as jedi describes them.
//!
//! Jedi infers across files and from the standard library's types; this reads one file. Base classes from elsewhere
//! therefore give no signature.

use std::collections::HashMap;
use std::fmt::Write as _;

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{
    AnyParameterRef, ElifElseClause, ExceptHandler, Expr, Parameters, Pattern, Stmt, StmtClassDef,
    StmtFunctionDef,
};
use ruff_python_parser::parse_module;
use ruff_text_size::Ranged;

use super::python_depth::is_too_deep;
use super::python_docs::docstring;

/// How many base classes in a row are looked at for a signature.
const MAX_BASES: usize = 20;

/// Built-in classes that take any positional arguments.
const EXCEPTIONS: [&str; 22] = [
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BaseException",
    "DeprecationWarning",
    "EnvironmentError",
    "Exception",
    "FutureWarning",
    "IOError",
    "IndexError",
    "KeyError",
    "KeyboardInterrupt",
    "LookupError",
    "NotImplementedError",
    "OSError",
    "RuntimeError",
    "RuntimeWarning",
    "SyntaxWarning",
    "TypeError",
    "UserWarning",
    "ValueError",
    "Warning",
];

/// The module's name and docstring, then every name that it defines, those of a statement in the order of
/// evaluation; `None` for what is no Python.
///
/// Needs a stack of [`PARSER_STACK`](super::python_depth::PARSER_STACK) bytes.
pub(super) fn names(path: &str, source: &str) -> Option<String> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    if is_too_deep(source) {
        return None;
    }
    let parsed = parse_module(source).ok()?.into_syntax();
    let module = module_name(path);
    let mut text = format!("{module}\n");
    if let Some(docstring) = documentation(&parsed.body) {
        let _ = write!(text, "{docstring}\n\n");
    }
    let classes = parsed.body.iter().filter_map(|statement| match statement {
        Stmt::ClassDef(class) => Some((class.name.as_str(), class)),
        _ => None,
    });
    let mut names =
        Names { source, classes: classes.collect(), scope: Scope::Module(module), attribute_doc: None, text };
    names.visit_body(&parsed.body);
    Some(names.text)
}

/// `src/pkg/__init__.py` is `src.pkg`.
fn module_name(path: &str) -> String {
    let path = path.strip_suffix(".py").unwrap_or(path);
    path.strip_suffix("/__init__").unwrap_or(path).replace('/', ".")
}

/// Where a name is defined.
#[derive(Clone)]
enum Scope {
    /// In the module of this name.
    Module(String),
    /// In the class of this full name.
    Class(Option<String>),
    /// In the function of this full name.
    Function(Option<String>),
}

impl Scope {
    /// The full name of what is defined here. Two functions deep, jedi knows none.
    fn qualify(&self, name: &str) -> Option<String> {
        match self {
            Self::Module(scope) => Some(format!("{scope}.{name}")),
            Self::Class(scope) | Self::Function(scope) => {
                scope.as_ref().map(|scope| format!("{scope}.{name}"))
            }
        }
    }

    /// What the definition of `name` encloses.
    fn inside(&self, name: &str) -> Option<String> {
        if let Self::Function(_) = self { None } else { self.qualify(name) }
    }
}

struct Names<'a> {
    source: &'a str,
    classes: HashMap<&'a str, &'a StmtClassDef>,
    scope: Scope,
    /// The string after an assignment, which documents what is assigned.
    attribute_doc: Option<String>,
    text: String,
}

/// What a class is called with.
enum Signature {
    Known(String),
    /// That of `object`.
    Default,
    /// All base classes are from elsewhere.
    Unknown,
}

impl<'a> Names<'a> {
    fn add(&mut self, full_name: Option<&str>, documentation: &str) {
        // Where there is no full name, the reference writes what Python prints for none.
        let _ = writeln!(self.text, "{}", full_name.unwrap_or("None"));
        if !documentation.is_empty() {
            let _ = write!(self.text, "{documentation}\n\n");
        }
    }

    /// A variable counts where it is the module's.
    fn add_variable(&mut self, name: &str) {
        if let Scope::Module(_) = self.scope {
            let full_name = self.scope.qualify(name);
            let documentation = self.attribute_doc.clone().unwrap_or_default();
            self.add(full_name.as_deref(), &documentation);
        }
    }

    fn add_function(&mut self, function: &'a StmtFunctionDef) {
        let is_bound = function.decorator_list.iter().any(|decorator| match &decorator.expression {
            Expr::Name(name) => matches!(name.id.as_str(), "property" | "classmethod"),
            Expr::Attribute(attribute) => matches!(attribute.attr.as_str(), "setter" | "getter" | "deleter"),
            _ => false,
        });
        let mut documentation = documentation(&function.body).unwrap_or_default();
        if !is_bound {
            let returns = function.returns.as_ref().map(|returns| format!(" -> {}", self.code(&**returns)));
            let signature = self.parameters(&function.parameters, false);
            let signature = format!("{}({signature}){}", function.name, returns.unwrap_or_default());
            documentation = join(signature, &documentation);
        }
        self.add(self.scope.qualify(&function.name).as_deref(), &documentation);
        let inside = Scope::Function(self.scope.inside(&function.name));
        self.enter(inside, &function.body);
    }

    fn add_class(&mut self, class: &'a StmtClassDef) {
        let signature = match self.class_signature(class, MAX_BASES) {
            Signature::Known(parameters) => format!("{}({parameters})", class.name),
            Signature::Default => format!("{}()", class.name),
            Signature::Unknown => String::new(),
        };
        let documentation = join(signature, &documentation(&class.body).unwrap_or_default());
        self.add(self.scope.qualify(&class.name).as_deref(), &documentation);
        let inside = Scope::Class(self.scope.inside(&class.name));
        self.enter(inside, &class.body);
    }

    fn enter(&mut self, scope: Scope, body: &'a [Stmt]) {
        let outer = std::mem::replace(&mut self.scope, scope);
        self.visit_body(body);
        self.scope = outer;
    }

    /// The parameters of a class's constructor: its own, or that of its first base class that is known.
    fn class_signature(&self, class: &StmtClassDef, bases_left: usize) -> Signature {
        let method = |name: &str| {
            class.body.iter().rev().find_map(|statement| match statement {
                Stmt::FunctionDef(function) if function.name.as_str() == name => {
                    Some(Signature::Known(self.parameters(&function.parameters, true)))
                }
                _ => None,
            })
        };
        if let Some(signature) = method("__init__") {
            return signature;
        }
        let bases = class.arguments.as_ref().map_or(&[][..], |arguments| &arguments.args);
        let inherited = bases.iter().find_map(|base| self.base_signature(base, bases_left));
        match inherited {
            Some(Signature::Known(parameters)) => Signature::Known(parameters),
            _ => method("__new__").unwrap_or(if inherited.is_none() && !bases.is_empty() {
                Signature::Unknown
            } else {
                Signature::Default
            }),
        }
    }

    /// `None` for a class from elsewhere.
    fn base_signature(&self, base: &Expr, bases_left: usize) -> Option<Signature> {
        let Expr::Name(name) = base else { return None };
        match (self.classes.get(name.id.as_str()), bases_left.checked_sub(1)) {
            (Some(class), Some(bases_left)) => match self.class_signature(class, bases_left) {
                Signature::Unknown => None,
                known => Some(known),
            },
            (Some(_), None) => None,
            (None, _) if name.id.as_str() == "object" => Some(Signature::Default),
            (None, _) if EXCEPTIONS.contains(&name.id.as_str()) => {
                Some(Signature::Known("*args: object".into()))
            }
            (None, _) => None,
        }
    }

    /// Parameters as jedi writes them, without the first one of a method that is bound.
    fn parameters(&self, parameters: &Parameters, is_bound: bool) -> String {
        let mut written: Vec<String> = Vec::new();
        for (index, parameter) in parameters.iter().enumerate() {
            let declared = parameter.as_parameter();
            let is_star = |star: &Option<Box<ruff_python_ast::Parameter>>| {
                star.as_ref().is_some_and(|star| star.range() == declared.range())
            };
            let stars = if is_star(&parameters.vararg) {
                "*"
            } else if is_star(&parameters.kwarg) {
                "**"
            } else {
                ""
            };
            let is_first_keyword = parameters
                .kwonlyargs
                .first()
                .is_some_and(|first| first.parameter.range() == declared.range());
            if is_first_keyword && parameters.vararg.is_none() {
                written.push("*".into());
            }
            let mut text = format!("{stars}{}", declared.name);
            if let Some(annotation) = &declared.annotation {
                let _ = write!(text, ": {}", self.code(&**annotation));
            }
            if let AnyParameterRef::NonVariadic(with_default) = parameter
                && let Some(default) = &with_default.default
            {
                let _ = write!(text, "={}", self.code(&**default));
            }
            written.push(text);
            if index + 1 == parameters.posonlyargs.len() {
                written.push("/".into());
            }
        }
        if is_bound && !written.is_empty() {
            written.remove(0);
        }
        written.join(", ")
    }

    fn code(&self, node: &impl Ranged) -> &'a str {
        &self.source[node.range()]
    }
}

/// The docstring, which to jedi is one string and not several in a row.
fn documentation(body: &[Stmt]) -> Option<String> {
    let is_one = matches!(body.first(), Some(Stmt::Expr(statement))
        if statement.value.as_string_literal_expr().is_some_and(|literal| !literal.value.is_implicit_concatenated()));
    is_one.then(|| docstring(body)).flatten()
}

fn join(signature: String, documentation: &str) -> String {
    match (signature.is_empty(), documentation.is_empty()) {
        (_, true) => signature,
        (true, false) => documentation.to_owned(),
        (false, false) => format!("{signature}\n\n{documentation}"),
    }
}

impl<'a> Visitor<'a> for Names<'a> {
    fn visit_body(&mut self, body: &'a [Stmt]) {
        for (index, statement) in body.iter().enumerate() {
            self.attribute_doc = match statement {
                Stmt::Assign(_) | Stmt::AnnAssign(_) => documentation(&body[index + 1..]),
                _ => None,
            };
            self.visit_stmt(statement);
        }
    }

    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::FunctionDef(function) => self.add_function(function),
            Stmt::ClassDef(class) => self.add_class(class),
            Stmt::Import(_) | Stmt::ImportFrom(_) => {}
            other => visitor::walk_stmt(self, other),
        }
    }

    fn visit_elif_else_clause(&mut self, clause: &'a ElifElseClause) {
        visitor::walk_elif_else_clause(self, clause);
    }

    fn visit_except_handler(&mut self, handler: &'a ExceptHandler) {
        let ExceptHandler::ExceptHandler(inner) = handler;
        if let Some(name) = &inner.name {
            self.add_variable(name);
        }
        visitor::walk_except_handler(self, handler);
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        // Variables of functions and classes do not count.
        if !matches!(self.scope, Scope::Module(_)) {
            return;
        }
        match expression {
            Expr::Name(name) if !name.ctx.is_load() => self.add_variable(&name.id),
            Expr::Lambda(lambda) => {
                for _ in lambda.parameters.iter().flat_map(|parameters| parameters.iter()) {
                    self.add(None, "");
                }
                self.visit_expr(&lambda.body);
            }
            _ => visitor::walk_expr(self, expression),
        }
    }

    /// Jedi gives what a `case` captures no name.
    fn visit_pattern(&mut self, _: &'a Pattern) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What jedi 0.20 gives through the reference's function, with the module's name as `M`.
    #[test]
    fn names_are_those_that_jedi_gives() {
        #[track_caller]
        fn check(source: &str, expected: &str) {
            let found = names("src/m.py", source).unwrap().replace("src.m", "M");
            let found: Vec<&str> = found.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!(found.join("|"), expected, "{source}");
        }
        check("'''Module doc.\n\n  More.'''\nimport os\nfrom . import a as b\n", "M|Module doc.|More.");
        check(
            "X = 1\n'X doc'\nY: int = 2\nA, (B, *C) = 1\nV += 1\ns.t = 1\nu[0] = 2",
            "M|M.X|X doc|M.Y|M.A|M.B|M.C|M.V",
        );
        check("P = Q = 1\n'PQ doc'\nR: str\n'R doc'", "M|M.P|PQ doc|M.Q|PQ doc|M.R|R doc");
        check("for i in x:\n    j = i\nwith f() as (d, e): pass\ndel i", "M|M.i|M.j|M.d|M.e|M.i");
        check("try:\n    import json\nexcept ImportError as err:\n    json = None", "M|M.err|M.json");
        check("m = {k: v for k, v in w}\nif (yy := 1): pass", "M|M.k|M.v|M.m|M.yy");
        check("lam = lambda x, *y, z=1: x", "M|None|None|None|M.lam");
        check("match a:\n    case [mm, *rr]:\n        inner = 1", "M|M.inner");
        check(
            "def f(a, b=1, *args, c: int = 2, **kw) -> int:\n    '''F doc.\n\n    More.\n    '''\n    local = [z for z in a]",
            "M|M.f|f(a, b=1, *args, c: int=2, **kw) -> int|F doc.|More.",
        );
        check(
            "def f(self, a: 'str' = 'q', /, b: List[int] = [1,2], *, k=not  True): pass",
            "M|M.f|f(self, a: 'str'='q', /, b: List[int]=[1,2], *, k=not  True)",
        );
        check("async def g(a, # first\n   b=lambda v: v): pass", "M|M.g|g(a, b=lambda v: v)");
        check("@unknown\ndef ud(a): 'ud doc'", "M|M.ud|ud(a)|ud doc");
        check(
            "def r(): r'''raw \\d'''\ndef fd(): f'no'\ndef c(): 'a' 'b'",
            "M|M.r|r()|raw \\d|M.fd|fd()|M.c|c()",
        );
        check(
            "def outer():\n    class Local:\n        def meth(self): 'doc'\n    def one():\n        def two(): pass",
            "M|M.outer|outer()|M.outer.Local|Local()|None|meth(self)|doc|M.outer.one|one()|None|two()",
        );
        check(
            "class C(Base):\n    'C doc'\n    x = 1\n    'x doc'\n    def __init__(self, x, y=None): self.x = x\n    class I: pass",
            "M|M.C|C(x, y=None)|C doc|M.C.__init__|__init__(self, x, y=None)|M.C.I|I()",
        );
        check(
            "class A:\n    @property\n    def p(self): 'p doc'\n    @p.setter\n    def p(self, v): 'set doc'\n\
             \x20   @classmethod\n    def cm(cls): 'cm doc'\n    @staticmethod\n    def sm(q=(1, 2)): 'sm doc'",
            "M|M.A|A()|M.A.p|p doc|M.A.p|set doc|M.A.cm|cm doc|M.A.sm|sm(q=(1, 2))|sm doc",
        );
        check(
            "class W(Unknown):\n    def __init__(self, w): pass\nclass X(W): 'X doc'",
            "M|M.W|W(w)|M.W.__init__|__init__(self, w)|M.X|X(w)|X doc",
        );
        check(
            "class F(Base): 'F doc'\nclass V(a.b): 'V doc'\nclass K(metaclass=Meta): pass",
            "M|M.F|F doc|M.V|V doc|M.K|K()",
        );
        check(
            "class O(object): pass\nclass T(O, U): pass\nclass U(Unknown, O): pass\nclass Z(O, U): pass",
            "M|M.O|O()|M.T|T()|M.U|U()|M.Z|Z()",
        );
        check(
            "class Q(ValueError): pass\nclass R(Q): 'R doc'",
            "M|M.Q|Q(*args: object)|M.R|R(*args: object)|R doc",
        );
        check(
            "class H(A):\n    def __new__(cls, zz): pass\nclass D:\n    def __init__(self): 'd1'\n    def __init__(self, x): 'd2'",
            "M|M.H|H(zz)|M.H.__new__|__new__(cls, zz)|M.D|D(x)|M.D.__init__|__init__(self)|d1|M.D.__init__|__init__(self, x)|d2",
        );
    }

    #[test]
    fn modules_are_named_by_their_paths() {
        for (path, name) in [
            ("src/pkg/sub/m.py", "src.pkg.sub.m"),
            ("src/pkg/__init__.py", "src.pkg"),
            ("setup.py", "setup"),
            ("ex-am/01-b.py", "ex-am.01-b"),
            ("src/conf.d.py", "src.conf.d"),
        ] {
            assert_eq!(module_name(path), name);
        }
    }

    #[test]
    fn classes_that_inherit_from_each_other_end() {
        let text = names("m.py", "class A(B): pass\nclass B(A): pass\nclass C(C): pass\n").unwrap();
        assert!(text.contains("m.C"), "{text}");
        assert_eq!(names("m.py", "class A("), None);
    }
}
