//! Staging environments of Compose stacks on a real engine: what services send out stays inside and is told, and nothing
//! of production, the host or the world can be reached.

mod common;

use common::docker::{Example, Stack, docker, free_port};
use common::upgrade::{id, report, staging_left};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use switchback_engine::docker::{Docker, helper};
use switchback_engine::gateway::attack::{ATTACK_VERB, Attempt, Ended, How, Orders, variables};

/// What the worker does in staging: everything that must stay inside. It prints what it saw, as JSON lines.
const WORKER: &str = r#"
import hashlib, json, os, smtplib, socket, ssl, time, urllib.request
def say(what, **seen): print(json.dumps({"what": what, **seen}), flush=True)
def tried(what, work):
    try: say(what, saw=work())
    except Exception as e: say(what, error=type(e).__name__ + ": " + str(e)[:200])
def ask(url, data=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=data, method="POST" if data else "GET"), timeout=15) as r:
        return [r.status, r.read().decode()]
if os.environ.get("FIRE") == "1":
    say("token", saw=os.environ["API_TOKEN"])
    say("secret", saw=open("/run/secrets/key").read())
    tried("resolves the copy", lambda: socket.gethostbyname("bank"))
    for n in range(30):
        def mail():
            s = smtplib.SMTP("smtp.customers.example", [25, 587, 2525][n % 3], timeout=15)
            s.sendmail("shop@example.com", [f"customer{n}@customers.example"], f"Subject: Invoice {n}\r\n\r\nsecret body")
            s.quit()
            return n
        tried("mail", mail)
        tried("hook", lambda: ask(f"http://hooks.example.com/order/{n}?token=s3cret-of-a-hook", b"order")[0])
    tried("stub over http", lambda: ask("http://llm.example.com/v1/chat", b"{}"))
    tried("stub over https", lambda: ask("https://llm.example.com/v1/chat", b"{}"))
    tried("https", lambda: ask("https://api.example.org/"))
    for _ in range(2):
        def redis():
            with socket.create_connection(("cache.example.org", 6379), 5) as c:
                c.sendall(b"*1\r\n$4\r\nPING\r\n"); return "connected"
        tried("redis", redis)
        time.sleep(0.5)
    def datagram():
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"<1>log", ("syslog.example.org", 514)); return "sent"
    tried("syslog", datagram)
    for address in os.environ["HOST_ADDRESSES"].split(","):
        tried("host", lambda: socket.create_connection((address, int(os.environ["HOST_PORT"])), 1) and "REACHED")
    until = time.time() + 60
    while time.time() < until:
        try:
            say("allowed", saw=ask("http://partner.example.net/ping")); break
        except Exception as e: time.sleep(0.3)
    say("done")
time.sleep(86400)
"#;

/// The bank with a worker beside it that fires in staging only.
fn stack(staging: &str) -> Stack {
    let stack = Stack::compose(Example::Bank);
    stack.edit("switchback.yaml", "start: 20s", "start: 2m");
    stack.edit("compose.yaml", "timeout: 3s", "timeout: 10s");
    fs::write(stack.root.join("worker.py"), WORKER).expect("writes");
    fs::write(stack.root.join("key"), "key-of-production-1\n").expect("writes");
    stack.edit(
        "compose.yaml",
        "\nvolumes:\n  books:",
        "\n  worker:\n    image: sbt/python:3.11\n    init: true\n    stop_grace_period: 1s\n    command: [python3, /worker.py]\n    environment: { API_TOKEN: token-of-production-1, HOST_PORT: '0', HOST_ADDRESSES: '' }\n    secrets: [key]\n    volumes: ['./worker.py:/worker.py:ro']\nsecrets:\n  key: { file: ./key }\nvolumes:\n  books:",
    );
    let config = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&config).expect("reads");
    fs::write(&config, format!("{text}\n{staging}")).expect("writes");
    stack.up();
    stack.transfer();
    stack.run(&["up", "--yes"]).expect(0);
    stack
}

