//! A schema as it is compared and held against answers: references followed, `allOf` merged, OpenAPI 3.0 and 3.1 alike.

use super::document::Document;
use super::keywords::PLAIN;
use super::schema::DEPTH;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Keywords whose values are compared as they are.
const KEPT: [&str; 17] = [
    "maximum",
    "minimum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "maxItems",
    "minItems",
    "maxProperties",
    "minProperties",
    "maxContains",
    "minContains",
    "pattern",
    "default",
    "multipleOf",
    "uniqueItems",
    "discriminator",
];

/// A schema as it is compared: `allOf` merged, 3.0 and 3.1 alike.
pub(super) struct View<'a> {
    pub types: BTreeSet<String>,
    pub nullable: bool,
    pub format: Option<&'a str>,
    pub values: Option<Vec<&'a Value>>,
    pub properties: BTreeMap<String, &'a Value>,
    pub required: BTreeSet<String>,
    pub items: Option<&'a Value>,
    /// The schema of properties that are not named.
    pub rest: Option<&'a Value>,
    pub closed: bool,
    pub keywords: Map<String, Value>,
    groups: Vec<(&'static str, &'a Value)>,
}

impl<'a> View<'a> {
    /// `None` where the schema is none (`true` allows everything, too).
    pub fn of(document: &'a Document, schema: &'a Value, depth: usize) -> Option<Self> {
        let body = document.resolve(schema)?.as_object()?;
        let mut view = Self {
            types: BTreeSet::new(),
            nullable: body.get("nullable") == Some(&Value::Bool(true)),
            format: None,
            values: None,
            properties: BTreeMap::new(),
            required: BTreeSet::new(),
            items: None,
            rest: None,
            closed: false,
            keywords: Map::new(),
            groups: Vec::new(),
        };
        view.add(document, body, depth);
        if view.types.remove("null") {
            view.nullable = true;
        }
        // Many documents leave out what is plain.
        if view.types.is_empty() && !view.properties.is_empty() {
            view.types.insert("object".to_owned());
        } else if view.types.is_empty() && view.items.is_some() {
            view.types.insert("array".to_owned());
        }
        // `oneOf: [X, {type: null}]` is the way of 3.1 to say that X may be null.
        for (_, list) in &view.groups {
            let nothing = |s: &Value| s.get("type") == Some(&Value::from("null"));
            view.nullable |= list.as_array().is_some_and(|all| all.iter().any(nothing));
        }
        Some(view)
    }

    fn add(&mut self, document: &'a Document, body: &'a Map<String, Value>, depth: usize) {
        if depth > DEPTH {
            return;
        }
        for part in body.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            if let Some(part) = document.object(Some(part)) {
                self.add(document, part, depth + 1);
            }
        }
        match body.get("type") {
            Some(Value::String(one)) => {
                self.types.insert(one.clone());
            }
            Some(Value::Array(list)) => {
                self.types.extend(list.iter().filter_map(|t| t.as_str().map(str::to_owned)));
            }
            _ => {}
        }
        if let Some(format) = body.get("format").and_then(Value::as_str) {
            self.format = Some(format);
        }
        if let Some(list) = body.get("enum").and_then(Value::as_array) {
            self.values = Some(list.iter().collect());
        } else if let Some(only) = body.get("const") {
            self.values = Some(vec![only]);
        }
        for (name, schema) in body.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.properties.insert(name.clone(), schema);
        }
        let required = body.get("required").and_then(Value::as_array).into_iter().flatten();
        self.required.extend(required.filter_map(|r| r.as_str().map(str::to_owned)));
        self.items = body.get("items").or(self.items);
        match body.get("additionalProperties") {
            Some(Value::Bool(allowed)) => self.closed = !allowed,
            Some(schema @ Value::Object(_)) => self.rest = Some(schema),
            _ => {}
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(list) = body.get(keyword) {
                self.groups.push((keyword, list));
            }
        }
        for key in KEPT.into_iter().chain(PLAIN.map(|(keyword, _)| keyword)) {
            if let Some(value) = body.get(key) {
                self.keywords.insert(key.to_owned(), value.clone());
            }
        }
    }

    /// The alternatives of a keyword, without the one that says "null".
    pub fn alternatives(&self, keyword: &str) -> Vec<&'a Value> {
        let lists = self.groups.iter().filter(|(k, _)| *k == keyword).filter_map(|(_, l)| l.as_array());
        lists.flatten().filter(|s| s.get("type") != Some(&Value::from("null"))).collect()
    }

    /// Whether values of a type are allowed.
    pub fn takes(&self, kind: &str) -> bool {
        self.types.is_empty()
            || self.types.contains(kind)
            || (kind == "integer" && self.types.contains("number"))
    }
}
