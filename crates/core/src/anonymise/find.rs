//! Finding columns that are likely to hold personal data or secrets, by name, type and sampled values.
//!
//! Owns what is looked for. It proposes and never decides; values appear only redacted.

use super::{Column, Family, Mask};
use serde::{Deserialize, Serialize};

/// How likely it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Likelihood {
    /// Only the name or only some values say so.
    Maybe,
    /// Most values have the form.
    Likely,
}

impl Likelihood {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maybe => "maybe",
            Self::Likely => "likely",
        }
    }
}

/// A column and some of its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The column.
    pub column: Column,
    /// Values as text, without nulls; shortened.
    pub values: Vec<String>,
}

/// What a column is likely to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The mask that fits.
    pub mask: Mask,
    /// How likely.
    pub likelihood: Likelihood,
    /// Why, in words.
    pub why: String,
    /// A value, redacted.
    pub example: Option<String>,
}

/// A form that values have.
struct Form {
    what: &'static str,
    mask: Mask,
    is: fn(&str) -> bool,
}

/// In order: the first form that most values have counts.
const FORMS: [Form; 9] = [
    Form { what: "e-mail addresses", mask: Mask::Email, is: email },
    Form { what: "private keys", mask: Mask::Null, is: |v| v.contains("PRIVATE KEY-----") },
    Form { what: "signed tokens (JWT)", mask: Mask::Token, is: jwt },
    Form { what: "password hashes", mask: Mask::Token, is: password_hash },
    Form { what: "keys of a service", mask: Mask::Token, is: service_key },
    Form { what: "card numbers", mask: Mask::Token, is: card },
    Form { what: "bank accounts (IBAN)", mask: Mask::Token, is: iban },
    Form { what: "IP addresses", mask: Mask::Token, is: |v| v.parse::<std::net::IpAddr>().is_ok() },
    Form { what: "telephone numbers", mask: Mask::Phone, is: phone },
];

/// Words in names of columns, with what they tell. Longer ones first where one contains another.
const NAMES: [(&str, Mask); 34] = [
    ("email", Mask::Email),
    ("e_mail", Mask::Email),
    ("mail", Mask::Email),
    ("first_name", Mask::Name),
    ("firstname", Mask::Name),
    ("last_name", Mask::Name),
    ("lastname", Mask::Name),
    ("surname", Mask::Name),
    ("fullname", Mask::Name),
    ("full_name", Mask::Name),
    ("display_name", Mask::Name),
    ("username", Mask::Hash),
    ("nickname", Mask::Name),
    ("phone", Mask::Phone),
    ("mobile", Mask::Phone),
    ("telephone", Mask::Phone),
    ("street", Mask::Address),
    ("address", Mask::Address),
    ("postcode", Mask::Hash),
    ("zip", Mask::Hash),
    ("birth", Mask::DateShift),
    ("dob", Mask::DateShift),
    ("password", Mask::Token),
    ("passwd", Mask::Token),
    ("secret", Mask::Token),
    ("api_key", Mask::Token),
    ("apikey", Mask::Token),
    ("token", Mask::Token),
    ("credential", Mask::Token),
    ("ssn", Mask::Hash),
    ("iban", Mask::Token),
    ("passport", Mask::Hash),
    ("ip_address", Mask::Token),
    ("salary", Mask::Null),
];

/// Of all values, so many must have a form for it to be taken for the column's.
const MOST_PERCENT: usize = 60;

