use super::*;

const GOOD: &str = r#"
stack: hub
services:
  hub:
    version: 3.1.1
    release: venvs/{version}
    command: ["{release}/bin/jupyterhub", "-f", "conf.py"]
    migrate: ["{release}/bin/jupyterhub", "upgrade-db", "-f", "conf.py"]
    env: { HUB_DB: "{store.db}", HUB_PORT: "{port.http}", PATH: "{release}/bin:{env.PATH}" }
    ports: { http: 8000 }
    health: { http: "/hub/api/health", port: http, stable: 3s, start: 60s }
    config: [conf.py]
stores:
  db: { kind: sqlite, path: data/hub.db }
"#;

fn error_of(text: &str) -> ConfigError {
    Config::parse(text, "switchback.yaml").expect_err("must be refused")
}

#[test]
fn the_example_of_the_design_is_accepted() {
    let config = Config::parse(GOOD, "switchback.yaml").expect("valid");
    assert_eq!(config.rollback.budget, Span::secs(300));
    assert_eq!(config.services["hub"].main_port(), Some("http"));
}

#[test]
fn a_misspelt_key_gets_its_line_and_a_suggestion() {
    let e = error_of(&GOOD.replace("    command:", "    comand:"));
    assert_eq!(e.to_string(), "switchback.yaml:7: unknown key \"comand\" in services.hub");
    assert_eq!(e.hint.as_deref(), Some("did you mean \"command\"?"));
}

#[test]
fn a_missing_key_is_named_with_its_place() {
    let e = error_of(&GOOD.replace("    version: 3.1.1\n", ""));
    assert!(e.to_string().contains("the key \"version\" is missing in services.hub"), "{e}");
}

#[test]
fn two_services_on_one_port_are_refused_with_both_lines() {
    let text = GOOD.replace("stores:", "  other:\n    version: 1\n    command: [x]\n    ports: { web: 8000 }\n    health: { tcp: web }\nstores:");
    let e = error_of(&text);
    assert!(
        e.to_string().contains(
            "services.other.ports.web: port 8000 is already used by services.hub.ports.http (line 10)"
        ),
        "{e}"
    );
}

#[test]
fn unknown_placeholders_stores_and_ports_are_refused() {
    for (from, to, expect) in [
        ("{store.db}", "{store.dbx}", "unknown placeholder {store.dbx}"),
        ("{port.http}", "{port.web}", "unknown placeholder {port.web}"),
        ("port: http", "port: htp", "the service has no port \"htp\""),
        ("path: data/hub.db", "path: ../hub.db", "cannot be a store"),
        ("config: [conf.py]", "config: [../conf.py]", "leaves the stack's folder"),
        ("path: data/hub.db", "path: data/hub.db, leave_out: [wal]", "cannot be left out"),
        (
            "kind: sqlite, path: data/hub.db",
            "kind: files, path: data, leave_out: [../x]",
            "no path below the store",
        ),
        (
            "kind: sqlite, path: data/hub.db",
            "kind: files, path: data, leave_out: [/x]",
            "no path below the store",
        ),
        (
            "kind: sqlite, path: data/hub.db",
            "kind: files, path: data, leave_out: [.]",
            "no path below the store",
        ),
        ("stable: 3s", "stable: soon", "is not a duration"),
        ("version: 3.1.1", "version: ../x", "is not a version"),
        ("http: \"/hub/api/health\", ", "", "exactly one of http, tcp and command"),
    ] {
        let e = error_of(&GOOD.replace(from, to));
        assert!(e.to_string().contains(expect), "{from} -> {to}: {e}");
        assert!(e.line > 0, "no line for {e}");
    }
}

#[test]
fn services_that_need_each_other_are_refused() {
    let text = GOOD.replace("    config: [conf.py]", "    needs: [hub]");
    assert!(error_of(&text).to_string().contains("in a circle"));
}

#[test]
fn the_schema_names_every_top_level_key() {
    let schema = Config::schema();
    for key in ["stack", "services", "stores", "checks", "rollback", "rehearsal"] {
        assert!(schema["properties"].get(key).is_some(), "{key} is not in the schema");
    }
}

#[test]
fn a_store_or_port_that_no_service_is_told_about_is_refused() {
    let e = error_of(&GOOD.replace("HUB_DB: \"{store.db}\", ", ""));
    assert!(e.to_string().contains("switchback.yaml:14: stores.db: no service is told"), "{e}");
    let e = error_of(&GOOD.replace("HUB_PORT: \"{port.http}\", ", ""));
    assert!(e.to_string().contains("services.hub.ports.http: the service is not told"), "{e}");
}

#[test]
fn masks_and_limits_that_mean_nothing_are_refused() {
    for (staging, expect) in [
        ("anonymise: { db.users.email: email }", None),
        ("anonymise: { dbx.users.email: email }", Some("there is no store \"dbx\"")),
        ("anonymise: { db.users: email }", Some("STORE.TABLE.COLUMN")),
        ("anonymise: { db.users.email: e-mail }", Some("e-mail")),
        ("limits: { cpus: 1 }", Some("works with `runtime: compose` only")),
    ] {
        let text = format!("{GOOD}\nstaging: {{ {staging} }}\n");
        match expect {
            None => drop(Config::parse(&text, "switchback.yaml").expect("accepted")),
            Some(why) => assert!(error_of(&text).to_string().contains(why), "{staging}: {}", error_of(&text)),
        }
    }
    for (limits, expect) in
        [("memory_mib: 5", "at least 6"), ("cpus: 0", "between 0.01"), ("cpus: .nan", "between 0.01")]
    {
        let text = format!(
            "stack: s\nruntime: compose\nservices: {{ a: {{ ports: {{ http: 80 }} }} }}\nstaging: {{ limits: {{ {limits} }} }}\n"
        );
        assert!(error_of(&text).to_string().contains(expect), "{limits}: {}", error_of(&text));
    }
}
