//! `{...}` in commands, environment and paths of a service.

use std::fmt;

/// A placeholder that cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No such placeholder.
    #[error("unknown placeholder {{{name}}} in {text:?}")]
    Unknown {
        /// Text between the braces.
        name: String,
        /// The whole text.
        text: String,
    },
    /// A `{` without `}`.
    #[error("a {{ without }} in {text:?}; write {{{{ for a literal brace")]
    Unclosed {
        /// The whole text.
        text: String,
    },
}

/// A placeholder, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder<'a> {
    /// `{version}`: the service's version.
    Version,
    /// `{release}`: absolute path of the artefact.
    Release,
    /// `{stack}`: absolute path of the stack's folder.
    Stack,
    /// `{store.NAME}`: absolute path of the store in this generation.
    Store(&'a str),
    /// `{port.NAME}`: a port of this service in this environment.
    Port(&'a str),
    /// `{port.SERVICE.NAME}`: a port of another service in this environment.
    PortOf(&'a str, &'a str),
    /// `{env.NAME}`: a variable of the environment Switchback was called in.
    Env(&'a str),
}

impl fmt::Display for Placeholder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("version"),
            Self::Release => f.write_str("release"),
            Self::Stack => f.write_str("stack"),
            Self::Store(n) => write!(f, "store.{n}"),
            Self::Port(n) => write!(f, "port.{n}"),
            Self::PortOf(s, n) => write!(f, "port.{s}.{n}"),
            Self::Env(n) => write!(f, "env.{n}"),
        }
    }
}

fn parse(name: &str) -> Option<Placeholder<'_>> {
    Some(match name.split_once('.') {
        None => match name {
            "version" => Placeholder::Version,
            "release" => Placeholder::Release,
            "stack" => Placeholder::Stack,
            _ => return None,
        },
        Some(("store", rest)) => Placeholder::Store(rest),
        Some(("env", rest)) => Placeholder::Env(rest),
        Some(("port", rest)) => match rest.split_once('.') {
            None => Placeholder::Port(rest),
            Some((service, port)) => Placeholder::PortOf(service, port),
        },
        Some(_) => return None,
    })
}

/// Replaces every placeholder by what `fill` returns; `{{` and `}}` are literal braces.
///
/// `fill` returns `None` for something that does not exist, which is an error.
pub fn expand(
    text: &str,
    mut fill: impl FnMut(&Placeholder<'_>) -> Option<String>,
) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        if let Some(after) = tail.strip_prefix("{{") {
            out.push('{');
            rest = after;
        } else if let Some(after) = tail.strip_prefix("}}") {
            out.push('}');
            rest = after;
        } else if let Some(after) = tail.strip_prefix('}') {
            out.push('}');
            rest = after;
        } else {
            let inner = tail.get(1..).unwrap_or("");
            let Some(end) = inner.find('}') else {
                return Err(TemplateError::Unclosed { text: text.to_owned() });
            };
            let name = inner.get(..end).unwrap_or("");
            let unknown = || TemplateError::Unknown { name: name.to_owned(), text: text.to_owned() };
            let placeholder = parse(name).ok_or_else(unknown)?;
            out.push_str(&fill(&placeholder).ok_or_else(unknown)?);
            rest = inner.get(end + 1..).unwrap_or("");
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_braces_escaped() {
        let fill = |p: &Placeholder<'_>| Some(format!("<{p}>"));
        assert_eq!(
            expand("{release}/bin -p {port.http} {{x}} {store.db}{env.A}", fill).expect("valid"),
            "<release>/bin -p <port.http> {x} <store.db><env.A>"
        );
        assert!(matches!(expand("{nope}", fill), Err(TemplateError::Unknown { .. })));
        assert!(matches!(expand("a {b", fill), Err(TemplateError::Unclosed { .. })));
        assert!(expand("{env.A}", |_| None).is_err());
    }
}
