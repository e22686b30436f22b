//! What a page offers to a screen reader, as lines that can be compared.

use serde_json::Value;
use std::collections::BTreeMap;

/// Roles that a person can name; the rest is arrangement, or text that belongs to data.
const ROLES: [&str; 26] = [
    "alert",
    "banner",
    "button",
    "cell",
    "checkbox",
    "columnheader",
    "combobox",
    "contentinfo",
    "dialog",
    "form",
    "heading",
    "image",
    "link",
    "listbox",
    "main",
    "menuitem",
    "navigation",
    "option",
    "radio",
    "searchbox",
    "slider",
    "spinbutton",
    "switch",
    "tab",
    "table",
    "textbox",
];
/// Roles whose names are data more often than not.
const UNNAMED: [&str; 2] = ["cell", "option"];

/// Lines and how often each is there: `button "Add"`.
pub type Tree = BTreeMap<String, u64>;

/// Reads the answer of `Accessibility.getFullAXTree`.
pub fn read(answer: &Value) -> Tree {
    let mut tree = Tree::new();
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let Some(role) = node["role"]["value"].as_str() else { continue };
        if node["ignored"] == true || !ROLES.contains(&role) {
            continue;
        }
        let name = node["name"]["value"].as_str().unwrap_or_default();
        let line = if name.is_empty() || UNNAMED.contains(&role) {
            role.to_owned()
        } else {
            format!("{role} {:?}", plain(name))
        };
        *tree.entry(line).or_insert(0) += 1;
    }
    tree
}

/// A name without what differs from run to run: words with a digit in them.
fn plain(name: &str) -> String {
    let words = name.split_whitespace();
    words.map(|w| if w.chars().any(|c| c.is_ascii_digit()) { "#" } else { w }).collect::<Vec<_>>().join(" ")
}

/// What only the first has, and what only the second.
pub fn compare(old: &Tree, new: &Tree) -> (Vec<String>, Vec<String>) {
    let more = |a: &Tree, b: &Tree| {
        a.iter()
            .filter_map(|(line, n)| {
                let more = n.saturating_sub(b.get(line).copied().unwrap_or(0));
                match more {
                    0 => None,
                    1 => Some(line.clone()),
                    n => Some(format!("{line} × {n}")),
                }
            })
            .collect()
    };
    (more(old, new), more(new, old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(role: &str, name: &str) -> Value {
        json!({ "role": { "value": role }, "name": { "value": name } })
    }

    #[test]
    fn what_a_screen_reader_finds_is_compared_without_data() {
        let old = json!({ "nodes": [
            node("button", "Add"), node("link", "Order 17"), node("link", "Order 18"), node("StaticText", "hello"),
            node("generic", ""), node("cell", "a"), node("heading", "Notes"),
            { "ignored": true, "role": { "value": "button" }, "name": { "value": "hidden" } }
        ] });
        let new = json!({ "nodes": [
            node("link", "Order 99"), node("cell", "b"), node("heading", "My notes"), node("button", "Add note")
        ] });
        let (old, new) = (read(&old), read(&new));
        assert_eq!(old.get("link \"Order #\""), Some(&2));
        let (gone, fresh) = compare(&old, &new);
        assert_eq!(gone, ["button \"Add\"", "heading \"Notes\"", "link \"Order #\""]);
        assert_eq!(fresh, ["button \"Add note\"", "heading \"My notes\""]);
        assert_eq!(compare(&old, &old), (vec![], vec![]));
    }
}
