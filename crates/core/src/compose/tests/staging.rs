use super::super::{Difference, Model, Replaced, StagingFacts, staging, staging_networks};
use super::{bind, dir, kitchen, model, name, pins, volume};
use crate::release::MountSource;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn facts(model: &Model) -> StagingFacts {
    StagingFacts {
        project: "copy".into(),
        pins: pins(model, &[]),
        stack_dir: "/stack".into(),
        labels: BTreeMap::from([("l".to_owned(), "1".to_owned())]),
        gateway: Some(
            staging_networks(model).into_iter().map(|key| (key, "172.16.0.2".to_owned())).collect(),
        ),
        ..StagingFacts::default()
    }
}

fn copy_of(model: &Model, facts: &StagingFacts) -> (Value, Vec<Difference>) {
    let (copy, told) = staging(model, facts).expect("a copy");
    (serde_json::to_value(&copy).expect("JSON"), told)
}

fn lines(told: &[Difference]) -> String {
    let line = |d: &Difference| {
        format!("{}: {} ({})", d.service.as_ref().map_or("*", |s| s.as_str()), d.what, d.why)
    };
    told.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_change_of_a_full_stack_is_told_once() {
    let mut facts = facts(&kitchen());
    facts.pins = pins(&kitchen(), &[(MountSource::Volume("db-data".into()), volume("copy_db-data.s1"))]);
    facts.ports = BTreeMap::from([(name("app"), BTreeMap::from([(80, 20_080)]))]);
    facts.env = BTreeMap::from([("SMTP_TOKEN".to_owned(), "none".to_owned())]);
    let (copy, told) = copy_of(&kitchen(), &facts);
    insta::assert_snapshot!("differences", lines(&told));
    insta::assert_snapshot!("copy", format!("{copy:#}").replace(&"ab".repeat(32), "AB"));
    let unique: BTreeSet<&Difference> = told.iter().collect();
    assert_eq!(unique.len(), told.len());
    assert!(!lines(&told).contains("hunter2"));
}

#[test]
fn a_copy_keeps_nothing_that_collides_with_production_or_reaches_the_host() {
    let (copy, _) = copy_of(&kitchen(), &facts(&kitchen()));
    let text = format!("{}{}{}", copy["services"], copy["networks"], copy["volumes"]);
    for gone in [
        "container_name",
        "ipv4_address",
        "172.28.0",
        "traefik",
        "watchtower",
        "docker.sock",
        "/srv/media",
        "/srv/cache",
        "shared_data",
        "privileged",
        "/dev/fuse",
        "host-gateway",
        "external_links",
        "8080",
        "unless-stopped",
        "kitchen_db-data",
        "kitchen_back",
        "\"pid\"",
        "\"ipc\"",
    ] {
        assert!(!text.contains(gone), "{gone} is still there");
    }
    for (_, network) in copy["networks"].as_object().expect("networks") {
        assert_eq!(network["external"], true, "it is made with the gateway on it");
        assert!(network["name"].as_str().expect("a name").starts_with("copy_"));
    }
    for (_, service) in copy["services"].as_object().expect("services") {
        assert_eq!((&service["restart"], &service["labels"]["l"]), (&json!("no"), &json!("1")));
        assert_eq!((&service["pull_policy"], service.get("build")), (&json!("never"), None));
        assert_eq!(service.get("ports"), None, "the gateway has them");
        assert_eq!(service.get("dns").is_some(), service.get("networks").is_some());
    }
    let stays = &copy["services"]["app"]["volumes"][0];
    assert_eq!((&stays["source"], &stays["read_only"]), (&json!("/stack/conf/app.conf"), &json!(true)));
}

#[test]
fn names_that_services_call_each_other_by_still_work() {
    let model = model(
        r#"{"db":{"container_name":"prod-db","hostname":"rabbit","networks":{"n":null}},"h":{"container_name":"x","network_mode":"host"}}"#,
    );
    let (copy, _) = copy_of(&model, &facts(&model));
    assert_eq!(copy["services"]["db"]["networks"]["n"]["aliases"], json!(["prod-db"]));
    // RabbitMQ and others keep their data below their host name.
    assert_eq!(copy["services"]["db"]["hostname"], "rabbit");
    assert_eq!(copy["services"]["h"]["networks"]["default"]["aliases"], json!(["x"]));
    assert_eq!(copy["networks"]["default"]["name"], "copy_default");
}

#[test]
fn bind_mounts_of_the_host_are_judged_by_what_they_are() {
    let mount = |source: &str, target: &str, ro: bool| json!({"type":"bind","source":source,"target":target,"read_only":ro});
    let sources = [
        ("/stack/ro", true, "bind ro"),
        ("/stack/rw", false, "volume"),
        ("/stack/file", false, "bind ro"),
        ("/stack/shared", true, "volume"),
        ("/elsewhere/dir", true, "volume"),
        ("/elsewhere/file", true, "gone"),
        ("/stackother/dir", true, "volume"),
        ("/stack/../etc", true, "gone"),
        ("/etc/localtime", false, "bind ro"),
        ("/etc/ssl/certs", true, "bind ro"),
        ("/", true, "gone"),
        ("/proc", true, "gone"),
        ("/sys/fs/cgroup", true, "gone"),
        ("/dev/shm", false, "gone"),
        ("/var/run/docker.sock", true, "gone"),
        ("/run/podman/podman.sock", true, "gone"),
        ("/stack/app.sock", true, "gone"),
        ("/var/lib/docker/containers", true, "gone"),
        ("/pinned/sub", false, "placed"),
    ];
    let entries: Vec<Value> =
        sources.iter().enumerate().map(|(i, (s, ro, _))| mount(s, &format!("/t{i}"), *ro)).collect();
    let services = json!({"a":{"volumes":entries},"b":{"volumes":[mount("/stack/shared", "/s", false)]}});
    let model = model(&services.to_string());
    let mut facts = facts(&model);
    facts.files = ["/stack/file", "/elsewhere/file", "/etc/localtime"].map(str::to_owned).into();
    facts.pins = pins(&model, &[(bind("/pinned"), dir("/clone/pinned"))]);
    let (copy, told) = copy_of(&model, &facts);
    let volumes = copy["services"]["a"]["volumes"].as_array().expect("a list");
    for (index, (source, _, fate)) in sources.iter().enumerate() {
        let target = format!("/t{index}");
        let entry = volumes.iter().find(|v| v["target"] == target.as_str());
        let is = match entry {
            None => "gone",
            Some(e) if e["source"] == "/clone/pinned/sub" => "placed",
            Some(e) if e["type"] == "volume" => "volume",
            Some(e) if e["read_only"] == true && e["source"] == *source => "bind ro",
            Some(e) => panic!("{source}: {e}"),
        };
        assert_eq!(is, *fate, "{source}");
        let unchanged = matches!(*source, "/stack/ro" | "/etc/ssl/certs" | "/pinned/sub");
        assert_eq!(lines(&told).contains(&format!("{target} ")), !unchanged, "{source}: {}", lines(&told));
    }
    let shared = copy["services"]["b"]["volumes"][0]["source"].as_str().expect("a volume");
    assert!(volumes.iter().any(|v| v["source"] == shared), "what two services share, they share in the copy");
    assert_eq!(copy["volumes"][shared]["name"], format!("copy_{shared}"));
}

#[test]
fn less_usual_ways_to_the_host_are_closed_too() {
    let model = model(
        r#"{"a":{"pid":"container:x","cgroup":"host","uts":"host","userns_mode":"host","cap_add":["SYS_ADMIN","CAP_SYS_TIME","NET_ADMIN"],
                 "logging":{"driver":"syslog","options":{"syslog-address":"tcp://prod"}},"security_opt":["apparmor=unconfined"],
                 "volumes_from":["container:prod","b:ro"],"environment":{"VIRTUAL_HOST":"x.y","A":"b"},"use_api_socket":true,
                 "deploy":{"replicas":2,"restart_policy":{"condition":"any"},"labels":{"x":"y"}}},
            "b":{"network_mode":"container:prod"},"c":{"network_mode":"service:a"},"d":{"network_mode":"none"}}"#,
    );
    let (copy, told) = copy_of(&model, &facts(&model));
    let a = &copy["services"]["a"];
    for key in ["pid", "cgroup", "uts", "userns_mode", "security_opt", "use_api_socket"] {
        assert_eq!(a.get(key), None, "{key}");
    }
    assert_eq!((&a["cap_add"], &a["logging"]), (&json!(["NET_ADMIN"]), &json!({"driver":"json-file"})));
    assert_eq!((&a["volumes_from"], &a["environment"]), (&json!(["b:ro"]), &json!({"A":"b"})));
    assert_eq!(a["deploy"], json!({"replicas":2}), "replicas stay");
    assert_eq!(copy["services"]["b"].get("network_mode"), None);
    assert_eq!(copy["services"]["c"]["network_mode"], "service:a");
    assert_eq!(
        (&copy["services"]["d"]["network_mode"], copy["services"]["d"].get("networks")),
        (&json!("none"), None)
    );
    insta::assert_snapshot!("unusual", lines(&told));
}

