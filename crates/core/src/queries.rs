//! What the application asked its databases while the checks ran: on the old version and on the new one, side by side.
//!
//! Owns the comparison of the servers' own statistics. It explains, it decides nothing: whether the new version is too slow is
//! judged by requests.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Forms of statements that are kept: those that took most time on either side.
pub const MOST: usize = 25;
/// A form of statement that is this many times slower, and by so many microseconds a call, is told.
const SLOWER: (f64, f64) = (1.5, 1000.0);
/// With fewer calls on one side, chance decides.
const FEW: u64 = 5;

/// A form of statement: its database and its text, with values replaced by `$1`, `$2` and so on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Form {
    /// The database.
    pub database: String,
    /// The text.
    pub text: String,
}

/// What one side did of a form of statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// How often it ran.
    pub calls: u64,
    /// How long in all, in microseconds.
    pub total_us: u64,
    /// Rows that it returned or changed.
    pub rows: u64,
    /// Pages that it looked at, 8 KiB each as a rule.
    pub pages: u64,
}

impl Use {
    /// Microseconds a call.
    pub fn mean_us(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.total_us as f64 / self.calls as f64 }
    }
}

/// How a server would carry out a form of statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scheme {
    /// The planner's estimate, in its own unit.
    pub cost: f64,
    /// Its nodes, indented by their depth: `Index Scan using orders_pkey on orders`.
    pub nodes: Vec<String>,
}

/// A form of statement on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// What it is.
    #[serde(flatten)]
    pub form: Form,
    /// The old version's use of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Use>,
    /// The new version's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Use>,
    /// How the old version's server carries it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_plan: Option<Scheme>,
    /// How the new version's server does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_plan: Option<Scheme>,
}

impl Query {
    /// Whether both plans are known and differ in more than their cost.
    pub fn plan_changed(&self) -> bool {
        matches!((&self.old_plan, &self.new_plan), (Some(old), Some(new)) if old.nodes != new.nodes)
    }

    /// How many times slower a call is than before, where that is worth telling.
    pub fn slower(&self) -> Option<f64> {
        let (old, new) = (self.old?, self.new?);
        let (before, after) = (old.mean_us(), new.mean_us());
        let enough = old.calls >= FEW && new.calls >= FEW;
        (enough && after >= before * SLOWER.0 && after - before >= SLOWER.1).then(|| after / before.max(1.0))
    }
}

/// What was asked of one store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Queries {
    /// Of the old version, everything together.
    pub old: Use,
    /// Of the new version.
    pub new: Use,
    /// The forms that took most time, heaviest first.
    pub heaviest: Vec<Query>,
    /// Forms that are not in the list.
    pub left_out: usize,
    /// What a person should know about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Queries {
    /// Puts two sides together; plans are not known yet.
    pub fn compare(old: BTreeMap<Form, Use>, mut new: BTreeMap<Form, Use>) -> Self {
        let sum = |side: &BTreeMap<Form, Use>| {
            side.values().fold(Use::default(), |a, u| Use {
                calls: a.calls + u.calls,
                total_us: a.total_us + u.total_us,
                rows: a.rows + u.rows,
                pages: a.pages + u.pages,
            })
        };
        let (old_sum, new_sum) = (sum(&old), sum(&new));
        let query = |form, old, new| Query { form, old, new, old_plan: None, new_plan: None };
        let mut all: Vec<Query> = old
            .into_iter()
            .map(|(form, usage)| {
                let other = new.remove(&form);
                query(form, Some(usage), other)
            })
            .collect();
        all.extend(new.into_iter().map(|(form, usage)| query(form, None, Some(usage))));
        let weight = |q: &Query| q.old.map_or(0, |u| u.total_us).max(q.new.map_or(0, |u| u.total_us));
        all.sort_by(|a, b| weight(b).cmp(&weight(a)).then_with(|| a.form.cmp(&b.form)));
        let left_out = all.len().saturating_sub(MOST);
        all.truncate(MOST);
        Self { old: old_sum, new: new_sum, heaviest: all, left_out, notes: Vec::new() }
    }

    /// Forms whose plan changed.
    pub fn changed_plans(&self) -> usize {
        self.heaviest.iter().filter(|q| q.plan_changed()).count()
    }

    /// Forms that became slower.
    pub fn slower(&self) -> usize {
        self.heaviest.iter().filter(|q| q.slower().is_some()).count()
    }
}

/// Reads a plan in the server's JSON form; `None` if it is none.
pub fn scheme(json: &serde_json::Value) -> Option<Scheme> {
    let root = json.get(0)?.get("Plan")?;
    let mut nodes = Vec::new();
    node(root, 0, &mut nodes);
    Some(Scheme { cost: root.get("Total Cost")?.as_f64()?, nodes })
}

/// Nodes of one plan that are kept.
const MOST_NODES: usize = 60;
/// Plans are trees; one that is deeper than this is cut.
const DEEPEST: usize = 40;

