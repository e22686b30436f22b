//! The host around the data: ports, disks, and others who use the same volume.

use super::{adopted, bank, nothing_left, production, program, run};
use crate::common::docker::{Stack, docker};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_stack_that_never_ran_and_a_taken_port_are_told_when_production_is_started() {
    let stack = bank();
    let parts = ["the volume", "does not exist yet: the stack has never run", "docker compose up -d"];
    stack.run(&["up", "--yes"]).says(3, &parts);
    stack.up();
    stack.docker_compose(&["down"]).expect(0);
    let stranger = std::net::TcpListener::bind(("127.0.0.1", stack.port)).expect("free");
    stack
        .run(&["up", "--yes"])
        .says(3, &["a port is taken", &stack.port.to_string(), "stop what holds the port"]);
    drop(stranger);
    // Nothing stands in the way of another try.
    stack.run(&["up", "--yes"]).expect(0);
    assert_eq!(stack.bank()["ok"], true);
}

/// A container of another project.
struct Stranger(String);

impl Drop for Stranger {
    fn drop(&mut self) {
        docker(&["rm", "-f", &self.0]);
    }
}

#[test]
fn another_project_that_writes_to_the_same_volume_is_named() {
    let stack = adopted();
    let (before, books) = (production(&stack), stack.bank());
    let stranger = Stranger(format!("{}-stranger", stack.project));
    let volume = format!("{}_receipts:/x", stack.project);
    let label = "com.docker.compose.project=another";
    let start = ["run", "-d", "--network", "none", "--name", &stranger.0, "--label", label, "-v"];
    docker(&[&start[..], &[&volume, "--entrypoint", "sleep", "sbt/bank:1", "600"]].concat()).expect(0);
    let parts = [
        &format!("container {} of another project uses the volume {}_receipts", stranger.0, stack.project),
        "make it part of the stack",
    ];
    stack.run(&["rehearse", "bank=2"]).says(3, &parts.map(|p| p as &str));
    assert_eq!((production(&stack), stack.bank()), (before.clone(), books));
    // A reader is nobody's problem.
    docker(&["rm", "-f", &stranger.0]).expect(0);
    docker(&[&start[..], &[&format!("{volume}:ro"), "--entrypoint", "sleep", "sbt/bank:1", "600"]].concat())
        .expect(0);
    stack.run(&["rehearse", "bank=2"]).expect(0);
    assert_eq!(production(&stack), before);
    nothing_left(&stack);
}

/// A small disk of its own.
struct Disk {
    dir: tempfile::TempDir,
    at: PathBuf,
}

impl Disk {
    /// `None`, with a word, where this user may not mount.
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("folder");
        let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
        fs::create_dir(&at).expect("creates");
        let did = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        assert!(did(Command::new("truncate").args(["-s", size]).arg(&image)), "truncate");
        let made = did(Command::new("mkfs.ext4").args(["-qF", "-m", "0"]).arg(&image));
        if !made || !did(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at)) {
            eprintln!("SKIPPED: this user may not mount a disk");
            return None;
        }
        Some(Self { dir, at })
    }

    /// The bank with its data here.
    fn stack(&self) -> Stack {
        let stack = bank();
        let mut text = String::from("volumes:\n");
        for name in ["books", "receipts"] {
            let device = self.at.join(name);
            fs::create_dir(&device).expect("creates");
            fs::set_permissions(&device, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("mode");
            text += &format!(
                "  {name}:\n    driver_opts: {{ type: none, o: bind, device: {} }}\n",
                device.display()
            );
        }
        stack.edit("compose.yaml", "volumes:\n  books:\n  receipts:\n", &text);
        stack
    }

    fn fill(&self, name: &str, bytes: u64) {
        let path = self.at.join(name);
        let done = Command::new("fallocate")
            .arg("-l")
            .arg(bytes.to_string())
            .arg(path)
            .stderr(Stdio::null())
            .status();
        assert!(done.expect("fallocate is installed").success(), "the disk is too small for the test");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = &self.dir;
    }
}

fn free_bytes(path: &std::path::Path) -> u64 {
    let found = rustix::fs::statvfs(path).expect("asks");
    found.f_bavail * found.f_frsize
}

#[test]
fn a_disk_without_room_for_the_clones_is_refused_before_anything_is_done() {
    let Some(disk) = Disk::new("150M") else { return };
    let stack = disk.stack();
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    disk.fill("receipts/much", 30 << 20);
    let (before, books) = (production(&stack), stack.bank());
    let parts = [
        &format!("not enough disk space at {}", disk.at.display()),
        "are needed for the clones",
        "free some space",
    ];
    stack.run(&["rehearse", "bank=2"]).says(3, &parts.map(|p| p as &str));
    assert_eq!((production(&stack), stack.bank()), (before, books));
    nothing_left(&stack);
    drop(stack);
}

#[test]
fn a_disk_that_fills_up_while_it_is_cloned_is_told_and_cleaned_up() {
    let Some(disk) = Disk::new("700M") else { return };
    let stack = disk.stack();
    stack.up();
    stack.run(&["up", "--yes"]).expect(0);
    disk.fill("receipts/much", 60 << 20);
    let (before, books) = (production(&stack), stack.bank());
    let mut command = program(&stack, &["rehearse", "bank=2"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    // The first clone appears beside the data; somebody else takes all that is left.
    let beside = || {
        let mut found = fs::read_dir(&disk.at).expect("lists").flatten();
        let own = found.find(|e| e.file_name().to_string_lossy().starts_with(".switchback-"));
        own.is_some_and(|e| fs::read_dir(e.path()).is_ok_and(|d| d.count() > 0))
    };
    stack.wait_until("the clone is begun", Duration::from_secs(400), || {
        beside() || child.try_wait().expect("asks").is_some()
    });
    disk.fill("stranger", free_bytes(&disk.at).saturating_sub(4 << 20));
    let output = child.wait_with_output().expect("ends");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(matches!(output.status.code(), Some(3 | 5)), "{:?}: {said}", output.status);
    assert!(said.to_lowercase().contains("no space left") && said.contains("free some space"), "{said}");
    assert_eq!((production(&stack), stack.bank()), (before, books));
    fs::remove_file(disk.at.join("stranger")).expect("removes");
    nothing_left(&stack);
    // With room again it works.
    run(program(&stack, &["rehearse", "bank=2"])).expect(0);
    drop(stack);
}
