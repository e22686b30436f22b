//! Paths, ports and versions inside commands and variables: finding them, and replacing them by placeholders.

use std::path::{Component, Path, PathBuf};

/// A place that has a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Absolute path.
    pub path: PathBuf,
    /// What stands for it, without braces: `store.db`.
    pub placeholder: String,
    /// Whether paths below it can be written with the placeholder.
    pub folder: bool,
}

/// A path that a value names and that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// Absolute path, without `.` and `..`.
    pub path: PathBuf,
    /// The option or variable it belongs to, or an empty text.
    pub key: String,
}

/// What can be replaced.
#[derive(Debug, Clone, Default)]
pub(super) struct Substitution {
    /// The folder that relative paths start from.
    pub base: PathBuf,
    /// Places, the most special first.
    pub known: Vec<Known>,
    /// Ports by number.
    pub ports: Vec<(u16, String)>,
    /// The version, if it is one that can be recognised.
    pub version: Option<String>,
}

enum Piece {
    Text(String),
    Placeholder(String),
}

/// Characters that end a path inside a longer value.
const SEPARATORS: [char; 16] =
    [' ', '\t', '\n', '=', ',', ';', ':', '"', '\'', '(', ')', '?', '&', '|', '<', '>'];

/// Removes `.` and `..` without looking at the disk.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Splits a value into tokens and separators; joined they are the value.
fn tokens(value: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        let end = if SEPARATORS.contains(&first) {
            first.len_utf8()
        } else {
            rest.find(SEPARATORS).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(end);
        parts.push(token);
        rest = after;
    }
    parts
}

/// `--key=value` as its two parts; anything else is all value.
fn option_value(word: &str) -> (&str, &str) {
    match word.find('=') {
        Some(at) if word.starts_with('-') => word.split_at(at + 1),
        _ => ("", word),
    }
}

/// The path that a token names, if it exists.
///
/// A bare word counts only as a file, or as a folder where an option or variable asks for a value:
/// a subcommand `serve` is not the folder of that name.
fn existing(token: &str, base: &Path, valued: bool) -> Option<PathBuf> {
    if token.is_empty() || token.starts_with('-') || token.contains('\0') {
        return None;
    }
    // `file:///srv/x` leaves `///srv/x`, which is `/srv/x`; `//host/x` is not a path.
    let slashes = token.len() - token.trim_start_matches('/').len();
    let path = match slashes {
        0 | 1 => normal(&base.join(token)),
        2 => return None,
        _ => PathBuf::from(format!("/{}", token.trim_start_matches('/'))),
    };
    let found = std::fs::metadata(&path).ok()?;
    let bare = !token.contains('/');
    (!bare || found.is_file() || (valued && found.is_dir() && token != ".")).then_some(path)
}

/// Every existing path that the words of a command name.
pub fn mentions(words: &[String], base: &Path) -> Vec<Mention> {
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|i| words.get(i)).map_or("", String::as_str);
        let (key, value) = option_value(word);
        let key =
            if key.is_empty() && before.starts_with('-') && !before.contains('=') { before } else { key };
        found.extend(mentions_of(value, key.trim_end_matches('='), base));
    }
    found
}

/// Every existing path that the value of an option or variable names.
pub(super) fn mentions_of(value: &str, key: &str, base: &Path) -> Vec<Mention> {
    let mention = |path| Mention { path, key: key.to_owned() };
    let valued = !key.is_empty();
    if let Some(path) = existing(value, base, valued) {
        return vec![mention(path)];
    }
    let database = value.strip_prefix("sqlite:///").and_then(|rest| existing(rest, base, valued));
    if let Some(path) = database {
        return vec![mention(path)];
    }
    tokens(value).into_iter().filter_map(|t| existing(t, base, valued)).map(mention).collect()
}

impl Substitution {
    /// The words of a command with placeholders; braces that are meant literally are doubled.
    pub fn words(&self, words: &[String]) -> Vec<String> {
        let valued = |i: usize| {
            let before = i.checked_sub(1).and_then(|i| words.get(i)).map_or("", String::as_str);
            before.starts_with('-') && !before.contains('=')
        };
        words
            .iter()
            .enumerate()
            .map(|(i, word)| {
                let (key, value) = option_value(word);
                let known_key = if key.is_empty() && !valued(i) { "" } else { "option" };
                format!("{}{}", escape(key), self.value(value, known_key))
            })
            .collect()
    }