#[test]
fn every_service_asks_the_gateway_for_names_and_publishes_nothing() {
    let model = Model::parse(
        r#"{"name":"p","services":{"a":{"deploy":{"replicas":3},"networks":{"in":null,"deep":null},"dns":["8.8.8.8"],"dns_search":["x"],
              "ports":[{"target":80,"published":"80"}]},"b":{"networks":{"deep":null}},"c":{"network_mode":"host"}},
            "networks":{"in":{"name":"p_in","internal":true},"deep":{"name":"p_deep","internal":true},"unused":{"name":"p_unused"}}}"#,
    )
    .expect("a model");
    let mut facts = facts(&model);
    let gateway = facts.gateway.as_mut().expect("a gateway");
    assert_eq!(gateway.keys().map(String::as_str).collect::<Vec<_>>(), ["deep", "default", "in"]);
    gateway.insert("in".into(), "172.16.9.2".into());
    facts.ports = BTreeMap::from([(name("a"), BTreeMap::from([(80, 20_080)]))]);
    let (copy, told) = copy_of(&model, &facts);
    let a = &copy["services"]["a"];
    assert_eq!((&a["dns"], a.get("dns_search"), a.get("ports")), (&json!(["172.16.9.2"]), None, None));
    assert_eq!(a["deploy"]["replicas"], 3, "the gateway finds all of them by name");
    assert_eq!(copy["services"]["c"]["dns"], json!(["172.16.0.2"]));
    assert_eq!(copy["networks"].get("unused"), None);
    assert_eq!(copy["networks"]["deep"], json!({"name": "copy_deep", "external": true}));
    assert!(
        lines(&told).contains("through the gateway")
            && lines(&told).contains("instead of servers of its own")
    );
    facts.gateway.as_mut().expect("a gateway").remove("deep");
    assert!(
        staging(&model, &facts).expect_err("refused").to_string().contains("no address on the network deep")
    );
}

