//! Environment variables: which were set for the service, and which are secrets.

use super::substitute::Substitution;

/// `PATH` keeps the caller's entries as `{env.PATH}`.
pub(super) fn substitute_variable(substitution: &Substitution, key: &str, value: &str) -> String {
    if key != "PATH" {
        return substitution.value(value, key);
    }
    let own = std::env::var("PATH").unwrap_or_default();
    let known: Vec<&str> = own.split(':').collect();
    let mut parts: Vec<String> =
        value.split(':').filter(|p| !known.contains(p)).map(|p| substitution.value(p, key)).collect();
    parts.push("{env.PATH}".to_owned());
    parts.join(":")
}

/// Whether a variable was set for the service, judging by its name: not by a login, a terminal, a build tool.
pub(super) fn worth_keeping(key: &str, value: &str) -> bool {
    const NEVER: [&str; 30] = [
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "TERM",
        "COLORTERM",
        "LS_COLORS",
        "PAGER",
        "EDITOR",
        "VISUAL",
        "MAIL",
        "HOSTNAME",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "XAUTHORITY",
        "DBUS_SESSION_BUS_ADDRESS",
        "USER",
        "LOGNAME",
        "SHELL",
        "XDG_RUNTIME_DIR",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "SYSTEMD_EXEC_PID",
        "NOTIFY_SOCKET",
        "MANAGERPID",
        "MAINPID",
        "WINDOWID",
        "STY",
        "PS1",
        "PROMPT_COMMAND",
    ];
    const PREFIXES: [&str; 23] = [
        "SWITCHBACK_",
        "SSH_",
        "XDG_",
        "TMUX",
        "VTE_",
        "LESS",
        "HIST",
        "SUDO_",
        "GPG_",
        "GNOME_",
        "KDE_",
        "CARGO",
        "RUST",
        "NEXTEST",
        "_",
        "PYENV_",
        "RBENV_",
        "NVM_",
        "ASDF_",
        "MISE_",
        "CONDA_",
        "BASH_",
        "LISTEN_",
    ];
    // These reach every service from the caller; another value was set for the service.
    const PASSED: [&str; 4] = ["HOME", "LANG", "TZ", "TMPDIR"];
    if PASSED.contains(&key) || key.starts_with("LC_") {
        return std::env::var(key).as_deref() != Ok(value);
    }
    if key == "PATH" {
        let own = std::env::var("PATH").unwrap_or_default();
        return value.split(':').any(|p| !own.split(':').any(|o| o == p));
    }
    !NEVER.contains(&key) && !PREFIXES.iter().any(|p| key.starts_with(p))
}

/// Whether a value carries a password: `postgres://user:password@host`.
pub fn secret_value(value: &str) -> bool {
    let authority = value.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    let user = authority.and_then(|a| a.rsplit_once('@')).map(|(user, _)| user);
    user.and_then(|u| u.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
}

/// The kind of server that a value names: `postgres` for `postgresql+psycopg://host/db`.
///
/// Such data is not cloned: staging would talk to production's server.
pub fn external_server(value: &str) -> Option<&'static str> {
    const SERVERS: [&str; 12] = [
        "postgres",
        "mysql",
        "mariadb",
        "mongodb",
        "redis",
        "valkey",
        "amqp",
        "nats",
        "clickhouse",
        "cassandra",
        "mssql",
        "ldap",
    ];
    let (scheme, _) = value.split_once("://")?;
    let scheme =
        scheme.rsplit(|c: char| c.is_whitespace() || "\"'=:".contains(c)).next()?.to_ascii_lowercase();
    SERVERS.into_iter().find(|s| scheme.starts_with(s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchback_core::workflow::is_secret_name;

    #[test]
    fn only_what_was_set_for_the_service_is_kept() {
        for no in ["PWD", "TERM", "SSH_AUTH_SOCK", "XDG_SESSION_ID", "USER", "SWITCHBACK_INSTANCE"] {
            assert!(!worth_keeping(no, "x"), "{no}");
        }
        for yes in ["DATABASE_URL", "ASSISTANT_TOKEN", "PORT"] {
            assert!(worth_keeping(yes, "x"), "{yes}");
        }
        assert!(worth_keeping("HOME", "/nowhere/like/home"));
    }

    #[test]
    fn secrets_are_known_by_name_and_by_value() {
        for name in ["ASSISTANT_TOKEN", "DB_PASSWORD", "API_KEY", "--private-key", "SIGNING_KEY"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["KEYBOARD", "DATABASE", "PORT"] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert_eq!(external_server("postgresql+psycopg://host/db"), Some("postgres"));
        assert_eq!(external_server("jdbc:mysql://host/db"), Some("mysql"));
        assert_eq!(external_server("sqlite:////srv/a.db"), None);
        assert!(secret_value("postgres://me:word@host/db"));
        assert!(!secret_value("postgres://me@host/db"));
        assert!(!secret_value("http://host:8000/a@b"));
    }
}