/// What a column is likely to hold, if anything personal or secret.
pub fn propose(sample: &Sample) -> Option<Finding> {
    let column = &sample.column;
    if column.computed || matches!(column.family, Family::Other) {
        return None;
    }
    let values: Vec<&str> = sample.values.iter().map(|v| v.trim()).filter(|v| !v.is_empty()).collect();
    if most(&values, |v| v.ends_with("@example.invalid") || (v.starts_with("+999") && v.len() == 13))
        .is_some()
    {
        return None; // masked already
    }
    let by_name = named(&column.name);
    if matches!(column.family, Family::Text | Family::Any | Family::Json) {
        if column.family != Family::Json
            && let Some((form, count)) = FORMS.iter().find_map(|f| most(&values, f.is).map(|n| (f, n)))
            // Telephone numbers look like many other numbers: the name must not speak against it.
            && (form.mask != Mask::Phone || by_name == Some(Mask::Phone))
        {
            return Some(Finding {
                mask: fitting(column, form.mask),
                likelihood: Likelihood::Likely,
                why: format!("{count} of {} values are {}", values.len(), form.what),
                example: values.iter().find(|v| (form.is)(v)).map(|v| redacted(v)),
            });
        }
        let within =
            values.iter().filter(|v| v.split(delimiter).any(|w| email(w) || jwt(w) || service_key(w)));
        let count = within.clone().count();
        if count > 0 {
            return Some(Finding {
                mask: if column.family == Family::Json { Mask::Text } else { fitting(column, Mask::Text) },
                likelihood: Likelihood::Maybe,
                why: format!("{count} of {} values have addresses or keys in them", values.len()),
                example: within.clone().next().map(|v| redacted(v)),
            });
        }
    }
    let mask = by_name?;
    let fits = match column.family {
        Family::Text | Family::Any => !values.is_empty() || sample.values.is_empty(),
        Family::Date => mask == Mask::DateShift,
        Family::Integer(_) | Family::Decimal => matches!(mask, Mask::Phone | Mask::Hash | Mask::Null),
        _ => false,
    };
    fits.then(|| Finding {
        mask: fitting(column, mask),
        likelihood: Likelihood::Maybe,
        why: format!("it is called {}", column.name),
        example: values.first().map(|v| redacted(v)),
    })
}

/// The mask, or what comes nearest to it for the column.
fn fitting(column: &Column, mask: Mask) -> Mask {
    if super::unfit(column, mask).is_none() {
        return mask;
    }
    [Mask::Hash, Mask::Token, Mask::Text]
        .into_iter()
        .find(|m| super::unfit(column, *m).is_none())
        .unwrap_or(Mask::Null)
}

fn named(name: &str) -> Option<Mask> {
    let name = name.to_lowercase();
    if name == "name" {
        return None; // of a workflow, a product, a town: values must tell
    }
    // `userId`, `token_type`: not the thing itself.
    if ["_id", "_type", "_count", "_at", "_expires", "_verified"].iter().any(|end| name.ends_with(end)) {
        return None;
    }
    NAMES.iter().find(|(word, _)| name.contains(word)).map(|(_, mask)| *mask)
}

fn most(values: &[&str], is: fn(&str) -> bool) -> Option<usize> {
    let count = values.iter().filter(|v| is(v)).count();
    (count > 0 && count * 100 >= values.len() * MOST_PERCENT).then_some(count)
}

/// A value without what it says: its first two characters and its length.
pub fn redacted(value: &str) -> String {
    let count = value.chars().count();
    let head: String = value.chars().take(2).filter(|c| !c.is_control()).collect();
    if count <= 4 { format!("({count} characters)") } else { format!("{head}… ({count} characters)") }
}

fn delimiter(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '"' | '\'' | '<' | '>' | ',' | ';' | '(' | ')' | '=' | ':' | '[' | ']' | '{' | '}')
}

fn email(value: &str) -> bool {
    let Some((local, domain)) = value.split_once('@') else { return false };
    let word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '%');
    !local.is_empty()
        && local.chars().all(word)
        && domain.contains('.')
        && !domain.starts_with('.')
        && domain.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-'))
        && domain.rsplit('.').next().is_some_and(|end| end.len() >= 2 && end.chars().all(char::is_alphabetic))
        && !domain.ends_with("example.invalid")
}

fn base64(value: &str) -> bool {
    value.len() >= 8
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/' | b'='))
}

fn jwt(value: &str) -> bool {
    let parts: Vec<&str> = value.split('.').collect();
    parts.len() == 3 && value.starts_with("eyJ") && parts.iter().all(|p| base64(p))
}

fn password_hash(value: &str) -> bool {
    ["$2a$", "$2b$", "$2y$", "$argon2", "$scrypt$", "$6$", "$5$", "$1$", "pbkdf2_", "{SSHA"]
        .iter()
        .any(|p| value.starts_with(p))
}

fn service_key(value: &str) -> bool {
    const BEGIN: [&str; 11] = [
        "sk-",
        "sk_live_",
        "rk_live_",
        "xoxb-",
        "xoxp-",
        "xapp-",
        "ghp_",
        "gho_",
        "github_pat_",
        "AKIA",
        "glpat-",
    ];
    value.len() >= 16 && BEGIN.iter().any(|b| value.starts_with(b)) && base64(value)
}

/// Digits, with at most blanks and hyphens between them.
fn digits(value: &str) -> Option<Vec<u32>> {
    let plain = value.chars().filter(|c| !matches!(c, ' ' | '-'));
    plain.map(|c| c.to_digit(10)).collect()
}

