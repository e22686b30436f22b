//! The text of the files that init writes for a Compose stack. Values are quoted where there is doubt, comments hold no
//! line ends.

use super::yaml::{comment, list, quoted, value};
use switchback_core::compose::HealthSource;
use switchback_core::data::StoreKind;
use switchback_engine::detect::compose::{ComposeStack, DataAt, FoundData, FoundService};

/// Ports at which nobody expects HTTP: mail, databases, queues, TLS. Asked only where something runs.
const NO_HTTP: [u16; 26] = [
    21, 22, 25, 53, 110, 143, 389, 443, 465, 587, 636, 993, 995, 1433, 1883, 3306, 5432, 5672, 6379, 7687,
    8443, 8883, 9042, 9092, 11211, 27017,
];

/// `switchback.yaml`.
pub fn config(name: &str, stack: &ComposeStack, workflows: bool) -> String {
    let mut lines = vec![
        "# Written by `switchback init`. `switchback doctor` tells what is missing or dangerous;".to_owned(),
        "# `switchback schema` prints every key.".to_owned(),
    ];
    lines.extend(stack.warnings.iter().map(|w| format!("# WARNING: {}", comment(w))));
    lines.extend(stack.unseen.iter().map(|u| format!("# NOT SEEN: {}", comment(u))));
    lines.push(format!("stack: {}", value(name)));
    lines.push("runtime: compose".to_owned());
    lines.push("compose:".to_owned());
    lines.push(format!("  files: {}", list(&stack.files, "          ")));
    if stack.renamed {
        lines.push(format!("  project: {}   # the name under which it runs", value(&stack.project)));
    }
    if !stack.shared.is_empty() {
        lines.push(
            "  # Services may write to these; every generation uses the same, and a rollback does not"
                .to_owned(),
        );
        lines.push("  # bring them back.".to_owned());
        lines.push("  shared:".to_owned());
        lines
            .extend(stack.shared.iter().map(|s| format!("    - {}   # {}", value(&s.what), comment(&s.why))));
    }
    services(stack, &mut lines);
    stores(stack, &mut lines);
    checks(stack, workflows, &mut lines);
    lines.extend(
        [
            "rollback:",
            "  budget: 5m    # a rollback must be done within this time",
            "  watch: 30m    # how long a promotion is on trial",
            "  every: 10s    # time between two probes",
            "  failures: 3   # so many failed probes in a row roll back",
        ]
        .map(str::to_owned),
    );
    lines.push(String::new());
    lines.join("\n")
}

fn services(stack: &ComposeStack, lines: &mut Vec<String>) {
    let own: Vec<&FoundService> = stack.services.iter().filter(|s| s.software.is_none()).collect();
    if own.is_empty() {
        return;
    }
    lines.push(
        "# Versions, order and times to stop come from the Compose files. Here stands what they do not say."
            .to_owned(),
    );
    lines.push("services:".to_owned());
    for service in own {
        lines.push(format!("  {}:", value(service.name.as_str())));
        if let Some((name, number)) = &service.port {
            lines.push(format!("    ports: {{ {name}: {number} }}   # the container's port"));
        }
        health(service, lines);
        migrate(service, lines);
    }
}

fn health(service: &FoundService, lines: &mut Vec<String>) {
    let probe = match (service.health, &service.healthy_path, &service.port) {
        (HealthSource::Compose | HealthSource::Image, ..) => {
            lines.push("    # Its container's own health check counts.".to_owned());
            String::new()
        }
        (HealthSource::None, Some(path), Some(_)) => format!("http: {}, ", value(path)),
        (HealthSource::None, None, Some((name, _))) => {
            lines
                .push("    # It has no health check. Better than the port is a path: http: /PATH".to_owned());
            format!("tcp: {}, ", value(name))
        }
        (HealthSource::None, _, None) => {
            lines.push(
                "    # It has no health check and no port: it counts as healthy when it runs.".to_owned(),
            );
            String::new()
        }
    };
    lines.push(format!(
        "    health: {{ {probe}stable: 2s, start: 180s }}   # a new version may migrate when it starts"
    ));
}

fn migrate(service: &FoundService, lines: &mut Vec<String>) {
    match service.known {
        Some(known) if !known.migrate.is_empty() => {
            let words: Vec<String> = known.migrate.iter().map(|w| (*w).to_owned()).collect();
            lines.push("    # This application migrates its data with a command of its own. If a new version needs it:".to_owned());
            lines.push(format!("    # migrate: {}", list(&words, "    #           ")));
        }
        Some(_) => {
            lines.push("    # This application migrates its data when it starts.".to_owned());
        }
        None => {
            lines.push(
                "    # If a new version needs a command that migrates the data before it starts:".to_owned(),
            );
            lines.push("    # migrate: [PROGRAM, ARGUMENT]".to_owned());
        }
    }
}