#[test]
fn a_copy_never_gets_secrets_that_are_to_be_replaced() {
    let model = Model::parse(
        r#"{"name":"p","services":{
            "a":{"environment":{"TOKEN":"hunter2-hunter2","SHORT":"abc","URL":"https://x:hunter2-hunter2@y","DSN":"p%40ss-w0rd-p%40ss"},
                 "command":["run","--token=hunter2-hunter2","abc"],"healthcheck":{"test":["CMD","x","hunter2-hunter2"]},
                 "secrets":[{"source":"key"}]},
            "b":{"environment":{"SAME":"hunter2-hunter2","OTHER":"p@ss-w0rd-p@ss","FROM_FILE":"from-the-file"}},
            "c":{"environment":{"PASS":"p@ss-w0rd-p@ss"}}},
            "configs":{"f":{"name":"f","content":"token: hunter2-hunter2"}},
            "secrets":{"key":{"name":"p_key","file":"/stack/key"}}}"#,
    )
    .expect("a model");
    let mut facts = facts(&model);
    facts.replace.names = ["TOKEN", "SHORT", "PASS", "key", "GONE"].map(str::to_owned).into();
    facts.replace.key = "k1".into();
    let original = "from-the-file\n".to_owned();
    facts.replace.files.insert("key".into(), Replaced { path: "/state/key".into(), original });
    let (copy, told) = copy_of(&model, &facts);
    let all = copy.to_string();
    for gone in ["hunter2", "p@ss", "p%40ss", "from-the-file", "/stack/key"] {
        assert!(!all.contains(gone), "{gone} is still there");
    }
    let a = &copy["services"]["a"]["environment"];
    let token = a["TOKEN"].as_str().expect("a text");
    assert_eq!((token.len(), a["SHORT"].as_str().map(str::len)), (15, Some(3)));
    assert_eq!(a["URL"], format!("https://x:{token}@y"));
    assert_eq!(copy["services"]["b"]["environment"]["SAME"], token);
    assert_eq!(
        copy["services"]["a"]["command"],
        json!(["run", format!("--token={token}"), "abc"]),
        "short ones stay"
    );
    assert_eq!(copy["secrets"]["key"], json!({"name": "key", "file": "/state/key"}));
    let told = lines(&told);
    assert!(
        told.contains("TOKEN has a generated value")
            && told.contains("GONE was to be replaced, and nothing has it")
    );
    assert!(!told.contains("hunter2") && !told.contains(token));
    facts.replace.key = "k2".into();
    assert_ne!(
        copy_of(&model, &facts).0["services"]["a"]["environment"]["TOKEN"],
        token,
        "another environment's"
    );
    assert!(!format!("{facts:?}").contains("from-the-file"));
}

