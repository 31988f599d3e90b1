//! One walk over a syntax tree at compile time: which variables it can see how much of, which functions it calls,
//! what it binds itself, and what it must not do.

use std::collections::{BTreeMap, BTreeSet};

use jsonata_core::ast::{AstNode, BinaryOp, PathStep, Stage};
use jsonata_core::value::with_stack;

use super::demand::Demand;
use super::expansion;
use super::functions::Function;

/// The functions of the language, so that a mention of one is not taken for a variable.
const LANGUAGE: &[&str] = &[
    "abs",
    "append",
    "assert",
    "average",
    "base64decode",
    "base64encode",
    "boolean",
    "ceil",
    "contains",
    "count",
    "decodeUrl",
    "decodeUrlComponent",
    "distinct",
    "each",
    "encodeUrl",
    "encodeUrlComponent",
    "error",
    "eval",
    "exists",
    "filter",
    "floor",
    "formatBase",
    "formatInteger",
    "formatNumber",
    "fromMillis",
    "join",
    "keys",
    "length",
    "lookup",
    "lowercase",
    "map",
    "match",
    "max",
    "merge",
    "millis",
    "min",
    "not",
    "now",
    "number",
    "pad",
    "parseInteger",
    "power",
    "random",
    "reduce",
    "replace",
    "reverse",
    "round",
    "shuffle",
    "sift",
    "single",
    "sort",
    "split",
    "spread",
    "sqrt",
    "string",
    "substring",
    "substringAfter",
    "substringBefore",
    "sum",
    "toMillis",
    "trim",
    "type",
    "uppercase",
    "zip",
];

/// Something that the language has and Amazon States Language refuses.
pub(super) struct Misuse {
    pub(super) name: &'static str,
    pub(super) message: String,
}

/// What a walk found.
#[derive(Default)]
pub(super) struct Survey<'a> {
    demands: BTreeMap<&'a str, Demand>,
    called: BTreeSet<&'a str>,
    bound: BTreeSet<&'a str>,
    /// Whether `%`, `@` or `#` may look back at values before a step.
    looks_back: bool,
}

impl<'a> Survey<'a> {
    pub(super) fn of(tree: &'a AstNode) -> Self {
        let mut survey = Self::default();
        survey.visit(tree);
        if survey.looks_back {
            survey
                .demands
                .values_mut()
                .for_each(|demand| *demand = Demand::Whole);
        }
        survey
    }

    /// What the expression does that is refused at compile time.
    pub(super) fn misuse(&self) -> Option<Misuse> {
        self.mentions("eval").then(|| Misuse {
            name: "eval",
            message: "the function $eval is not available; use $parse to read JSON text".to_owned(),
        })
    }