fn stores(stack: &ComposeStack, lines: &mut Vec<String>) {
    if stack.stores.is_empty() {
        lines.push(
            "# No data was found. Everything that must come back with a rollback is a store:".to_owned(),
        );
        lines.push("# stores:".to_owned());
        lines.push("#   db: { kind: postgres, service: db }".to_owned());
        lines.push("#   uploads: { kind: files, volume: uploads }".to_owned());
        return;
    }
    lines.push(
        "# Everything here is cloned for a rehearsal, compared, and comes back with a rollback.".to_owned(),
    );
    lines.push("stores:".to_owned());
    for store in &stack.stores {
        let note = store.note.as_ref().map_or_else(String::new, |n| format!("   # {}", comment(n)));
        lines.push(format!("  {}: {{ {} }}{note}", value(&store.name), keys(store)));
        if let DataAt::Server(_) = &store.at {
            lines.push("  #   user: NAME, password_env: VARIABLE   where the server wants a password on its own socket".to_owned());
        }
    }
}

fn keys(store: &FoundData) -> String {
    let kind = store.kind.as_str();
    let below = if store.path.is_empty() { String::new() } else { format!(", path: {}", value(&store.path)) };
    match &store.at {
        DataAt::Volume(key) => format!("kind: {kind}, volume: {}{below}", value(key)),
        DataAt::Bind(path) if store.path.is_empty() => format!("kind: {kind}, path: {}", value(path)),
        DataAt::Bind(path) => {
            format!(
                "kind: {kind}, path: {}",
                value(&format!("{}/{}", path.trim_end_matches('/'), store.path))
            )
        }
        DataAt::Anonymous { service, target } => {
            format!("kind: {kind}, service: {}, target: {}{below}", value(service.as_str()), value(target))
        }
        DataAt::Server(service) => format!("kind: {kind}, service: {}", value(service.as_str())),
    }
}

fn checks(stack: &ComposeStack, workflows: bool, lines: &mut Vec<String>) {
    let database = stack.stores.iter().find(|s| s.kind != StoreKind::Files).map_or("db", |s| s.name.as_str());
    lines.push("checks:".to_owned());
    lines.push(
        "  # What users do with it. The more they say, the more an upgrade is proven to work.".to_owned(),
    );
    lines.push(if workflows {
        "  workflows: [\"checks/*.yaml\"]".to_owned()
    } else {
        "  workflows: []   # [\"checks/*.yaml\"]".to_owned()
    });
    lines.push("  # Rules on the data, for example:".to_owned());
    lines.push(format!(
        "  # invariants: [{{ store: {}, sql: \"select count(*) from orders where total < 0\", expect: 0 }}]",
        comment(database)
    ));
    let rewritten: Vec<String> =
        stack.stores.iter().filter(|s| s.rewritten).map(|s| format!("{}.*", s.name)).collect();
    if !rewritten.is_empty() {
        lines.push(
            "  # These write their files anew whenever they run; that says nothing about their content."
                .to_owned(),
        );
        lines.push(format!("  expected_changes: {}", list(&rewritten, "                     ")));
    } else if let Some(table) = stack.services.iter().filter_map(|s| s.known).flat_map(|k| k.rewrites).next()
    {
        lines.push("  # Tables that a new version of this application is known to rewrite:".to_owned());
        lines.push(format!("  # expected_changes: [\"{}.{table}\"]", comment(database)));
    }
}

/// The first check of a service: whether it answers.
///
/// `None` for one that speaks no HTTP, or that nothing can reach.
pub fn workflow(service: &FoundService) -> Option<String> {
    let (_, port) = service.port.as_ref()?;
    let status = match service.front_page {
        Some(status) if status < 500 => status.to_string(),
        Some(_) => return None,
        // Nothing runs: there may be no front page.
        None if !service.asked && service.published && !NO_HTTP.contains(port) => {
            "[2xx, 3xx, 4xx]".to_owned()
        }
        None => return None,
    };
    let name = service.name.as_str();
    let mut steps = String::new();
    if let Some(path) = &service.healthy_path {
        let url = quoted(&format!("{{{{{name}.url}}}}{path}"));
        steps.push_str(&format!("  - name: it says that it is healthy\n    request: {{ url: {url} }}\n"));
    }
    let url = quoted(&format!("{{{{{name}.url}}}}/"));
    steps.push_str(&format!(
        "  - name: the front page answers\n    request: {{ url: {url} }}\n    expect: {{ status: {status} }}\n"
    ));
    Some(format!(
        r#"# A first workflow: it only reads, so it also runs on production while a promotion is on trial.
name: {name} answers
timeout: 20s
steps:
{steps}# Say what a user must be able to do. What writes never runs on production by itself:
#
#   - name: create
#     request:
#       method: POST
#       url: "{{{{{name}.url}}}}/api/notes"
#       headers: {{ Authorization: "Bearer {{{{env.API_TOKEN}}}}" }}
#       json: {{ title: "written by {{{{run.id}}}}" }}
#     expect: {{ status: 201, json: {{ "$.id": exists }} }}
"#
    ))
}