fn node(of: &serde_json::Value, depth: usize, nodes: &mut Vec<String>) {
    if nodes.len() >= MOST_NODES || depth > DEEPEST {
        return;
    }
    let text = |key: &str| of.get(key).and_then(serde_json::Value::as_str);
    let kind = text("Node Type").unwrap_or("?");
    let mut line = "  ".repeat(depth);
    match (kind, text("Operation"), text("Join Type"), text("Strategy")) {
        ("ModifyTable", Some(operation), ..) => line.push_str(operation),
        (_, _, Some(join), _) if join != "Inner" => line.push_str(&format!("{kind} ({join})")),
        (_, _, _, Some(strategy)) => line.push_str(&format!("{kind} ({strategy})")),
        _ => line.push_str(kind),
    }
    if let Some(index) = text("Index Name") {
        line.push_str(&format!(" using {index}"));
    }
    if let Some(relation) =
        text("Relation Name").or_else(|| text("CTE Name")).or_else(|| text("Function Name"))
    {
        line.push_str(&format!(" on {relation}"));
    }
    nodes.push(line);
    for child in of.get("Plans").and_then(serde_json::Value::as_array).into_iter().flatten() {
        node(child, depth + 1, nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn form(text: &str) -> Form {
        Form { database: "app".into(), text: text.into() }
    }

    fn usage(calls: u64, total_us: u64) -> Use {
        Use { calls, total_us, rows: calls, pages: calls * 3 }
    }

    #[test]
    fn both_sides_meet_by_database_and_text_and_the_heaviest_come_first() {
        let old = BTreeMap::from([(form("a"), usage(10, 100)), (form("gone"), usage(1, 900))]);
        let new = BTreeMap::from([(form("a"), usage(10, 5000)), (form("added"), usage(2, 40))]);
        let found = Queries::compare(old, new);
        let texts: Vec<&str> = found.heaviest.iter().map(|q| q.form.text.as_str()).collect();
        assert_eq!(texts, ["a", "gone", "added"]);
        assert_eq!((found.old.calls, found.new.calls, found.new.total_us), (11, 12, 5040));
        assert!(found.heaviest[1].new.is_none() && found.heaviest[2].old.is_none());
    }

    #[test]
    fn too_many_forms_are_counted_and_the_sums_are_of_all() {
        let many = |n: u64| (0..n).map(|i| (form(&format!("q{i:03}")), usage(1, i))).collect();
        let found = Queries::compare(many(100), BTreeMap::new());
        assert_eq!((found.heaviest.len(), found.left_out, found.old.calls), (MOST, 75, 100));
        assert_eq!(found.heaviest[0].form.text, "q099");
    }

    #[test]
    fn slower_is_what_is_slower_by_much_and_not_by_chance() {
        let query = |old, new| Query {
            form: form("q"),
            old: Some(old),
            new: Some(new),
            old_plan: None,
            new_plan: None,
        };
        assert!(query(usage(10, 20_000), usage(10, 60_000)).slower().is_some_and(|f| (f - 3.0).abs() < 1e-9));
        assert_eq!(query(usage(10, 20_000), usage(10, 25_000)).slower(), None, "by a quarter");
        assert_eq!(query(usage(10, 100), usage(10, 900)).slower(), None, "by less than a millisecond a call");
        assert_eq!(query(usage(10, 20_000), usage(2, 60_000)).slower(), None, "two calls");
        assert_eq!(query(usage(0, 0), usage(9, 60_000)).slower(), None, "no call");
    }

    #[test]
    fn a_plan_is_a_list_of_indented_nodes() {
        let plan = json!([{ "Plan": { "Node Type": "Hash Join", "Join Type": "Left", "Total Cost": 42.5, "Plans": [
            { "Node Type": "Index Scan", "Index Name": "orders_pkey", "Relation Name": "orders" },
            { "Node Type": "Hash", "Plans": [{ "Node Type": "Seq Scan", "Relation Name": "users" }] } ] } }]);
        let found = scheme(&plan).expect("a plan");
        assert_eq!(
            found.nodes,
            [
                "Hash Join (Left)",
                "  Index Scan using orders_pkey on orders",
                "  Hash",
                "    Seq Scan on users"
            ]
        );
        assert!((found.cost - 42.5).abs() < 1e-9);
        assert_eq!(scheme(&json!({ "Plan": 1 })), None);
        let mut other = found.clone();
        other.cost = 99.0;
        let query = |new| Query {
            form: form("q"),
            old: None,
            new: None,
            old_plan: Some(found.clone()),
            new_plan: Some(new),
        };
        assert!(!query(other.clone()).plan_changed(), "only the cost");
        other.nodes[1] = "  Seq Scan on orders".into();
        assert!(query(other).plan_changed());
    }

    #[test]
    fn a_hostile_plan_is_cut() {
        let mut plan = json!({ "Node Type": "Result", "Total Cost": 1.0 });
        for _ in 0..100 {
            plan = json!({ "Node Type": "Append", "Total Cost": 1.0, "Plans": [plan.clone()] });
        }
        assert!(scheme(&json!([{ "Plan": plan }])).expect("a plan").nodes.len() <= DEEPEST + 1);
    }
}