/// 13 to 19 digits with a check digit (ISO/IEC 7812-1, annex B: Luhn).
fn card(value: &str) -> bool {
    let Some(digits) = digits(value) else { return false };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| if i % 2 == 0 { *d } else { d * 2 / 10 + d * 2 % 10 })
        .sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10) && digits.iter().any(|d| *d != 0)
}

/// Two letters, two digits, and a remainder of 1 by 97 (ISO 13616).
fn iban(value: &str) -> bool {
    let plain: String = value.chars().filter(|c| *c != ' ').collect();
    if !(15..=34).contains(&plain.len()) || !plain.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return false;
    }
    let (head, tail) = plain.split_at(4);
    if !head.bytes().take(2).all(|b| b.is_ascii_uppercase())
        || !head.bytes().skip(2).all(|b| b.is_ascii_digit())
    {
        return false;
    }
    let mut rest = 0u32;
    for c in tail.chars().chain(head.chars()) {
        let Some(n) = c.to_digit(36) else { return false };
        rest = if n < 10 { rest * 10 + n } else { rest * 100 + n } % 97;
    }
    rest == 1
}

fn phone(value: &str) -> bool {
    let count = value.chars().filter(char::is_ascii_digit).count();
    (7..=15).contains(&count)
        && value.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | ' ' | '-' | '(' | ')' | '/' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, family: Family, values: &[&str]) -> Sample {
        let column = Column {
            database: String::new(),
            schema: String::new(),
            table: "t".into(),
            name: name.into(),
            family,
            sql_type: String::new(),
            array: false,
            limit: None,
            required: false,
            computed: false,
        };
        Sample { column, values: values.iter().map(|v| (*v).to_owned()).collect() }
    }

    fn mask(name: &str, values: &[&str]) -> Option<(Mask, Likelihood)> {
        propose(&sample(name, Family::Text, values)).map(|f| (f.mask, f.likelihood))
    }

    #[test]
    fn values_tell_what_a_column_holds() {
        use Likelihood::{Likely, Maybe};
        assert_eq!(mask("contact", &["ada@example.org", "eve@example.com"]), Some((Mask::Email, Likely)));
        assert_eq!(mask("x", &["$2b$12$abcdefghijklmnopqrstuv"]), Some((Mask::Token, Likely)));
        assert_eq!(mask("x", &["eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"]), Some((Mask::Token, Likely)));
        assert_eq!(mask("x", &["4111 1111 1111 1111"]), Some((Mask::Token, Likely)));
        assert_eq!(mask("x", &["4111 1111 1111 1112"]), None);
        assert_eq!(mask("x", &["DE89 3704 0044 0532 0130 00"]), Some((Mask::Token, Likely)));
        assert_eq!(mask("x", &["DE89 3704 0044 0532 0130 01"]), None);
        assert_eq!(mask("phone", &["+49 30 123456"]), Some((Mask::Phone, Likely)));
        assert_eq!(mask("amount", &["1234567"]), None);
        assert_eq!(mask("body", &["write to ada@example.org soon", "nothing"]), Some((Mask::Text, Maybe)));
        assert_eq!(mask("first_name", &["Ada"]), Some((Mask::Name, Maybe)));
        for harmless in ["title", "name", "user_id", "token_type", "status"] {
            assert_eq!(mask(harmless, &["open", "done"]), None, "{harmless}");
        }
        let born = sample("birthday", Family::Date, &["2001-02-03"]);
        assert_eq!(propose(&born).map(|f| f.mask), Some(Mask::DateShift));
        let json = sample("data", Family::Json, &["{\"mail\": \"ada@example.org\"}"]);
        assert_eq!(propose(&json).map(|f| f.mask), Some(Mask::Text));
    }

    #[test]
    fn no_value_is_ever_shown() {
        let finding = propose(&sample("email", Family::Text, &["ada@example.org"])).expect("found");
        assert_eq!(finding.example.as_deref(), Some("ad… (15 characters)"));
        assert!(!format!("{finding:?}").contains("example.org"));
        assert_eq!(redacted("1234"), "(4 characters)");
        assert_eq!(redacted("\u{1b}[2Jabcdef"), "[… (10 characters)");
    }

    #[test]
    fn what_was_masked_is_not_proposed_again() {
        let key = super::super::Key::new([1; 32]);
        let masked = super::super::masked(&key, Mask::Email, "ada@example.org", None);
        assert_eq!((mask("contact", &[&masked]), mask("email", &[&masked])), (None, None));
    }
}
