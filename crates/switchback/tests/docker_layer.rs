//! The facade of the Docker engine against a real engine.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod engine;

use engine::proxy::proxy;
use engine::{Running, SHELL, STACK, Volume, bound, docker, script, sh, shell_image, unique};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use switchback_core::release::MountPlace;
use switchback_engine::docker::{
    Docker, DockerError, ExecSpec, NetworkMode, RunSpec, STACK_LABEL, permissions,
};

/// So many bytes of a pattern, and no memory.
struct Pattern(u64);

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(usize::try_from(self.0).unwrap_or(usize::MAX));
        buffer[..n].fill(b'x');
        self.0 -= n as u64;
        Ok(n)
    }
}

/// Counts bytes.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_engine_says_what_it_is() {
    let memory = || {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        text.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned()
    };
    let before = memory();
    let began = Instant::now();
    let docker = docker();
    eprintln!("MEASURED connect: {:?}; {before} before, {} after", began.elapsed(), memory());
    let info = docker.info().unwrap();
    assert!(info.server_version.contains('.') && info.root_dir.starts_with('/'), "{info:?}");
    assert!(info.api_version.starts_with("1.") && info.platform.starts_with("linux/"), "{info:?}");
    assert!(!info.storage_driver.is_empty() && !info.cgroup.is_empty() && info.memory_bytes > 0, "{info:?}");
    assert_eq!(docker.host_address(), "127.0.0.1");
}

#[test]
fn a_container_gets_its_input_and_gives_its_output_and_exit_code() {
    let docker = docker();
    shell_image(&docker);
    let mut out = Vec::new();
    let spec = script("cat; echo oops >&2; exit 7");
    let ended = docker.run(&spec, Some(&mut &b"hello \0 there"[..]), &mut out, &|| false).unwrap();
    assert_eq!(
        (out.as_slice(), ended.code, ended.stderr_tail.as_str()),
        (&b"hello \0 there"[..], 7, "oops\n")
    );
    assert!(docker.inspect(spec.name.as_deref().unwrap()).unwrap().is_none(), "it was removed");
    // Not reading the input is the program's own affair.
    let ended = docker.run(&script("exit 3"), Some(&mut Pattern(50 << 20)), &mut out, &|| false).unwrap();
    assert_eq!(ended.code, 3);
    // A program that closes its output and goes on is waited for.
    let ended = docker.run(&script("exec >&- 2>&-; sleep 1; exit 5"), None, &mut out, &|| false).unwrap();
    assert_eq!(ended.code, 5);
}

#[test]
fn a_hundred_megabytes_go_through_a_container_and_back() {
    let docker = docker();
    shell_image(&docker);
    let (size, mut out) = (100 << 20, Count(0));
    let began = Instant::now();
    let ended = docker.run(&script("cat"), Some(&mut Pattern(size)), &mut out, &|| false).unwrap();
    eprintln!("MEASURED run: 100 MiB through a container in {:?}", began.elapsed());
    assert_eq!((ended.code, out.0), (0, size));
    let running = Running::new(&docker, &script("sleep 600"));
    let spec = ExecSpec { argv: vec!["cat".into()], ..ExecSpec::default() };
    let (began, mut out) = (Instant::now(), Count(0));
    let ended = docker.exec(&running.id, &spec, Some(&mut Pattern(size)), &mut out, &|| false).unwrap();
    eprintln!("MEASURED exec: 100 MiB through a container in {:?}", began.elapsed());
    assert_eq!((ended.code, out.0), (0, size));
}

