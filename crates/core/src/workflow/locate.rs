//! Finds the line of something in a YAML text.

use marked_yaml::{LoaderOptions, Node};

/// A step on the way from the top of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seg {
    Key(String),
    Index(usize),
}

/// A place, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// A document that knows where its parts are.
pub(super) struct Map(Option<Node>);

impl Map {
    /// Reads a text that is known to be YAML; an unsupported construct (aliases) leaves it empty.
    ///
    /// Must only be called on text that `serde_yaml_ng` accepted: that bounds the nesting.
    pub(super) fn read(text: &str) -> Self {
        let options = LoaderOptions::default().error_on_duplicate_keys(false);
        Self(marked_yaml::parse_yaml_with_options(0, text, options).ok())
    }

    /// The place of the deepest part of `path` that exists; for a key, where the key is written.
    pub(super) fn place(&self, path: &[Seg]) -> Place {
        let Some(mut node) = self.0.as_ref() else { return Place::START };
        let mut best = Place::START;
        for seg in path {
            let (place, next) = match (seg, node) {
                (Seg::Key(key), Node::Mapping(map)) => match map.iter().find(|(k, _)| k.as_str() == key) {
                    Some((k, v)) => (marker(k.span()), v),
                    None => return best,
                },
                (Seg::Index(i), Node::Sequence(list)) => match list.get_node(*i) {
                    Some(v) => (marker(v.span()), v),
                    None => return best,
                },
                _ => return best,
            };
            best = place.unwrap_or(best);
            node = next;
        }
        best
    }

    /// The first place at or after `from` (in lines) where a key of this name is written.
    pub(super) fn key(&self, name: &str, from: Place) -> Option<Place> {
        let mut found = Vec::new();
        if let Some(node) = &self.0 {
            keys(node, name, &mut found);
        }
        found.sort();
        found.iter().find(|p| p.line >= from.line).or(found.first()).copied()
    }
}

fn marker(span: &marked_yaml::Span) -> Option<Place> {
    span.start().map(|m| Place { line: m.line(), column: m.column() })
}

fn keys(node: &Node, name: &str, found: &mut Vec<Place>) {
    match node {
        Node::Scalar(_) => {}
        Node::Mapping(map) => {
            for (key, value) in map.iter() {
                if key.as_str() == name {
                    found.extend(marker(key.span()));
                }
                keys(value, name, found);
            }
        }
        Node::Sequence(list) => list.iter().for_each(|n| keys(n, name, found)),
    }
}