    /// The variables that the expression takes from outside.
    pub(super) fn references(&self) -> Vec<String> {
        self.demands
            .keys()
            .chain(&self.called)
            .filter(|name| !self.bound.contains(*name) && !is_function(name))
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The functions of ours that have to be registered.
    pub(super) fn functions(&self) -> Vec<Function> {
        Function::ALL
            .into_iter()
            .filter(|function| self.mentions(function.name()))
            .collect()
    }

    /// Whether any operation was wrapped in a guard.
    pub(super) fn is_guarded(&self) -> bool {
        self.called.iter().any(|name| expansion::is_guard(name))
    }

    pub(super) fn into_demands(self) -> Vec<(String, Demand)> {
        let called = self
            .called
            .into_iter()
            .filter(|name| !is_function(name))
            .map(|name| (name, Demand::Whole));
        let mut demands: BTreeMap<&str, Demand> = called.collect();
        demands.extend(self.demands);
        demands
            .into_iter()
            .map(|(name, demand)| (name.to_owned(), demand))
            .collect()
    }

    fn mentions(&self, name: &str) -> bool {
        self.called.contains(name) || self.demands.contains_key(name)
    }

    fn demand(&mut self, name: &'a str, demand: Demand) {
        // The empty name is `$`, the current item.
        if name.is_empty() {
            return;
        }
        match self.demands.get_mut(name) {
            Some(known) => known.merge(demand),
            None => {
                self.demands.insert(name, demand);
            }
        }
    }

    fn visit(&mut self, node: &'a AstNode) {
        match node {
            AstNode::Variable(name) => self.demand(name, Demand::Whole),
            AstNode::Path { steps } => {
                self.visit_path(steps);
                return;
            }
            AstNode::Function { name, .. } => {
                self.called.insert(name);
            }
            AstNode::Binary {
                op: BinaryOp::ColonEqual,
                lhs,
                ..
            } => {
                if let AstNode::Variable(name) = &**lhs {
                    self.bound.insert(name);
                }
            }
            AstNode::Binary {
                op: BinaryOp::FocusBind | BinaryOp::IndexBind,
                ..
            }
            | AstNode::Parent(_) => {
                self.looks_back = true;
            }
            AstNode::Lambda { params, .. } => self.bound.extend(params.iter().map(String::as_str)),
            _ => {}
        }
        for_each_child(node, &mut |child| with_stack(|| self.visit(child)));
    }

    fn visit_path(&mut self, steps: &'a [PathStep]) {
        let mut rest = steps;
        if let Some((
            PathStep {
                node: AstNode::Variable(name),
                ..
            },
            others,
        )) = steps.split_first()
        {
            self.demand(name, Demand::of_path(steps));
            rest = others;
            self.visit_stages(&steps[0]);
        }
        for step in rest {
            with_stack(|| self.visit(&step.node));
            self.visit_stages(step);
        }
    }

    fn visit_stages(&mut self, step: &'a PathStep) {
        self.bound.extend(step.focus.as_deref());
        self.bound.extend(step.index_var.as_deref());
        for stage in &step.stages {
            match stage {
                Stage::Filter(predicate) => with_stack(|| self.visit(predicate)),
                Stage::Index(name) => {
                    self.bound.insert(name);
                }
                Stage::KeepArray => {}
            }
        }
    }
}

fn is_function(name: &str) -> bool {
    LANGUAGE.contains(&name)
        || expansion::is_guard(name)
        || Function::ALL.iter().any(|function| function.name() == name)
}

/// Rewrites two shapes that the evaluator's interface for host functions does not serve.
///
/// `$now(picture, zone)` becomes `$fromMillis($millis(), picture, zone)`, which JSONata defines to be the same, so the
/// language's own formatting serves both. And a function of ours that is handed to `$map` or its kin becomes a lambda
/// of its arity, because a host function would be called with item, index and array.
pub(super) fn rewrite(node: &mut AstNode) {
    if let AstNode::Function { name, args, .. } = node {
        if name == "now" && !args.is_empty() {
            "fromMillis".clone_into(name);
            args.insert(0, call("millis", Vec::new()));
        } else if CALLERS.contains(&name.as_str())
            && args.len() <= 2
            && let Some(callback) = args.last_mut()
            && let AstNode::Variable(mention) = callback
            && let Some(function) = Function::ALL
                .into_iter()
                .find(|function| function.name() == mention)
        {
            let params: Vec<String> = (0..function.arity())
                .map(|index| format!("argument{index}"))
                .collect();
            let arguments = params.iter().cloned().map(AstNode::Variable).collect();
            let body = Box::new(call(function.name(), arguments));
            *callback = AstNode::Lambda {
                params,
                body,
                signature: None,
                thunk: false,
            };
        }
    }
    for_each_child_mut(node, &mut |child| with_stack(|| rewrite(child)));
}

/// The functions whose last argument is a function that they call.
const CALLERS: &[&str] = &["map", "filter", "single", "each", "sift"];

pub(super) fn call(name: &str, args: Vec<AstNode>) -> AstNode {
    AstNode::Function {
        name: name.to_owned(),
        args,
        is_builtin: true,
    }
}

/// Defines a walk over the children of a node, once for reading and once for writing: the two differ in nothing but
/// the mutability of what they touch. Every variant is named, so a new one has to be thought of here.
macro_rules! walk {
    ($name:ident, [$($life:lifetime)?], $($reference:tt)+) => {
        pub(super) fn $name$(<$life>)?(node: $($reference)+ AstNode, visit: &mut dyn FnMut($($reference)+ AstNode)) {
            match node {
                AstNode::String(_)
                | AstNode::Name(_)
                | AstNode::Number(_)
                | AstNode::Boolean(_)
                | AstNode::Null
                | AstNode::Undefined
                | AstNode::Placeholder
                | AstNode::Regex { .. }
                | AstNode::Variable(_)
                | AstNode::ParentVariable(_)
                | AstNode::Wildcard
                | AstNode::Descendant
                | AstNode::Parent(_) => {}
                AstNode::Path { steps } => {
                    for step in steps {
                        let PathStep { node, stages, .. } = step;
                        visit(node);
                        for stage in stages {
                            if let Stage::Filter(predicate) = stage {
                                visit(predicate);
                            }
                        }
                    }
                }
                AstNode::Binary { lhs, rhs, .. } => {
                    visit(lhs);
                    visit(rhs);
                }
                AstNode::Unary { operand, .. } => visit(operand),
                AstNode::Function { args, .. } => args.into_iter().for_each(visit),
                AstNode::Call { procedure, args } => {
                    visit(procedure);
                    args.into_iter().for_each(visit);
                }
                AstNode::Lambda { body, .. } => visit(body),
                AstNode::Array(items) | AstNode::Block(items) | AstNode::ArrayGroup(items) => {
                    items.into_iter().for_each(visit);
                }
                AstNode::Object(pairs) => {
                    for (name, value) in pairs {
                        visit(name);
                        visit(value);
                    }
                }
                AstNode::ObjectTransform { input, pattern } => {
                    visit(input);
                    for (name, value) in pattern {
                        visit(name);
                        visit(value);
                    }
                }
                AstNode::Conditional { condition, then_branch, else_branch } => {
                    visit(condition);
                    visit(then_branch);
                    if let Some(otherwise) = else_branch {
                        visit(otherwise);
                    }
                }
                AstNode::FunctionApplication(body) => visit(body),
                AstNode::Sort { input, terms } => {
                    visit(input);
                    for (term, _) in terms {
                        visit(term);
                    }
                }
                AstNode::Transform { location, update, delete } => {
                    visit(location);
                    visit(update);
                    if let Some(delete) = delete {
                        visit(delete);
                    }
                }
            }
        }
    };
}

walk!(for_each_child, ['a], &'a);
walk!(for_each_child_mut, [], &mut);