    /// A value with placeholders.
    pub fn value(&self, value: &str, key: &str) -> String {
        let valued = !key.is_empty();
        let pieces = match self.place(value, valued) {
            Some(pieces) => pieces,
            None => self.pieces(value, valued),
        };
        let mut out = String::new();
        for piece in pieces {
            match piece {
                Piece::Placeholder(name) => out.push_str(&format!("{{{name}}}")),
                Piece::Text(text) => out.push_str(&self.numbers(&text, value, key)),
            }
        }
        out
    }

    fn pieces(&self, value: &str, valued: bool) -> Vec<Piece> {
        let relative = value.strip_prefix("sqlite:///").filter(|r| !r.starts_with('/'));
        if let Some(pieces) = relative.and_then(|r| self.place(r, valued)) {
            let mut all = vec![Piece::Text("sqlite:///".to_owned())];
            all.extend(pieces);
            return all;
        }
        let mut all: Vec<Piece> = Vec::new();
        for token in tokens(value) {
            match self.place(token, valued) {
                Some(pieces) => all.extend(pieces),
                None => match all.last_mut() {
                    Some(Piece::Text(text)) => text.push_str(token),
                    _ => all.push(Piece::Text(token.to_owned())),
                },
            }
        }
        all
    }

    /// A token that names a known place.
    fn place(&self, token: &str, valued: bool) -> Option<Vec<Piece>> {
        if token.is_empty() || token.starts_with('-') || SEPARATORS.iter().any(|s| token == s.to_string()) {
            return None;
        }
        let slashes = token.len() - token.trim_start_matches('/').len();
        if slashes == 2 {
            return None;
        }
        let (lead, path) = if slashes > 2 {
            let (lead, path) = token.split_at(slashes - 1);
            (lead, PathBuf::from(path))
        } else {
            ("", self.base.join(token))
        };
        let path = normal(&path);
        let exists = existing(token, &self.base, valued).is_some();
        if !token.contains('/') && !exists {
            return None;
        }
        let (known, rest) = self.find(&path, exists)?;
        let mut pieces = vec![Piece::Text(lead.to_owned()), Piece::Placeholder(known.placeholder.clone())];
        if !rest.as_os_str().is_empty() {
            pieces.push(Piece::Text(format!("/{}", rest.to_str()?)));
        }
        if token.len() > 1 && token.ends_with('/') {
            pieces.push(Piece::Text("/".to_owned()));
        }
        Some(pieces)
    }

    fn find(&self, path: &Path, exists: bool) -> Option<(&Known, PathBuf)> {
        let real = if exists { path.canonicalize().ok() } else { None };
        let below = |known: &Known, place: &Path, path: &Path| {
            let rest = path.strip_prefix(place).ok()?.to_owned();
            let fits = rest.as_os_str().is_empty() || known.folder;
            // Whatever does not exist in the stack's folder may be a word that looks like a path.
            (fits && (exists || known.placeholder != "stack")).then_some(rest)
        };
        // By the words first: the link in a release leads out of it, and the link is what is meant.
        let lexical = || self.known.iter().find_map(|k| Some((k, below(k, &k.path, path)?)));
        let by_link = || {
            let real = real.as_deref()?;
            self.known.iter().find_map(|k| Some((k, below(k, &k.path.canonicalize().ok()?, real)?)))
        };
        lexical().or_else(by_link)
    }

    /// Replaces ports and the version in text that is no known place, and doubles braces.
    fn numbers(&self, text: &str, whole: &str, key: &str) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < text.len() {
            let (before, rest) = text.split_at(at);
            let digit_before =
                before.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '.');
            if let Some(version) = self.version.as_deref().filter(|v| rest.starts_with(*v))
                && !digit_before
                && ends_number(rest, version.len())
            {
                out.push_str("{version}");
                at += version.len();
                continue;
            }
            let port = self.ports.iter().find(|(number, _)| {
                let number = number.to_string();
                rest.starts_with(&number)
                    && !rest
                        .get(number.len()..)
                        .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_alphanumeric()))
                    && (whole == number
                        || is_local_port(before)
                        || (before.ends_with('=') && about_ports(before, key)))
            });
            if let Some((number, name)) = port {
                out.push_str(&format!("{{port.{name}}}"));
                at += number.to_string().len();
                continue;
            }
            let Some(c) = rest.chars().next() else { break };
            out.push_str(&escape(c.encode_utf8(&mut [0; 4])));
            at += c.len_utf8();
        }
        out
    }
}