#[test]
fn services_trust_the_authority_of_canned_answers_only_where_there_are_some() {
    let model = model(r#"{"a":{"read_only":true}}"#);
    let mut facts = facts(&model);
    assert_eq!(copy_of(&model, &facts).0["services"]["a"].get("volumes"), None);
    facts.authority = Some("/state/ca$.pem".into());
    let (copy, _) = copy_of(&model, &facts);
    let a = &copy["services"]["a"];
    assert_eq!(
        (&a["volumes"][0]["source"], &a["volumes"][0]["read_only"]),
        (&json!("/state/ca$$.pem"), &json!(true))
    );
    assert_eq!(a["environment"]["NODE_EXTRA_CA_CERTS"], a["volumes"][0]["target"]);
}

#[test]
fn without_a_gateway_a_service_with_a_known_port_runs_once_and_can_be_reached() {
    let model = Model::parse(
        r#"{"name":"p","services":{"a":{"deploy":{"replicas":3},"networks":{"in":null}},"b":{"networks":{"deep":null}}},
            "networks":{"in":{"name":"p_in","internal":true},"deep":{"name":"p_deep","internal":true}}}"#,
    )
    .expect("a model");
    let mut facts = facts(&model);
    facts.gateway = None;
    facts.ports = BTreeMap::from([(name("a"), BTreeMap::from([(80, 20_080)]))]);
    let (copy, told) = copy_of(&model, &facts);
    let port = &copy["services"]["a"]["ports"][0];
    assert_eq!(
        (&port["host_ip"], &port["published"], &port["target"]),
        (&json!("127.0.0.1"), &json!("20080"), &json!(80))
    );
    assert_eq!(copy["services"]["a"]["deploy"]["replicas"], 1);
    assert_eq!(copy["networks"]["in"].get("internal"), None);
    assert_eq!(copy["networks"]["deep"]["internal"], true, "stays closed where nobody has to get in");
    assert!(lines(&told).contains("one container of it runs"));
}