#[test]
fn programs_in_a_running_container_keep_values_out_of_arguments() {
    let docker = docker();
    shell_image(&docker);
    let running = Running::new(&docker, &script("sleep 600"));
    let mut out = Vec::new();
    let spec = ExecSpec {
        argv: [
            "sh",
            "-c",
            "tr '\\0' ' ' </proc/self/cmdline; cat /proc/$$/cmdline; echo $PGPASSWORD; exit 4",
        ]
        .map(str::to_owned)
        .to_vec(),
        env: vec![("PGPASSWORD".into(), "s3cret=\"x y".into())],
        user: Some("1234:4321".into()),
        cwd: Some("/bin".into()),
    };
    let ended = docker.exec(&running.id, &spec, None, &mut out, &|| false).unwrap();
    let text = String::from_utf8_lossy(&out);
    assert_eq!((ended.code, text.matches("s3cret").count()), (4, 1), "{text}");
    assert!(text.ends_with("s3cret=\"x y\n"), "{text}");
    let container = docker.inspect(&running.id).unwrap().unwrap();
    assert!(!container.cmd.join(" ").contains("s3cret"));
    let missing = ExecSpec { argv: vec!["nonexistent".into()], ..ExecSpec::default() };
    assert!(
        !matches!(docker.exec(&running.id, &missing, None, &mut out, &|| false), Ok(ended) if ended.code == 0)
    );
    let error = docker.exec("sbt-docker-none", &missing, None, &mut out, &|| false).unwrap_err();
    assert!(matches!(error, DockerError::NoSuch { .. }), "{error}");
    let began = Instant::now();
    let hang = ExecSpec { argv: vec!["sleep".into(), "60".into()], ..ExecSpec::default() };
    let error = docker
        .exec(&running.id, &hang, None, &mut out, &|| began.elapsed() > Duration::from_millis(300))
        .unwrap_err();
    assert!(matches!(error, DockerError::Cancelled) && began.elapsed() < Duration::from_secs(10), "{error}");
}

