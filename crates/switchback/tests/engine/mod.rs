//! A real Docker engine: an image with a shell, and names that are removed afterwards.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod proxy;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use switchback_core::release::MountPlace;
use switchback_engine::docker::{
    BoundMount, Docker, Ended, NetworkMode, RunSpec, STACK_LABEL, ScratchVolume, helper::HelperImages,
};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_switchback");
/// An image with a shell.
pub const SHELL: &str = "sbt-docker-shell:1";
/// The stack that the tests' objects belong to.
pub const STACK: &str = "sbt-docker-stack";

/// The engine; a missing one is a failure.
pub fn docker() -> Docker {
    Docker::connect().expect("these tests need a Docker engine")
}

/// One test at a time, also among processes: two that make the same image would leave one without a name.
fn alone() -> File {
    let path = std::env::temp_dir().join("sbt-docker-images.lock");
    let file = File::options().create(true).append(true).open(path).expect("opens the lock");
    file.lock().expect("locks");
    file
}

/// Makes the image with a shell, once.
pub fn shell_image(docker: &Docker) {
    let _alone = alone();
    if docker.image(SHELL).expect("asks").is_some() {
        return;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let busybox = busybox.expect("these tests need a static busybox: apt-get install busybox-static");
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name(busybox, "bin/busybox").expect("packs");
    let links = "sh cat echo sleep dd head env mkdir id true false wc touch chmod chown ln rm mkfifo httpd nc yes ls tr";
    for name in links.split(' ') {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").expect("packs");
    }
    let archive = tar.into_inner().expect("packs");
    let changes = ["CMD [\"sh\"]".to_owned(), "ENV PATH=/bin".to_owned(), "LABEL sbt.docker=1".to_owned()];
    docker.import_tar(archive.as_slice(), SHELL, &changes).expect("imports");
}

/// The helper image of the program under test.
pub fn helper_image(docker: &Docker) -> String {
    HelperImages::named("sbt-docker-helper")
        .ensure(docker, Path::new(PROGRAM))
        .expect("makes the helper image")
}

/// A name that no other test has.
pub fn unique(word: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("sbt-docker-{word}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A container that runs a script in the shell image.
pub fn script(text: &str) -> RunSpec {
    RunSpec {
        name: Some(unique("run")),
        image: SHELL.to_owned(),
        argv: vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()],
        network: NetworkMode::None,
        labels: BTreeMap::from([(STACK_LABEL.to_owned(), STACK.to_owned())]),
        ..RunSpec::default()
    }
}

pub fn bound(place: MountPlace, target: &str) -> BoundMount {
    BoundMount { place, target: target.to_owned(), read_only: false }
}

/// Runs a script with places mounted; its output.
#[track_caller]
pub fn sh(docker: &Docker, text: &str, mounts: Vec<BoundMount>) -> String {
    let mut out = Vec::new();
    let spec = RunSpec { mounts, ..script(text) };
    let ended: Ended = docker.run(&spec, None, &mut out, &|| false).expect("runs");
    assert_eq!(ended.code, 0, "{text}: {}", ended.stderr_tail);
    String::from_utf8(out).expect("text")
}

/// A volume that is removed at the end of the test.
pub struct Volume<'a> {
    pub docker: &'a Docker,
    pub scratch: ScratchVolume,
}

impl<'a> Volume<'a> {
    pub fn new(docker: &'a Docker, word: &str) -> Self {
        let scratch = docker.volume_create(&unique(word), STACK, &[], &[]).expect("makes a volume");
        Self { docker, scratch }
    }
    pub fn place(&self) -> MountPlace {
        self.scratch.place()
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        let _ = self.docker.volume_remove(&self.scratch);
    }
}

/// A container that is removed at the end of the test.
pub struct Running<'a> {
    pub docker: &'a Docker,
    pub id: String,
}

impl<'a> Running<'a> {
    pub fn new(docker: &'a Docker, spec: &RunSpec) -> Self {
        Self { docker, id: docker.run_detached(spec).expect("starts") }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.docker.remove(&self.id, true);
    }
}