/// Every address of this host that a container could try.
fn host_addresses() -> BTreeSet<String> {
    let trie = fs::read_to_string("/proc/net/fib_trie").expect("reads");
    let lines: Vec<&str> = trie.lines().map(str::trim).collect();
    let own = lines.windows(2).filter(|w| w[1].starts_with("/32 host LOCAL"));
    let all = own.filter_map(|w| w[0].strip_prefix("|-- ")).filter(|a| !a.starts_with("127."));
    all.map(str::to_owned).collect()
}

/// Does something again and again in the background until it says that it is done, or the test is over.
fn meanwhile(
    over: &Arc<AtomicBool>,
    mut step: impl FnMut() -> bool + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let over = over.clone();
    std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) && !step() {
            std::thread::sleep(Duration::from_millis(100));
        }
    })
}

fn names(kind: &[&str]) -> Vec<String> {
    docker(kind).stdout.lines().map(str::to_owned).collect()
}

/// Runs an attacker that must be able to reach things.
fn attack_on(network: &str, image: &str, attempts: Vec<Attempt>) -> Vec<Ended> {
    let resolver = "127.0.0.11:53".parse().expect("an address");
    let orders = Orders { resolver, own: Vec::new(), attempts };
    let mut args = vec!["run".to_owned(), "--rm".to_owned(), "--network".to_owned(), network.to_owned()];
    for (name, value) in variables(&orders) {
        args.extend(["-e".to_owned(), format!("{name}={value}")]);
    }
    args.extend([image.to_owned(), ATTACK_VERB.to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    serde_json::from_str(&docker(&args).expect(0).stdout).expect("JSON")
}

#[test]
fn what_staging_sends_stays_inside_and_is_told_with_its_recipients() {
    // Somebody on the host listens everywhere and must see nobody.
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 16]);
        }
    });
    let addresses: Vec<String> = host_addresses().into_iter().collect();
    let stack = stack(&format!(
        "staging:\n  env: {{ FIRE: '1', HOST_PORT: '{port}', HOST_ADDRESSES: '{}' }}\n  replace_secrets: [API_TOKEN, key]\n  egress:\n    allow: [partner.example.net]\n    stubs:\n      - {{ host: llm.example.com, path: '/v1/*', method: POST, headers: {{ Content-Type: application/json }}, body: '{{\"answer\":42}}' }}\n",
        addresses.join(",")
    ));
    // The one that is let out to: a container outside, which the gateway finds by the name once it is on its network.
    let outside = format!("{}-outside", stack.project);
    let serve = "import http.server as h\nclass H(h.BaseHTTPRequestHandler):\n  def do_GET(s):\n    s.send_response(200); s.end_headers(); s.wfile.write(b'the real one'); print('GOT', s.headers['Host'], flush=True)\nh.HTTPServer(('',80),H).serve_forever()";
    docker(&["run", "-d", "--rm", "--name", &outside, "sbt/python:3.11", "python3", "-u", "-c", serve])
        .expect(0);
    let over = Arc::new(AtomicBool::new(false));
    let (name, mut joined) = (outside.clone(), None::<String>);
    let own_label = format!("label=dev.switchback.stack={}", id(&stack));
    let partner = meanwhile(&over, move || match &joined {
        None => {
            let found = names(&["network", "ls", "--filter", &own_label, "--format", "{{.Name}}"]);
            let own = found.into_iter().find(|n| n.ends_with("-baseline.gateway"));
            if let Some(network) = own
                && docker(&["network", "connect", "--alias", "partner.example.net", &network, &name]).code
                    == Some(0)
            {
                joined = Some(network);
            }
            false
        }
        Some(network) => {
            let heard = docker(&["logs", &name]).all().contains("GOT partner.example.net");
            heard && docker(&["network", "disconnect", network, &name]).code == Some(0)
        }
    });
    // The checks must not be over before the worker is.
    let ran = rehearse_slowly(&stack);
    over.store(true, Ordering::Relaxed);
    partner.join().expect("joins");
    docker(&["rm", "-f", &outside]);
    ran.expect(0);
    assert_eq!(seen.load(Ordering::SeqCst), 0, "a service of staging reached the host");

    let report = report(&stack);
    let log = log_of(&stack, "baseline-g1-worker.log");
    let saw = |what: &str| -> Vec<&Value> { log.iter().filter(|l| l["what"] == what).collect() };
    assert!(!saw("done").is_empty(), "the worker did not come to its end: {log:?}");
    assert_eq!(saw("mail").iter().filter(|l| l.get("saw").is_some()).count(), 30, "{log:?}");
    assert!(saw("hook").iter().all(|l| l["saw"] == 202), "{log:?}");
    assert!(saw("resolves the copy")[0].get("saw").is_some());
    for what in ["stub over http", "stub over https"] {
        assert_eq!(saw(what)[0]["saw"][1], "{\"answer\":42}", "{what}: {log:?}");
    }
    assert!(saw("https")[0].get("error").is_some());
    assert!(!addresses.is_empty() && saw("host").len() == addresses.len());
    assert!(saw("host").iter().all(|l| l.get("error").is_some()), "{log:?}");
    assert_eq!(saw("allowed")[0]["saw"][1], "the real one");
    let token = saw("token")[0]["saw"].as_str().expect("a token");
    assert!(token != "token-of-production-1" && token.len() == "token-of-production-1".len());
    assert_ne!(saw("secret")[0]["saw"], "key-of-production-1\n");

    // All of it is told.
    let baseline: Vec<&Value> = report["egress"]
        .as_array()
        .expect("egress")
        .iter()
        .filter(|e| e["environment"] == "baseline")
        .collect();
    assert_eq!(baseline.len(), 1, "{}", report["egress"]);
    let lines = baseline[0]["lines"].as_array().expect("lines");
    let of = |kind: &str, host: &str| -> Vec<&Value> {
        lines.iter().filter(|l| l["kind"] == kind && l["host"] == host && l["service"] == "worker").collect()
    };
    let mails = of("smtp", "smtp.customers.example");
    let recipients: BTreeSet<&str> = mails
        .iter()
        .flat_map(|l| l["recipients"].as_array().expect("a list"))
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(recipients.len(), 30, "{lines:?}");
    assert_eq!(mails.iter().filter_map(|l| l["count"].as_u64()).sum::<u64>(), 30);
    assert_eq!(of("http", "hooks.example.com")[0]["count"], 30);
    assert_eq!(of("http", "llm.example.com")[0]["outcome"], "stubbed");
    assert_eq!(of("https", "llm.example.com")[0]["outcome"], "stubbed");
    assert_eq!(of("https", "api.example.org")[0]["outcome"], "recorded");
    assert_eq!(of("http", "partner.example.net")[0]["outcome"], "allowed");
    assert!(of("tcp", "cache.example.org").iter().any(|l| l["port"] == 6379), "{lines:?}");
    assert_eq!(of("udp", "syslog.example.org")[0]["port"], 514);
    assert!(
        !lines.iter().any(|l| l["service"] == "-attack"),
        "the check's own attempts are no wish of a service"
    );
    let text = report.to_string();
    for secret in ["s3cret-of-a-hook", "secret body", "token-of-production-1", "key-of-production-1"] {
        assert!(!text.contains(secret), "{secret} is in the report");
    }
    let shown = stack.run(&["report"]).expect(0).stdout;
    assert!(shown.contains("What staging would have sent") && shown.contains("customer"), "{shown}");

    // The attack from inside was made and reached nothing.
    let check = isolation(&report);
    assert_eq!(check["verdict"], "pass", "{check}");
    let steps = check["steps"].as_array().expect("steps");
    for what in [
        "production's bank at ",
        "production's bank as ",
        "port 2375 of the host",
        "the metadata address",
        "the internet at 1.1.1.1",
        "name server of the internet",
        "example.com:443",
        "docker.sock",
    ] {
        assert!(
            steps.iter().any(|s| s["name"].as_str().is_some_and(|n| n.contains(what))),
            "{what} was not tried"
        );
    }
    let slowest = steps.iter().filter_map(|s| s["took_ms"].as_u64()).max().unwrap_or(0);
    assert!(slowest < 4000, "{slowest} ms");
    assert_eq!(staging_left(&stack), Vec::<String>::new());
    stack.run(&["promote", "bank=2", "--yes", "--detach"]).expect(0);
}