/// Whether a number ends here: not `1.2.3` in `1.2.34` or `1.2.3.4`.
fn ends_number(rest: &str, length: usize) -> bool {
    let mut after = rest.get(length..).unwrap_or("").chars();
    match after.next() {
        Some('.') => !after.next().is_some_and(|c| c.is_ascii_digit()),
        Some(c) => !c.is_ascii_alphanumeric(),
        None => true,
    }
}

/// Whether what stands before a number is a host of this machine and a colon.
fn is_local_port(before: &str) -> bool {
    let Some(host) = before.strip_suffix(':') else { return false };
    let start =
        host.rfind(|c: char| !(c.is_ascii_alphanumeric() || ".-[]:*_".contains(c))).map_or(0, |i| i + 1);
    let host = host.get(start..).unwrap_or("").to_ascii_lowercase();
    let address = host.trim_matches(['[', ']']);
    matches!(address, "" | "localhost" | "*" | "::" | "::1" | "0.0.0.0" | "tcp")
        || address.starts_with("127.")
}

fn about_ports(before: &str, key: &str) -> bool {
    let text = format!("{key} {before}").to_ascii_lowercase();
    ["port", "listen", "bind", "addr"].iter().any(|word| text.contains(word))
}

/// Doubles braces, so that they are taken literally.
pub(super) fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn sample() -> (tempfile::TempDir, Substitution) {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("exists");
        for folder in ["data", "releases/1.0.0/bin", "web", "my files"] {
            fs::create_dir_all(root.join(folder)).expect("mkdir");
        }
        for file in ["data/a.db", "releases/1.0.0/bin/app", "server.py"] {
            fs::write(root.join(file), b"").expect("write");
        }
        let known = |path: &str, placeholder: &str, folder| Known {
            path: root.join(path),
            placeholder: placeholder.into(),
            folder,
        };
        let substitution = Substitution {
            base: root.clone(),
            known: vec![
                known("data/a.db", "store.db", false),
                known("my files", "store.files", true),
                known("releases/1.0.0", "release", true),
                known("", "stack", true),
            ],
            ports: vec![(8765, "http".into())],
            version: Some("1.0.0".into()),
        };
        (dir, substitution)
    }

    #[test]
    fn places_ports_and_versions_become_placeholders() {
        let (_dir, s) = sample();
        let root = s.base.to_string_lossy().into_owned();
        for (value, expected) in [
            ("releases/1.0.0/bin/app", "{release}/bin/app"),
            (&format!("{root}/data/a.db"), "{store.db}"),
            ("data/../data/a.db", "{store.db}"),
            ("sqlite:///data/a.db", "sqlite:///{store.db}"),
            (&format!("sqlite:///{root}/data/a.db?mode=rw"), "sqlite:///{store.db}?mode=rw"),
            (&format!("file:{root}/data/a.db"), "file:{store.db}"),
            (&format!("{root}/my files/x"), "{store.files}/x"),
            ("web/", "{stack}/web/"),
            ("server.py", "{stack}/server.py"),
            ("127.0.0.1:8765", "127.0.0.1:{port.http}"),
            (":8765", ":{port.http}"),
            ("8765", "{port.http}"),
            ("http://localhost:8765/x", "http://localhost:{port.http}/x"),
            ("http://db.example.com:8765/x", "http://db.example.com:8765/x"),
            ("18765", "18765"),
            ("app-1.0.0.jar", "app-{version}.jar"),
            ("1.0.0.1", "1.0.0.1"),
            ("web", "web"),
            ("a{b}c", "a{{b}}c"),
            ("//host/data/a.db", "//host/data/a.db"),
            ("data/a.db-wal", "data/a.db-wal"),
        ] {
            assert_eq!(s.value(value, ""), expected, "{value}");
        }
        let words = ["x", "--web", "web", "web", "--port=8765", "--size=8765"].map(str::to_owned);
        assert_eq!(
            s.words(&words),
            ["x", "--web", "{stack}/web", "web", "--port={port.http}", "--size={port.http}"]
        );
    }

    #[test]
    fn mentions_are_existing_paths_with_their_option() {
        let (_dir, s) = sample();
        let words = ["app", "--db", "data/a.db", "--web=web", "serve", "/nowhere"].map(str::to_owned);
        let found = mentions(&words, &s.base);
        let keys: Vec<&str> = found.iter().map(|m| m.key.as_str()).collect();
        assert_eq!(keys, ["--db", "--web"]);
    }
}