#[test]
fn a_cancelled_container_is_killed_and_removed() {
    let docker = docker();
    shell_image(&docker);
    for text in ["sleep 600", "exec >&- 2>&-; sleep 600", "trap '' TERM INT; yes"] {
        let (spec, began) = (script(text), Instant::now());
        let cancel = || began.elapsed() > Duration::from_millis(1500);
        let error = docker.run(&spec, None, &mut io::sink(), &cancel).unwrap_err();
        assert!(matches!(error, DockerError::Cancelled), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!(docker.inspect(spec.name.as_deref().unwrap()).unwrap().is_none(), "{text}");
    }
    // Also when our own side fails.
    let full = &mut Full;
    let spec = script("yes");
    let error = docker.run(&spec, None, full, &|| false).unwrap_err();
    assert!(matches!(error, DockerError::Stream { .. }), "{error}");
    assert!(docker.inspect(spec.name.as_deref().unwrap()).unwrap().is_none());
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_container_is_seen_as_it_is() {
    let docker = docker();
    shell_image(&docker);
    let volume = Volume::new(&docker, "seen");
    let mut spec = script("echo started; trap 'exit 9' TERM; while :; do sleep 0.1; done");
    spec.env = vec![("A".into(), "b c".into())];
    spec.mounts = vec![bound(volume.place(), "/data")];
    spec.memory_bytes = Some(64 << 20);
    let running = Running::new(&docker, &spec);
    let began = Instant::now();
    let seen = docker.inspect(&running.id).unwrap().unwrap();
    eprintln!("MEASURED inspect: {:?}", began.elapsed());
    assert_eq!(Some(&seen.name), spec.name.as_ref());
    assert!(seen.state.running && !seen.state.paused && seen.state.pid > 0 && seen.state.health.is_none());
    assert_eq!((seen.image.as_str(), seen.labels[STACK_LABEL].as_str()), (SHELL, STACK));
    assert_eq!(seen.image_id, docker.image(SHELL).unwrap().unwrap().id);
    assert!(seen.env.contains(&"A=b c".to_owned()));
    let mount = &seen.mounts[0];
    assert_eq!((mount.kind.as_str(), mount.name.as_str()), ("volume", volume.scratch.name()));
    assert_eq!((mount.destination.as_str(), mount.writable), ("/data", true));
    assert_eq!(docker.volume_users(volume.scratch.name()).unwrap(), std::slice::from_ref(&seen.name));
    let error = docker.volume_remove(&volume.scratch).unwrap_err();
    assert!(matches!(&error, DockerError::VolumeInUse { by, .. } if by.contains(&seen.name)), "{error}");
    docker.pause(&running.id).unwrap();
    assert!(docker.inspect(&running.id).unwrap().unwrap().state.paused);
    docker.unpause(&running.id).unwrap();
    docker.unpause(&running.id).unwrap();
    // Thawed past the engine, which calls it paused for ever if nobody tells it.
    docker.pause(&running.id).unwrap();
    let v1 = format!("/sys/fs/cgroup/freezer/docker/{}/freezer.state", running.id);
    if fs::write(&v1, "THAWED").is_ok() {
        docker.unpause(&running.id).unwrap();
        assert!(!docker.inspect(&running.id).unwrap().unwrap().state.paused);
        assert_eq!(fs::read_to_string(&v1).unwrap().trim(), "THAWED");
    } else {
        eprintln!("SKIPPED: the freezer of the engine's containers is elsewhere, or not ours");
    }
    let renamed = unique("renamed");
    docker.rename(&running.id, &renamed).unwrap();
    wait(|| docker.logs_tail(&renamed, 10).unwrap() == "started\n");
    docker.stop(&renamed, Some(Duration::from_secs(10))).unwrap();
    docker.stop(&renamed, None).unwrap();
    docker.kill(&renamed).unwrap();
    let seen = docker.inspect(&renamed).unwrap().unwrap();
    assert_eq!((seen.state.running, seen.state.exit_code), (false, 9));
    docker.start(&renamed).unwrap();
    docker.kill(&renamed).unwrap();
    wait(|| docker.inspect(&renamed).unwrap().unwrap().state.exit_code == 137);
    let listed = docker.containers(&[(STACK_LABEL, STACK)]).unwrap();
    assert!(listed.iter().any(|c| c.name == renamed && c.state == "exited"), "{listed:?}");
    docker.remove(&renamed, true).unwrap();
    docker.remove(&renamed, true).unwrap();
    docker.stop(&renamed, None).unwrap();
}

#[track_caller]
fn wait(done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "it did not come to pass");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_users_volume_is_never_scratch() {
    let docker = docker();
    let volume = Volume::new(&docker, "mine");
    let name = volume.scratch.name();
    assert!(docker.scratch_volume(name, STACK, &[]).unwrap().is_some());
    for (stack, live) in [("another", &[][..]), (STACK, &[name][..])] {
        let error = docker.scratch_volume(name, stack, live).unwrap_err();
        assert!(matches!(error, DockerError::NotScratch { .. }), "{error}");
        assert!(docker.volume_create(name, stack, &[], live).is_err());
    }
    assert!(docker.scratch_volume(&unique("none"), STACK, &[]).unwrap().is_none());
    assert!(docker.volumes(&[(STACK_LABEL, STACK)]).unwrap().iter().any(|v| v.name == name));
    docker.volume_remove(&volume.scratch).unwrap();
    docker.volume_remove(&volume.scratch).unwrap();
    assert!(docker.volume(name).unwrap().is_none());
}

#[test]
fn nothing_is_made_on_the_host_by_mounting_it() {
    let docker = docker();
    shell_image(&docker);
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing, \"folder\":ro\nx");
    for place in
        [MountPlace::Dir(missing.to_str().unwrap().to_owned()), MountPlace::Volume(unique("no-volume"))]
    {
        let spec = RunSpec { mounts: vec![bound(place.clone(), "/data")], ..script("true") };
        let error = docker.run(&spec, None, &mut io::sink(), &|| false).unwrap_err();
        assert!(matches!(error, DockerError::NoSuch { .. }), "{error:?}");
        match &place {
            MountPlace::Dir(path) => assert!(!Path::new(path).exists()),
            MountPlace::Volume(name) => assert!(docker.volume(name).unwrap().is_none()),
        }
    }
    std::fs::create_dir(&missing).unwrap();
    std::fs::write(missing.join("file"), "content").unwrap();
    let place = MountPlace::Dir(missing.to_str().unwrap().to_owned());
    assert_eq!(sh(&docker, "cat /data/file", vec![bound(place, "/data")]), "content");
}

#[test]
fn hostile_names_never_reach_the_engine() {
    let docker = docker();
    for name in ["../images", "x/json?all=1", "", "-f", "a b", "x#", "é", "x\nHost: y"] {
        let refused = |what: Result<(), DockerError>| {
            assert!(matches!(what, Err(DockerError::BadName { .. })), "{name:?}: {what:?}");
        };
        refused(docker.inspect(name).map(drop));
        refused(docker.remove(name, true));
        refused(docker.volume(name).map(drop));
        refused(docker.volume_create(name, STACK, &[], &[]).map(drop));
        refused(docker.network(name).map(drop));
        refused(docker.image(&format!("a/{name}")).map(drop).and(docker.start(name)));
        refused(docker.run_detached(&RunSpec { name: Some(name.to_owned()), ..script("true") }).map(drop));
    }
    let spec = RunSpec { image: "sbt-docker-none:1".into(), ..script("true") };
    let error = docker.run_detached(&spec).unwrap_err();
    assert!(matches!(error, DockerError::ImageMissing { .. }), "{error}");
    let spec = RunSpec { labels: Default::default(), ..script("true") };
    assert!(docker.run_detached(&spec).is_err(), "without the label of a stack");
}

#[test]
fn networks_belong_to_a_stack_and_keep_their_options() {
    let docker = docker();
    shell_image(&docker);
    let name = unique("net");
    let options = [("com.docker.network.bridge.inhibit_ipv4", "true")];
    let id = docker.network_create(&name, STACK, &[], true, &options).unwrap();
    assert_eq!(docker.network_create(&name, STACK, &[], true, &options).unwrap(), id);
    assert!(docker.network_create(&name, "another", &[], true, &options).is_err());
    let found = docker.network(&name).unwrap().unwrap();
    assert!(found.internal && found.options[options[0].0] == "true", "{found:?}");
    assert!(docker.networks(&[(STACK_LABEL, STACK)]).unwrap().iter().any(|n| n.name == name));
    let spec = RunSpec { network: NetworkMode::Named(name.clone()), ..script("sleep 600") };
    let running = Running::new(&docker, &spec);
    assert!(!docker.inspect(&running.id).unwrap().unwrap().networks[&name].is_empty());
    let inside = RunSpec { network: NetworkMode::Of(running.id.clone()), ..script("true") };
    assert_eq!(docker.run(&inside, None, &mut io::sink(), &|| false).unwrap().code, 0);
    let error = docker.network_remove(&name, STACK).unwrap_err();
    assert!(matches!(error, DockerError::Conflict { .. }), "{error}");
    assert!(docker.network_remove(&name, "another").is_err());
    drop(running);
    docker.network_remove(&name, STACK).unwrap();
    docker.network_remove(&name, STACK).unwrap();
}

#[test]
fn permissions_that_a_proxy_refuses_are_named() {
    assert_eq!(permissions::missing(&docker()).unwrap(), []);
    let reader =
        proxy(|line| !line.starts_with("GET") || line.contains("/exec/") || line.contains("/volumes"));
    let behind = Docker::connect_at(&reader.address).unwrap();
    let missing: Vec<&str> = permissions::missing(&behind).unwrap().iter().map(|m| m.section).collect();
    assert_eq!(missing, ["ALLOW_START", "ALLOW_STOP", "EXEC", "POST", "VOLUMES"]);
    let error = behind.volume("x").unwrap_err().to_string();
    assert!(error.contains("VOLUMES") && error.contains(&reader.address), "{error}");
    let error = behind.start("x").unwrap_err();
    assert!(matches!(error, DockerError::Forbidden { .. }), "{error}");
    let all = proxy(|_| true);
    let behind = Docker::connect_at(&all.address).unwrap();
    assert_eq!(permissions::missing(&behind).unwrap().len(), 11);
}

#[test]
fn an_engine_that_goes_away_in_the_middle_is_said_to_be_unreachable() {
    shell_image(&docker());
    let proxy = proxy(|_| false);
    let docker = Docker::connect_at(&proxy.address).unwrap();
    for text in ["sleep 600", "exec >&- 2>&-; sleep 600"] {
        proxy.off.store(false, Ordering::Relaxed);
        let spec = script(text);
        let began = Instant::now();
        let gone = || {
            if began.elapsed() > Duration::from_millis(1500) {
                proxy.off.store(true, Ordering::Relaxed);
            }
            false
        };
        let error = docker.run(&spec, None, &mut io::sink(), &gone).unwrap_err();
        assert!(matches!(error, DockerError::EngineUnreachable { .. }), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(20));
        engine::docker().remove(spec.name.as_deref().unwrap(), true).unwrap();
    }
}
