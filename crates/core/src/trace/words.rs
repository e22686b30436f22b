//! What the texts of statements say: without the values in them, which tables they lock, what they mean.
//!
//! Owns reading SQL as far as that takes: words, names, values. It is no parser: what it cannot read it leaves out.

use super::{Dropped, Effect, Lock};

/// Longest text that is kept, in characters.
const LONGEST: usize = 1000;

/// Where a definition may hold a secret; then its texts are replaced too.
const SENSITIVE: [&str; 8] =
    ["password", "secret", "token", "connection", "options", "dblink", "credential", "crypt"];

/// A piece of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    /// A keyword or a plain name.
    Word(&'t str),
    /// A name in double quotes, with them.
    Quoted(&'t str),
    /// A text in single quotes, with them.
    Text(&'t str),
    Number(&'t str),
    Other(&'t str),
    /// Blanks and comments.
    Blank,
}

/// Cuts a statement into pieces. What is within dollar quotes is cut like the rest, so that its values are found too.
struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Tokens<'t> {
    fn take(&mut self, bytes: usize) -> &'t str {
        // Every length is one of characters: found by searching for ASCII, or the length of a character.
        let (piece, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        piece
    }

    fn while_(&self, wanted: impl Fn(char) -> bool) -> usize {
        self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len())
    }

    /// The length of something in quotes from its first quote at `from`, a doubled quote counting as part of it.
    fn quoted(&self, from: usize, quote: u8, backslash: bool) -> usize {
        let bytes = self.rest.as_bytes();
        let mut i = from + 1;
        while let Some(&byte) = bytes.get(i) {
            if backslash && byte == b'\\' {
                i += 2;
            } else if byte != quote {
                i += 1;
            } else if bytes.get(i + 1) == Some(&quote) {
                i += 2;
            } else {
                return i + 1;
            }
        }
        self.rest.len()
    }

    fn comment(&self) -> usize {
        let bytes = self.rest.as_bytes();
        let (mut depth, mut i) = (0, 0);
        while i < bytes.len() {
            match bytes.get(i..i + 2) {
                Some(b"/*") => (depth, i) = (depth + 1, i + 2),
                Some(b"*/") => (depth, i) = (depth - 1, i + 2),
                _ => i += 1,
            }
            if depth == 0 {
                return i;
            }
        }
        bytes.len()
    }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        let first = self.rest.chars().next()?;
        let bytes = self.rest.as_bytes();
        let escape = |at: usize| bytes.get(at) == Some(&b'\'');
        if first.is_whitespace() {
            self.take(self.while_(char::is_whitespace));
            return Some(Token::Blank);
        }
        if self.rest.starts_with("--") {
            self.take(self.while_(|c| c != '\n'));
            return Some(Token::Blank);
        }
        if self.rest.starts_with("/*") {
            self.take(self.comment());
            return Some(Token::Blank);
        }
        Some(match first {
            '\'' => Token::Text(self.take(self.quoted(0, b'\'', false))),
            'e' | 'E' if escape(1) => Token::Text(self.take(self.quoted(1, b'\'', true))),
            'b' | 'B' | 'x' | 'X' | 'n' | 'N' if escape(1) => {
                Token::Text(self.take(self.quoted(1, b'\'', false)))
            }
            'u' | 'U' if self.rest.get(1..3) == Some("&'") => {
                Token::Text(self.take(self.quoted(2, b'\'', false)))
            }
            '"' => Token::Quoted(self.take(self.quoted(0, b'"', false))),
            c if c.is_ascii_digit() => {
                Token::Number(self.take(self.while_(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')))
            }
            c if c.is_alphabetic() || c == '_' => {
                Token::Word(self.take(self.while_(|c| c.is_alphanumeric() || c == '_' || c == '$')))
            }
            // A parameter is no value, and stays.
            '$' if bytes.get(1).is_some_and(u8::is_ascii_digit) => {
                let digits = self.rest.get(1..).unwrap_or("");
                let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                Token::Other(self.take(1 + length))
            }
            c => Token::Other(self.take(c.len_utf8())),
        })
    }
}

fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

/// Statements about rows: their values are data.
fn is_about_rows(tag: &str) -> bool {
    matches!(tag, "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "SELECT" | "COPY" | "CALL" | "EXECUTE")
}

/// A statement in one line, without comments, and with its values replaced by `?`. Definitions keep theirs (a default is part
/// of what is defined), unless they might hold a secret.
pub fn without_values(tag: &str, text: &str) -> String {
    let lower = text.to_lowercase();
    let defines = ["CREATE ", "ALTER ", "DROP ", "COMMENT"].iter().any(|d| tag.starts_with(d));
    let keep_texts = defines && !SENSITIVE.iter().any(|word| lower.contains(word));
    let keep_numbers = !is_about_rows(tag);
    let mut out = String::new();
    let mut length = 0;
    for token in tokens(text.trim().trim_end_matches(';')) {
        let piece = match token {
            Token::Word(p) | Token::Quoted(p) | Token::Other(p) => p,
            Token::Text(p) if keep_texts => p,
            Token::Number(p) if keep_numbers => p,
            Token::Text(_) | Token::Number(_) => "?",
            Token::Blank if out.is_empty() || out.ends_with(' ') => continue,
            Token::Blank => " ",
        };
        length += piece.chars().count();
        if length > LONGEST {
            out.push('…');
            break;
        }
        out.push_str(piece);
    }
    out.truncate(out.trim_end().len());
    out
}

/// The tables that a statement locks by itself and how, where its own text is the only source: there is no event for it.
/// Names are as the statement writes them, perhaps without a schema.
pub(super) fn locked_by_text(tag: &str, text: &str) -> Option<(Lock, Vec<String>)> {
    let all: Vec<Token<'_>> = tokens(text).filter(|t| *t != Token::Blank).collect();
    let has = |word: &str| all.iter().any(|t| is_word(t, word));
    let after = |word: &str| all.iter().position(|t| is_word(t, word)).map(|at| names(&all, at + 1));
    let (lock, found) = match tag {
        "TRUNCATE TABLE" => (Lock::AccessExclusive, after("truncate")),
        "LOCK TABLE" => (mode(&all).unwrap_or(Lock::AccessExclusive), after("lock")),
        "CLUSTER" => (Lock::AccessExclusive, after("cluster")),
        "VACUUM" if has("full") => (Lock::AccessExclusive, after("vacuum")),
        "VACUUM" => (Lock::ShareUpdateExclusive, after("vacuum")),
        "ANALYZE" => (Lock::ShareUpdateExclusive, after("analyze").or_else(|| after("analyse"))),
        // Its last transaction has given the lock back when the event looks.
        "CREATE INDEX" if has("concurrently") => (Lock::ShareUpdateExclusive, after("on")),
        "REINDEX" if has("table") => {
            let lock = if has("concurrently") { Lock::ShareUpdateExclusive } else { Lock::Share };
            (lock, after("reindex"))
        }
        "INSERT" | "MERGE" => (Lock::RowExclusive, after("into")),
        "UPDATE" => (Lock::RowExclusive, after("update")),
        "DELETE" => (Lock::RowExclusive, after("from")),
        "COPY" if copies_in(&all) => (Lock::RowExclusive, after("copy")),
        _ => return None,
    };
    let mut found = found?;
    if !matches!(tag, "TRUNCATE TABLE" | "LOCK TABLE" | "VACUUM" | "ANALYZE") {
        found.truncate(1);
    }
    (!found.is_empty()).then_some((lock, found))
}

/// Whether `COPY` fills the table: `FROM` follows its name and columns.
fn copies_in(all: &[Token<'_>]) -> bool {
    let words = all.iter().position(|t| is_word(t, "copy")).map(|at| names_end(all, at + 1));
    words.is_some_and(|at| all.get(at).is_some_and(|t| is_word(t, "from")))
}

/// Where the name and columns of a table end.
fn names_end(all: &[Token<'_>], from: usize) -> usize {
    let name = |t: &Token<'_>| component(t).is_some() && !is_word(t, "from") && !is_word(t, "to");
    let mut at = from;
    while all.get(at).is_some_and(|t| name(t) || *t == Token::Other(".")) {
        at += 1;
    }
    after_parentheses(all, at)
}

fn is_word(token: &Token<'_>, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word))
}

/// The mode that `LOCK TABLE … IN … MODE` names.
fn mode(all: &[Token<'_>]) -> Option<Lock> {
    let from = all.iter().position(|t| is_word(t, "in"))? + 1;
    let words: Vec<&str> = all
        .get(from..)?
        .iter()
        .map_while(|t| match t {
            Token::Word(word) if !word.eq_ignore_ascii_case("mode") => Some(*word),
            _ => None,
        })
        .collect();
    Lock::parse(&words.join(" "))
}

/// Words that may stand between a command and its first name.
const BETWEEN: [&str; 9] = [
    "table",
    "only",
    "verbose",
    "full",
    "freeze",
    "analyze",
    "analyse",
    "concurrently",
    "disable_page_skipping",
];

/// A list of names: `[ONLY] a.b [(columns)], c`.
fn names(all: &[Token<'_>], from: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = from;
    // Options in parentheses come before the first name.
    at = after_parentheses(all, at);
    loop {
        while all.get(at).is_some_and(|t| BETWEEN.iter().any(|w| is_word(t, w))) {
            at += 1;
        }
        let mut name = String::new();
        while let Some(piece) = all.get(at).and_then(component) {
            name.push_str(&piece);
            at += 1;
            if all.get(at) != Some(&Token::Other(".")) {
                break;
            }
            name.push('.');
            at += 1;
        }
        if name.is_empty() {
            return found;
        }
        found.push(name);
        if all.get(at) == Some(&Token::Other("*")) {
            at += 1;
        }
        at = after_parentheses(all, at);
        if all.get(at) != Some(&Token::Other(",")) {
            return found;
        }
        at += 1;
    }
}

/// A part of a name as the server keeps it.
fn component(token: &Token<'_>) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.to_lowercase()),
        Token::Quoted(quoted) => {
            let inner = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'))?;
            Some(inner.replace("\"\"", "\""))
        }
        _ => None,
    }
}

fn after_parentheses(all: &[Token<'_>], at: usize) -> usize {
    if all.get(at) != Some(&Token::Other("(")) {
        return at;
    }
    let mut depth = 0;
    for (i, token) in all.iter().enumerate().skip(at) {
        match token {
            Token::Other("(") => depth += 1,
            Token::Other(")") => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    all.len()
}

/// What a statement means for going back without a copy of the data. `rewrite` has the server's reasons for writing tables
/// anew, as bits.
pub fn effect(tag: &str, text: &str, dropped: &[Dropped], rewrite: u32) -> Effect {
    const TYPE_CHANGED: u32 = 4;
    let has = |words: &[&str]| {
        let all: Vec<Token<'_>> = tokens(text).filter(|t| *t != Token::Blank).collect();
        all.windows(words.len()).any(|w| w.iter().zip(words).all(|(t, word)| is_word(t, word)))
    };
    let data = ["table", "foreign table", "table column", "schema", "large object", "domain"];
    if rewrite & TYPE_CHANGED != 0 || dropped.iter().any(|d| data.contains(&d.kind.as_str())) {
        return Effect::Destroys;
    }
    match tag {
        "UPDATE" | "DELETE" | "MERGE" | "TRUNCATE TABLE" | "DROP TABLE" | "DROP SCHEMA" | "DROP DATABASE" => {
            Effect::Destroys
        }
        "INSERT" if has(&["do", "update"]) => Effect::Destroys,
        "INSERT" | "COPY" | "COMMENT" | "REFRESH MATERIALIZED VIEW" | "SELECT" => Effect::Adds,
        _ if !dropped.is_empty() => Effect::Redefines,
        "VACUUM" | "ANALYZE" | "CLUSTER" | "REINDEX" | "LOCK TABLE" | "CHECKPOINT" => Effect::Adds,
        "ALTER TABLE" if has(&["add"]) => Effect::Adds,
        // What a block or a procedure did besides is not known.
        "DO" | "CALL" => Effect::Redefines,
        _ if tag.starts_with("CREATE ") && !has(&["or", "replace"]) => Effect::Adds,
        _ => Effect::Redefines,
    }
}