/// A rehearsal whose checks wait for the worker of the baseline.
fn rehearse_slowly(stack: &Stack) -> common::Ran {
    let script = format!(
        "own={}\n{}",
        id(stack),
        "for i in $(seq 600); do for c in $(docker ps -q --filter label=com.docker.compose.service=worker --filter label=dev.switchback.stack=$own); do docker logs $c 2>&1 | grep -q '\"done\"' && exit 0; done; sleep 0.2; done; exit 1"
    );
    fs::write(stack.root.join("wait.sh"), script).expect("writes");
    let config = stack.root.join("switchback.yaml");
    let text = fs::read_to_string(&config).expect("reads");
    let text = text.replace(
        "checks:\n",
        "checks:\n  commands:\n    - { name: the worker is done, run: [sh, wait.sh], timeout: 3m }\n",
    );
    fs::write(&config, text).expect("writes");
    stack.run(&["rehearse", "bank=2"])
}

fn isolation(report: &Value) -> Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|c| c["kind"] == "isolation").cloned().expect("the check of the isolation")
}

fn log_of(stack: &Stack, file: &str) -> Vec<Value> {
    let runs = stack.root.join(".switchback/runs");
    let paths = fs::read_dir(runs).expect("runs").flatten().map(|e| e.path().join("logs").join(file));
    let path = paths.into_iter().find(|p| p.exists()).expect("the worker's log");
    let text = fs::read_to_string(path).expect("reads");
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

#[test]
fn an_isolation_with_a_hole_refuses_the_certificate_and_an_attack_from_within_production_succeeds() {
    let stack = stack("");
    // The control: the same attacker in production's own network reaches production, by name and address.
    let docker_api = Docker::connect().expect("an engine");
    let image = helper::ensure(&docker_api, Path::new(common::PROGRAM)).expect("a helper");
    let network = format!("{}_default", stack.project);
    let host_port = stack.port;
    let by_name = How::Name { name: "bank".into(), port: 8080 };
    let closed = How::Name { name: "bank".into(), port: free_port() };
    let attempts = [by_name, closed].map(|how| Attempt { what: "production by name".into(), how });
    let ended = attack_on(&network, &image, attempts.to_vec());
    assert!(ended.iter().all(|e| e.reached), "{ended:?}");
    assert!(host_port > 0);

    // A hole: somebody connects the baseline to production's network while the rehearsal runs.
    let over = Arc::new(AtomicBool::new(false));
    let (began, id) = (Instant::now(), id(&stack));
    let hole = meanwhile(&over, move || {
        let filter = format!("label=dev.switchback.stack={id}");
        let service = "label=com.docker.compose.service=bank";
        let found = names(&["ps", "--filter", &filter, "--filter", service, "--format", "{{.Names}}"]);
        let baseline = found.into_iter().find(|n| n.contains("-baseline-"));
        let connected =
            baseline.is_some_and(|c| docker(&["network", "connect", &network, &c]).code == Some(0));
        connected || began.elapsed() > Duration::from_secs(600)
    });
    let ran = stack.run(&["rehearse", "bank=2"]);
    over.store(true, Ordering::Relaxed);
    hole.join().expect("joins");
    let report = report(&stack);
    assert_ne!(ran.code, Some(0), "{}", ran.all());
    let check = isolation(&report);
    assert_eq!(check["verdict"], "fail", "{check}");
    assert!(report["certificate"].is_null() && report["conclusion"] == "refused", "{}", report["reasons"]);
    assert!(report["reasons"].to_string().contains("networks of bank"), "{}", report["reasons"]);
    assert_eq!(staging_left(&stack), Vec::<String>::new());
}
