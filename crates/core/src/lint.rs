//! What a linter says of migration files.
//!
//! Owns reading its answer. It decides nothing: what the migration really did is traced.

use serde::{Deserialize, Serialize};

/// Findings that are kept.
pub const MOST_FINDINGS: usize = 500;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lint {
    /// The program that looked; empty if none did.
    pub tool: String,
    /// Files that were looked at.
    pub files: u64,
    /// Findings, by file and line.
    pub findings: Vec<LintFinding>,
    /// Findings that are not in the list because there were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// Why nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LintFinding {
    /// The file, relative to the stack.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// The linter's name for the rule.
    pub rule: String,
    /// `error` or `warning`.
    pub level: String,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A finding as squawk writes it (`--reporter json`); lines count from 0.
#[derive(Deserialize)]
struct Squawk {
    file: String,
    line: u64,
    level: String,
    message: String,
    help: Option<String>,
    rule_name: String,
}

/// Reads squawk's answer. `folder` is taken off the names of files.
pub fn squawk(json: &str, folder: &str) -> Result<Vec<LintFinding>, String> {
    let found: Vec<Squawk> = serde_json::from_str(json.trim()).map_err(|e| e.to_string())?;
    let mut findings: Vec<LintFinding> = found
        .into_iter()
        .map(|f| LintFinding {
            file: f
                .file
                .strip_prefix(folder)
                .map_or(f.file.as_str(), |rest| rest.trim_start_matches('/'))
                .to_owned(),
            line: f.line + 1,
            rule: f.rule_name,
            level: f.level.to_lowercase(),
            message: f.message,
            help: f.help,
        })
        .collect();
    findings.sort();
    Ok(findings)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_squawk_is_read() {
        let json = r#"[{"file":"/s/m/2.sql","line":1,"column":14,"level":"Warning","message":"No.","help":null,"rule_name":"r","column_end":1,"line_end":1},
            {"file":"/s/m/1.sql","line":0,"column":0,"level":"Error","message":"Blocks.","help":"Do not.","rule_name":"q","column_end":2,"line_end":0}]"#;
        let found = squawk(json, "/s").expect("reads");
        let seen: Vec<_> = found.iter().map(|f| (f.file.as_str(), f.line, f.level.as_str())).collect();
        assert_eq!(seen, [("m/1.sql", 1, "error"), ("m/2.sql", 2, "warning")]);
        assert_eq!(squawk("[]", "/s").expect("reads"), []);
        squawk("error: no such file", "/s").expect_err("is no answer");
    }
}
