//! Rules on what is done several times (rows, workers), and on what is looked for in what was sent.

use super::expect::header_pattern;
use super::model::Workflow;
use super::sent::SentStep;
use super::template::Piece;
use super::validate::{Check, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// More rows than this are a load test.
const MAX_ROWS: usize = 1000;
/// More threads than this are a load test.
const MAX_PARALLEL: u32 = 100;

impl Check<'_> {
    /// Data-driven and parallel workflows.
    pub(super) fn rows(&mut self, workflow: &Workflow) -> Outcome {
        let first: Option<BTreeSet<&String>> = workflow.rows.first().map(|r| r.keys().collect());
        let known = self.known.clone();
        self.at("rows", |c| {
            if workflow.rows.len() > MAX_ROWS {
                return c.fail(format!("{} rows; at most {MAX_ROWS} are allowed", workflow.rows.len()), None);
            }
            c.each(&workflow.rows, |c, row| {
                if Some(row.keys().collect()) != first {
                    return c.fail("each row has the same names as the first", None);
                }
                for (name, value) in row {
                    c.at(name, |c| {
                        c.variable_name(name)?;
                        if let Some(before) = known.get(name) {
                            return c.fail(format!("`{name}` already has a value from {before}"), None);
                        }
                        c.value(value)
                    })?;
                }
                Ok(())
            })
        })?;
        for name in workflow.rows.first().into_iter().flat_map(BTreeMap::keys) {
            self.known.insert(name.clone(), "rows".to_owned());
        }
        let Some(parallel) = workflow.parallel else { return Ok(()) };
        self.at("parallel", |c| {
            if !(1..=MAX_PARALLEL).contains(&parallel) {
                return c
                    .fail(format!("{parallel} at a time; between 1 and {MAX_PARALLEL} are possible"), None);
            }
            if workflow.steps.iter().any(|s| s.sql.is_some() || s.sent.is_some()) {
                let hint = "put them into a workflow of their own, or into the requests' expectations";
                return c.fail("`sql` and `sent` are not possible in parallel", Some(hint.into()));
            }
            Ok(())
        })?;
        self.known.insert("worker".to_owned(), "parallel".to_owned());
        Ok(())
    }

    pub(super) fn sent(&mut self, step: &SentStep) -> Outcome {
        for (name, rule) in step.rules() {
            self.at(name, |c| {
                // A pattern with placeholders is only known when it is used.
                if let Some(pattern) = header_pattern(rule)
                    && let [Piece::Text(text)] = pattern.pieces.as_slice()
                {
                    c.regex(text)?;
                }
                c.template(rule)
            })?;
        }
        Ok(())
    }
}
