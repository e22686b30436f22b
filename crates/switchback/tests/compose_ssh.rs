//! A stack whose engine is behind `ssh`: upgraded, rolled back and staged from another host than its own. About three minutes; the host that
//! forwards no sockets, half a minute.

mod common;

use common::Ran;
use common::docker::{Example, Stack, free_port};
use common::ssh::SshHost;
use common::upgrade::PATIENCE;
use std::time::Duration;

#[track_caller]
fn says(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(ran.all().contains(word), "{word:?} is not in:\n{}", ran.all());
    }
}

#[test]
fn a_stack_behind_ssh_is_upgraded_staged_and_rolled_back_and_no_connection_stays() {
    let host = SshHost::start();
    let stack = Stack::compose(Example::Bank);
    stack.up();
    let (address, path) = (host.address(), host.path());
    // A context of the docker command, not the variable: the other test has that one.
    let config = stack.root.join("docker-config");
    let config = config.to_string_lossy().into_owned();
    let env = [("DOCKER_CONFIG", config.as_str()), ("PATH", path.as_str())];
    for args in [&["create", "far", "--docker", &format!("host={address}")][..], &["use", "far"]] {
        let mut docker = std::process::Command::new("docker");
        let done = docker.arg("context").args(args).envs(env).output().expect("docker is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let run = |args: &[&str]| stack.run_with(args, &env);

    let doctor = run(&["doctor"]).expect(0);
    says(&doctor, &[&address, "the engine permits everything", "are free"]);
    run(&["up", "--yes"]).expect(0);
    let http = format!("http 127.0.0.1:{}", stack.port);
    says(&run(&["status"]).expect(0), &["running, healthy", &http]);
    run(&["upgrade", "bank=2", "--yes", "--detach"]).expect(0);
    says(&run(&["status"]).expect(0), &["generation 2, bank 2"]);

    // Ports of staging are forwarded for checks, and a person is told how.
    let up = run(&["staging", "up", "try"]).expect(0);
    says(&up, &["Attack the isolation from inside", "to reach them from here: ssh -N -L"]);
    says(&run(&["staging", "open", "try", "--browser"]).expect(3), &["is an address of"]);
    run(&["staging", "exec", "--name", "try", "bank", "--", "true"]).expect(0);
    run(&["staging", "down", "try", "--yes"]).expect(0);

    says(&run(&["rollback", "--yes"]).expect(0), &["production is back on generation 1"]);
    says(&run(&["status"]).expect(0), &["generation 1, bank 1"]);
    stack.wait_until("all connections are closed", Duration::from_secs(20), || host.clients().is_empty());
}

#[test]
fn a_killed_command_leaves_no_connection_and_a_refused_login_says_why() {
    let host = SshHost::start_hardened();
    let stack = Stack::compose(Example::Bank);
    stack.up();
    let (address, path) = (host.address(), host.path());
    let env = [("DOCKER_HOST", address.as_str()), ("PATH", path.as_str())];
    stack.run_with(&["up", "--yes"], &env).expect(0);
    let mut child = stack
        .command(&["rehearse", "bank=2"])
        .envs(env)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("runs");
    stack.wait_until("it is connected", PATIENCE, || host.clients().len() > 1);
    std::thread::sleep(Duration::from_secs(2));
    child.kill().expect("kills");
    child.wait().expect("ends");
    stack.wait_until("its connections are closed", Duration::from_secs(30), || host.clients().is_empty());

    // Another socket over there, and a host that is not one.
    let wrong = format!("{address}/run/none.sock");
    let there = stack.run_with(&["doctor"], &[("DOCKER_HOST", wrong.as_str()), env[1]]).expect(3);
    says(&there, &["/run/none.sock"]);
    host.lock_out();
    let refused = stack.run_with(&["doctor"], &env).expect(3);
    says(&refused, &["Permission denied", "must work without a question"]);
    let closed = format!("ssh://127.0.0.1:{}", free_port());
    let refused = stack.run_with(&["doctor"], &[("DOCKER_HOST", closed.as_str()), env[1]]).expect(3);
    says(&refused, &["Connection refused"]);
}

#[test]
fn a_host_that_forwards_no_ports_is_named_before_anything_seems_ill() {
    let host = SshHost::start_closed();
    let stack = Stack::compose(Example::Bank);
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    let (address, path) = (host.address(), host.path());
    let env = [("DOCKER_HOST", address.as_str()), ("PATH", path.as_str())];
    let said = ["forwards no ports", "AllowTcpForwarding"];
    says(&stack.run_with(&["doctor"], &env).expect(3), &said);
    says(&stack.run_with(&["rehearse", "bank=2"], &env).expect(3), &said);
}