#[test]
fn copies_that_cannot_be_kept_apart_are_refused() {
    let model = model(r#"{"a":{"network_mode":"none"},"p":{"provider":{"type":"cloud"}}}"#);
    let error = |facts: &StagingFacts, model: &Model| staging(model, facts).expect_err("refused").to_string();
    assert!(error(&facts(&model), &model).contains("plugin"));
    let model = super::model(r#"{"a":{"network_mode":"none"}}"#);
    let mut own = facts(&model);
    own.project = "p".into();
    assert!(error(&own, &model).contains("production's"));
    let mut port = facts(&model);
    port.ports = BTreeMap::from([(name("a"), BTreeMap::from([(80, 1)]))]);
    assert!(error(&port, &model).contains("network_mode is none"));
    let mut bad = facts(&model);
    bad.project = "Not Allowed".into();
    assert!(error(&bad, &model).contains("not a project name"));
}

#[test]
fn facts_do_not_show_values() {
    let model = model(r#"{"a":{}}"#);
    let mut facts = facts(&model);
    facts.env.insert("TOKEN".into(), "hunter2".into());
    assert!(!format!("{facts:?}").contains("hunter2"));
}

#[test]
fn folders_of_an_empty_volume_become_volumes_that_can_be_mounted() {
    let model = model(
        r#"{"a":{"volumes":[{"type":"volume","source":"v","target":"/x","volume":{"subpath":"x"}},
                            {"type":"volume","source":"w","target":"/y","volume":{"subpath":"y"}}]}}"#,
    );
    let mut facts = facts(&model);
    facts.pins = pins(&model, &[(MountSource::Volume("w".into()), volume("copy_w.s1"))]);
    let (copy, _) = copy_of(&model, &facts);
    let volumes = &copy["services"]["a"]["volumes"];
    assert_eq!(volumes[0].get("volume"), None);
    assert_ne!(volumes[0]["source"], "v");
    assert_eq!(volumes[1]["volume"]["subpath"], "y", "the clone has it");
}

#[test]
fn limits_of_a_copy_only_lower_and_stand_where_compose_wants_them() {
    let stack = model(
        r#"{"a":{},"b":{"mem_limit":"1073741824","memswap_limit":"2147483648","cpus":0.25},
            "c":{"deploy":{"resources":{"limits":{"memory":"8589934592","cpus":"4"},"reservations":{"memory":"4294967296","cpus":"2"}}}},
            "d":{"mem_limit":"104857600","cpus":8}}"#,
    );
    let limits = super::super::Limits { memory_bytes: Some(512 << 20), millicpus: Some(1500) };
    let (copy, told) = copy_of(&stack, &StagingFacts { limits, ..facts(&stack) });
    let services = &copy["services"];
    assert_eq!((&services["a"]["mem_limit"], &services["a"]["cpus"]), (&json!("536870912"), &json!(1.5)));
    assert_eq!((&services["b"]["mem_limit"], &services["b"]["cpus"]), (&json!("536870912"), &json!(0.25)));
    assert_eq!(services["b"]["memswap_limit"], Value::Null);
    let resources = &services["c"]["deploy"]["resources"];
    assert_eq!(resources, &json!({"limits": {"memory": "536870912", "cpus": "1.5"}, "reservations": {}}));
    assert_eq!((&services["c"]["mem_limit"], &services["c"]["cpus"]), (&Value::Null, &Value::Null));
    assert_eq!((&services["d"]["mem_limit"], &services["d"]["cpus"]), (&json!("104857600"), &json!(1.5)));
    let told = lines(&told);
    assert!(
        told.contains("a: it has at most 512.0 MiB of memory")
            && told.contains("d: it has at most 1.5 processors"),
        "{told}"
    );
    assert!(!told.contains("d: it has at most 512") && !told.contains("b: it has at most 1.5"), "{told}");
    let (same, _) = copy_of(&stack, &facts(&stack));
    assert_eq!(same["services"]["c"]["deploy"]["resources"]["limits"]["cpus"], "4");
}
